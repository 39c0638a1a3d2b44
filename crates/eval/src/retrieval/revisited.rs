//! Scores of the revisited Oxford and Paris benchmarks.

use std::collections::HashSet;

use serde::Serialize;
use tch::Tensor;

use super::average_precision::{average_precision, precision_at};
use super::ground_truth::{GroundTruth, Query};
use crate::error::{Error, Result};
use crate::features::{check_images, unit_rows};

/// Numbers of top-ranked images at which the precision is reported.
const AT: [usize; 3] = [1, 5, 10];

/// Which images count as positives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difficulty {
    /// Easy images; hard ones are junk.
    Easy,
    /// Easy and hard images.
    Medium,
    /// Hard images; easy ones are junk.
    Hard,
}

impl Difficulty {
    /// All difficulties, by name.
    pub const ALL: [(&str, Self); 3] =
        [("easy", Self::Easy), ("medium", Self::Medium), ("hard", Self::Hard)];

    /// Returns the positives and the junk of a query.
    fn of(self, query: &Query) -> (HashSet<usize>, HashSet<usize>) {
        let (easy, hard, junk) = (&query.easy, &query.hard, &query.junk);
        let set =
            |lists: &[&Vec<usize>]| lists.iter().flat_map(|list| list.iter().copied()).collect();
        match self {
            Self::Easy => (set(&[easy]), set(&[junk, hard])),
            Self::Medium => (set(&[easy, hard]), set(&[junk])),
            Self::Hard => (set(&[hard]), set(&[junk, easy])),
        }
    }
}

/// Scores for one difficulty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RetrievalScore {
    /// The difficulty.
    pub difficulty: Difficulty,
    /// Mean average precision over the queries that have positives, 0-1.
    pub map: f64,
    /// Mean precision at 1, 5, and 10 over the same queries, 0-1.
    pub precision_at: [f64; 3],
    /// Number of these queries.
    pub queries: usize,
}

/// Rankings of the database for each query.
#[derive(Debug)]
pub struct Revisited {
    /// For each query, the indices of the database images from the most to the least similar.
    rankings: Vec<Vec<i64>>,
}

impl Revisited {
    /// Ranks the database images `[m, D]` for each query of `[q, D]` by cosine similarity.
    ///
    /// # Errors
    /// Returns an error if features are not finite or have different widths.
    pub fn new(queries: &Tensor, database: &Tensor) -> Result<Self> {
        check_images(queries, "query")?;
        check_images(database, "database")?;
        let similarity = unit_rows(queries).f_matmul(&unit_rows(database).tr())?; // [q, m]
        let (_, order) = similarity.sort_stable(true, 1, true);
        let rankings =
            order.split(1, 0).into_iter().map(|row| Vec::<i64>::try_from(row.flatten(0, -1)));
        Ok(Self { rankings: rankings.collect::<std::result::Result<_, _>>()? })
    }

    /// Scores the rankings, leaving out the database images in `missing` and the queries in
    /// `missing_queries`.
    ///
    /// # Errors
    /// Returns an error if no query has a positive, or if the numbers of rankings and queries
    /// differ.
    pub fn score(
        &self,
        truth: &GroundTruth,
        difficulty: Difficulty,
        missing: &HashSet<usize>,
        missing_queries: &HashSet<usize>,
    ) -> Result<RetrievalScore> {
        if self.rankings.len() != truth.queries.len() {
            let got = vec![self.rankings.len() as i64];
            return Err(Error::Shape { what: "queries", expected: "[number of queries, D]", got });
        }
        let (mut map, mut at, mut queries) = (0.0, [0.0; 3], 0);
        let all = self.rankings.iter().zip(&truth.queries).enumerate();
        for (_, (ranking, query)) in all.filter(|(index, _)| !missing_queries.contains(index)) {
            let (positives, junk) = difficulty.of(query);
            let positives: HashSet<usize> = positives.difference(missing).copied().collect();
            if positives.is_empty() {
                continue;
            }
            let ranked = ranking.iter().map(|&image| image as usize);
            let ranked = ranked.filter(|image| !junk.contains(image) && !missing.contains(image));
            let ranks: Vec<usize> = ranked
                .enumerate()
                .filter(|(_, image)| positives.contains(image))
                .map(|(rank, _)| rank)
                .collect();
            map += average_precision(&ranks, positives.len());
            at.iter_mut().zip(AT).for_each(|(sum, k)| *sum += precision_at(&ranks, k));
            queries += 1;
        }
        if queries == 0 {
            return Err(Error::NoPositives);
        }
        let mean = |sum: f64| sum / queries as f64;
        Ok(RetrievalScore { difficulty, map: mean(map), precision_at: at.map(mean), queries })
    }
}
