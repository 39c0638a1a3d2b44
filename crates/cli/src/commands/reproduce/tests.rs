use std::collections::BTreeSet;
use std::path::Path;

use clap::Parser;

use crate::cli::Cli;
use crate::config;

use super::paper::rows;
use super::plan::Folders;
use super::row::{How, Value};

#[test]
fn every_table_figure_and_algorithm_has_a_row() {
    let rows = rows();
    let groups: BTreeSet<&str> =
        rows.iter().map(|row| row.name.split('/').next().unwrap()).collect();
    let of = |kind: &str, count: u8| (1..=count).map(|i| format!("{kind}{i}")).collect::<Vec<_>>();
    let expected = [of("algorithm", 2), of("figure", 5), of("table", 8)].concat();
    assert_eq!(groups, expected.iter().map(String::as_str).collect());
    let names: BTreeSet<&String> = rows.iter().map(|row| &row.name).collect();
    assert_eq!(names.len(), rows.len(), "names are unique");
    for row in &rows {
        assert!(
            row.network.is_some() || !row.note.is_empty(),
            "{}: a row without a network says why",
            row.name
        );
        for value in row.measures.iter().flat_map(|measure| &measure.values) {
            let known = value.paper.is_none_or(|value| (0.0..=100.0).contains(&value));
            assert!(known && (value.paper.is_none() || !row.source.is_empty()), "{}", row.name);
        }
    }
}

#[test]
fn every_command_is_one_of_the_program() {
    for row in rows() {
        for command in row.commands_of(None, &Folders::new()) {
            let words = std::iter::once("simdino").chain(command.iter().map(String::as_str));
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{}: {command:?}: {}", row.name, parsed.unwrap_err());
        }
    }
}

#[test]
fn every_recipe_can_be_trained_by() {
    for row in rows() {
        let Some(recipe) = row.recipe() else { continue };
        let values = row.training_values(&Folders::new());
        let loaded = config::load(Path::new(recipe), &values);
        assert!(loaded.is_ok(), "{}: {:?}", row.name, loaded.unwrap_err().lines());
    }
    let without = ["table2/dino_vitb8", "table1/swav", "table1/mocov3"];
    let rows = rows();
    let found = rows.iter().filter(|row| !row.measures.is_empty() && row.recipe().is_none());
    assert_eq!(
        found.map(|row| row.name.as_str()).collect::<BTreeSet<_>>(),
        without.into_iter().collect()
    );
}

/// The headers of the recipes state the same numbers as the table.
#[test]
fn recipes_expect_the_numbers_of_the_table() {
    let mut compared = 0;
    for row in rows() {
        let Some(text) = row.recipe().and_then(simdino::recipes::text) else { continue };
        let values = row.measures.iter().filter(|measure| measure.how != How::Curve);
        let named = |value: &Value| match (value.metric, value.paper) {
            ("k20_top1", Some(paper)) => Some(format!("k-NN {paper:.1}")),
            ("top1", Some(paper)) => Some(format!("linear {paper:.1}")),
            _ => None,
        };
        for words in values.flat_map(|measure| &measure.values).filter_map(named) {
            assert!(text.contains(&words), "{}: {words}", row.name);
            compared += 1;
        }
    }
    assert!(compared > 15, "{compared}");
}

#[test]
fn a_network_has_one_recipe_whatever_the_row() {
    // Weights are given per network, so a row that changed the training would be measured with the
    // weights of another row.
    for row in rows() {
        let trains = row.overrides.iter().filter(|value| !value.starts_with("probe."));
        assert_eq!(trains.count(), 0, "{}: make a recipe", row.name);
    }
}
