//! Checks that apply only if several processes share a batch.

use base::check::Check;

use super::RunConfig;
use super::sections::GROUP_ROWS;

impl RunConfig {
    /// Returns a sentence for each value of the config that does not fit this number of processes.
    pub fn problems_of_sharing(&self, size: usize) -> Vec<String> {
        let (batch, accumulate) = (self.train.batch_size, self.train.accumulate);
        // A config without passes is refused by itself.
        if size <= 1 || accumulate == 0 {
            return Vec::new();
        }
        let parts = accumulate * size;
        let mut check = Check::default();
        check.that("train.batch_size", batch.is_multiple_of(parts), || {
            format!(
                "must be a multiple of {parts}, for {} (got {batch})",
                parts_in_words(size, accumulate)
            )
        });
        for (key, groups) in self.groups() {
            let spanning = key.starts_with("simdino.") && groups == 1 && accumulate == 1;
            check.that(key, spanning || groups.is_multiple_of(parts), || {
                if key == GROUP_ROWS {
                    return self.unshared_groups(groups, size);
                }
                format!(
                    "must be a multiple of {parts}, for {}, so that each group fits in one of them \
                     (got {groups})",
                    parts_in_words(size, accumulate)
                )
            });
        }
        check.problems().into_iter().map(|(key, what)| format!("{key}: {what}")).collect()
    }

    /// Describes why groups of `simdino.group_rows` images cannot be shared by `size` processes.
    fn unshared_groups(&self, groups: usize, size: usize) -> String {
        let (batch, accumulate) = (self.train.batch_size, self.train.accumulate);
        let (parts, rows) = (accumulate * size, batch.div_ceil(groups));
        let part = batch / parts;
        let smaller = (2..=rows.min(part)).rev().find(|rows| part.is_multiple_of(*rows));
        let smaller = smaller.filter(|_| batch.is_multiple_of(parts));
        let larger = rows.checked_mul(parts).and_then(|unit| batch.checked_next_multiple_of(unit));
        let larger = larger.map(|batch| format!("train.batch_size={batch}"));
        let ways: Vec<String> =
            smaller.map(|rows| format!("{GROUP_ROWS}={rows}")).into_iter().chain(larger).collect();
        format!(
            "{groups} groups of {rows} images cannot be divided among {}, because each group must \
             fit in one of them; {} would do",
            parts_in_words(size, accumulate),
            ways.join(" or ")
        )
    }
}

/// Formats numbers as `3 processes` or `3 processes with 2 passes each`.
fn parts_in_words(processes: usize, passes: usize) -> String {
    match passes {
        1 => format!("{processes} processes"),
        _ => format!("{processes} processes with {passes} passes each"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_shared_in_whole_groups() {
        let mut config = RunConfig::default();
        assert_eq!(config.problems_of_sharing(1), Vec::<String>::new());
        assert_eq!(config.problems_of_sharing(8), Vec::<String>::new());
        let problems = config.problems_of_sharing(3);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("train.batch_size: must be a multiple of 3"));
        assert!(problems[1].starts_with("simdino.rate_groups: must be a multiple of 3"));
        config.simdino.rate_groups = 1;
        assert_eq!(config.problems_of_sharing(8), Vec::<String>::new(), "one group may span them");
        config.train.accumulate = 2;
        assert_eq!(config.problems_of_sharing(8).len(), 1);
    }

    #[test]
    fn groups_of_so_many_images_lie_in_one_process() {
        let mut config = RunConfig::default();
        config.simdino.group_rows = Some(16);
        config.train.batch_size = 64;
        assert_eq!(config.problems_of_sharing(4), Vec::<String>::new());
        let problems = config.problems_of_sharing(8);
        assert_eq!(
            problems,
            ["simdino.group_rows: 4 groups of 16 images cannot be divided among 8 processes, \
                 because each group must fit in one of them; simdino.group_rows=8 or \
                 train.batch_size=128 would do"]
        );
        config.simdino.group_rows = Some(8);
        assert_eq!(config.problems_of_sharing(8), Vec::<String>::new());
        config.simdino.group_rows = Some(64);
        assert_eq!(config.problems_of_sharing(8), Vec::<String>::new(), "one group may span them");
    }
}
