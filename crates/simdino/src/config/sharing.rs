//! Checks that apply only if several processes share a batch.

use base::check::Check;

use super::RunConfig;

impl RunConfig {
    /// Returns what in the config does not fit this number of processes, one sentence each.
    pub fn problems_of_sharing(&self, size: usize) -> Vec<String> {
        if size == 1 {
            return Vec::new();
        }
        let (batch, accumulate) = (self.train.batch_size, self.train.accumulate);
        let parts = accumulate * size;
        let mut check = Check::default();
        check.that("train.batch_size", batch.is_multiple_of(parts), || {
            format!(
                "must be a multiple of {parts}, {size} processes of {accumulate} passes (got {batch})"
            )
        });
        for (key, groups) in self.groups() {
            let spanning = key == "simdino.rate_groups" && groups == 1 && accumulate == 1;
            check.that(key, spanning || groups.is_multiple_of(parts), || {
                format!(
                    "must be a multiple of {parts}, {size} processes of {accumulate} passes, so that a \
                     group lies in one of them (got {groups})"
                )
            });
        }
        check.problems().into_iter().map(|(key, what)| format!("{key}: {what}")).collect()
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
}
