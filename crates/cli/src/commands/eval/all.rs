//! `simdino eval all`: every protocol that two sets of labeled images allow, on features that are
//! computed once.

use std::collections::BTreeSet;

use eval::record::Record;
use eval::store::ImageFeature;
use serde_json::json;

use crate::console::note;
use crate::failure::{Failure, Result};

use super::outcome::{Measured, Outcome, keep, measure_each, table};
use super::subject::{LAST, Subject, Task};
use super::{knn, linear, logistic};

/// What `eval all` takes.
#[derive(Debug, clap::Args)]
pub struct AllArgs {
    #[command(flatten)]
    subject: Subject,
    /// Protocols to leave out
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    without: Vec<String>,
}

/// A protocol with its published settings.
struct Protocol {
    name: &'static str,
    /// Class tokens of this number of last blocks, which a network may be too shallow for.
    wanted: fn() -> BTreeSet<ImageFeature>,
    measure: fn(&Task<'_>) -> Result<Measured>,
}

/// All protocols, cheapest first. A new one needs a line here.
const PROTOCOLS: [Protocol; 3] = [
    Protocol {
        name: "knn",
        wanted: || BTreeSet::from([LAST]),
        measure: |task| knn::measure(&knn::KnnOptions::default(), task),
    },
    Protocol {
        name: "logistic",
        wanted: || BTreeSet::from([LAST]),
        measure: |task| logistic::measure(&logistic::LogisticOptions::default(), task),
    },
    Protocol {
        name: "linear",
        wanted: || linear::wanted(&linear::LinearOptions::default()),
        measure: |task| linear::measure(&linear::LinearOptions::default(), task),
    },
];

/// Measures all networks.
pub fn run(args: &AllArgs) -> Result<Outcome> {
    let names: Vec<&str> = PROTOCOLS.iter().map(|protocol| protocol.name).collect();
    if let Some(name) = args.without.iter().find(|name| !names.contains(&name.as_str())) {
        let known = names.join(", ");
        return Err(Failure::usage(format!("--without {name}: expected some of {known}")));
    }
    let chosen: Vec<&Protocol> = PROTOCOLS
        .iter()
        .filter(|protocol| !args.without.iter().any(|name| name == protocol.name))
        .collect();
    if chosen.is_empty() {
        return Err(Failure::usage("--without: leaves no protocol"));
    }
    measure_each(&args.subject.networks, &mut |opened| {
        let depth = opened.weights.backbone.depth();
        let fits = |feature: &ImageFeature| match feature {
            ImageFeature::Cls(block) => i64::from(*block) <= depth,
            ImageFeature::MeanPatch => true,
        };
        let wanted = chosen.iter().flat_map(|protocol| (protocol.wanted)()).filter(fits).collect();
        all(&chosen, &args.subject.task(opened, &wanted)?)
    })
}

/// Measures all protocols that work, and keeps each result as soon as it is there; one that does not
/// work is said, and costs only itself.
fn all(protocols: &[&Protocol], task: &Task<'_>) -> Result<Measured> {
    let folder = task.subject.networks.folder_of_results(&task.opened.path);
    let (mut records, mut failures) = (Vec::new(), Vec::new());
    for protocol in protocols {
        match (protocol.measure)(task) {
            Ok(measured) => {
                // The next one may take hours.
                if let Some(folder) = &folder {
                    keep(folder, &measured.records)?;
                }
                records.extend(measured.records);
            }
            Err(failure) => {
                let why = format!("{}: {}", protocol.name, failure.lines().join("; "));
                note(&format!("warning: left out {why}"));
                failures.push((why, failure));
            }
        }
    }
    if records.is_empty()
        && let Some((_, failure)) = failures.pop()
    {
        return Err(failure);
    }
    let rows: Vec<&Record> = records.iter().collect();
    let left_out: Vec<&String> = failures.iter().map(|(why, _)| why).collect();
    let missing: String = left_out.iter().map(|why| format!("left out {why}\n")).collect();
    let text = table(&rows) + &missing;
    let json = json!({ "records": records, "left_out": left_out });
    Ok(Measured { records, json, text })
}
