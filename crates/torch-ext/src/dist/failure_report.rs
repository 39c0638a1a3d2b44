//! Determines, after a failure, which processes still respond and what they are doing.

use std::thread;
use std::time::{Duration, Instant};

use super::Rendezvous;
use super::rendezvous::list;
use super::store::Store;
use crate::Result;

const PAUSE: Duration = Duration::from_millis(20);
/// Key that is set when any process has failed.
pub(super) const FAILED: &str = "failed";

/// The last operation that a process started, and how many operations it has started so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub operations: u64,
    pub what: String,
}

/// The status of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RankStatus {
    /// It does not respond.
    Gone,
    /// It exited and reported this reason.
    Left(String),
    /// It responds, and is at this position.
    At(Position),
}

/// The responses of all processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RankReports {
    /// Host and status, by rank.
    Answers(Vec<(String, RankStatus)>),
    /// No process can be asked, because the store is gone.
    NoStore,
}

/// Reports the failure of a process and collects responses through the store.
pub(super) struct FailureReporter {
    pub store: Store,
    pub prefix: String,
    pub rendezvous: Rendezvous,
}

impl FailureReporter {
    /// Returns whether any process has failed.
    pub(super) fn failure_reported(&self) -> Result<bool> {
        self.store.has(&self.key(FAILED))
    }

    /// Reports a failure and the position of this process, and waits up to [`grace`] for the
    /// others.
    pub(super) fn report(&self, own: &Position) -> RankReports {
        self.ask(own).unwrap_or(RankReports::NoStore)
    }

    fn ask(&self, own: &Position) -> Result<RankReports> {
        let answer = format!("{} {}", own.operations, own.what);
        self.store.set(&self.of_rank("alive", self.rendezvous.rank), &answer)?;
        self.store.set(&self.key(FAILED), "")?;
        let deadline = Instant::now() + grace(self.rendezvous.timeout);
        loop {
            let statuses = self.statuses()?;
            let complete = statuses.iter().all(|(_, status)| *status != RankStatus::Gone);
            if complete || Instant::now() > deadline {
                self.store.set(&self.of_rank("told", self.rendezvous.rank), "")?;
                return Ok(RankReports::Answers(statuses));
            }
            thread::sleep(PAUSE);
        }
    }

    fn statuses(&self) -> Result<Vec<(String, RankStatus)>> {
        (0..self.rendezvous.size)
            .map(|rank| {
                let host = self.store.find(&self.of_rank("here", rank))?.unwrap_or_default();
                Ok((host, self.status(rank)?))
            })
            .collect()
    }

    fn status(&self, rank: usize) -> Result<RankStatus> {
        if let Some(reason) = self.store.find(&self.of_rank("left", rank))? {
            return Ok(RankStatus::Left(reason));
        }
        Ok(self.store.find(&self.of_rank("alive", rank))?.map_or(RankStatus::Gone, |answer| {
            let (operations, what) = answer.split_once(' ').unwrap_or_default();
            let operations = operations.parse().unwrap_or(0);
            RankStatus::At(Position { operations, what: what.to_owned() })
        }))
    }

    /// If this process serves the store, waits until all processes that responded have read the
    /// responses, or until [`grace`] is over.
    pub(super) fn wait_until_read(&self, reports: &RankReports) {
        let RankReports::Answers(answers) = reports else { return };
        let deadline = Instant::now() + grace(self.rendezvous.timeout);
        let all_told = || {
            answers.iter().enumerate().all(|(rank, (_, status))| {
                !matches!(status, RankStatus::At(_))
                    || self.store.has(&self.of_rank("told", rank)).unwrap_or(true)
            })
        };
        while self.rendezvous.serves() && Instant::now() < deadline && !all_told() {
            thread::sleep(PAUSE);
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn of_rank(&self, name: &str, rank: usize) -> String {
        format!("{}{name}/{rank}", self.prefix)
    }
}

/// Returns how long to wait for the other processes, which check for failures far more often.
fn grace(timeout: Duration) -> Duration {
    (timeout / 2).min(Duration::from_secs(5))
}

impl RankReports {
    /// Returns the ranks of the processes that do not respond.
    pub(super) fn gone(&self) -> Vec<usize> {
        match self {
            Self::Answers(answers) => {
                let gone = answers
                    .iter()
                    .enumerate()
                    .filter(|(_, (_, status))| *status == RankStatus::Gone);
                gone.map(|(rank, _)| rank).collect()
            }
            Self::NoStore => Vec::new(),
        }
    }

    /// Describes in a sentence which process is at fault.
    pub(super) fn sentence(&self, rendezvous: &Rendezvous, own: &Position) -> String {
        match self {
            Self::NoStore if rendezvous.store_is_external => {
                "the launcher, which hosts the store, is gone".into()
            }
            Self::NoStore => "process 0, which hosts the store, is gone".into(),
            Self::Answers(answers) => {
                let told = answers.iter().enumerate();
                let told: Vec<String> =
                    told.filter_map(|(rank, answer)| clause(rank, answer, own)).collect();
                if told.is_empty() {
                    "all processes respond; are they all at the same step?".into()
                } else {
                    told.join("; ")
                }
            }
        }
    }
}

/// Describes a process; `None` if it is not behind this process.
fn clause(rank: usize, (host, status): &(String, RankStatus), own: &Position) -> Option<String> {
    let who = format!("{} on {host}", list(&[rank]));
    match status {
        RankStatus::Gone => Some(format!("{who} is gone")),
        RankStatus::Left(reason) => Some(format!("{who} left: {reason}")),
        RankStatus::At(there) if there.operations < own.operations => Some(format!(
            "{who} is behind, at operation {} ({}), while this process is at {}",
            there.operations, there.what, own.operations
        )),
        RankStatus::At(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(operations: u64) -> (String, RankStatus) {
        ("a".into(), RankStatus::At(Position { operations, what: "barrier".into() }))
    }

    #[test]
    fn a_sentence_names_who_is_gone_left_or_behind() {
        let rendezvous = Rendezvous {
            host: "a".into(),
            port: 1,
            rank: 0,
            size: 4,
            timeout: Duration::from_secs(1),
            store_is_external: false,
            interface: None,
        };
        let own = Position { operations: 7, what: "sum".into() };
        let left = ("b".into(), RankStatus::Left("no disk".into()));
        let reports =
            RankReports::Answers(vec![at(7), ("b".into(), RankStatus::Gone), left, at(6)]);
        assert_eq!(
            reports.sentence(&rendezvous, &own),
            "process 1 on b is gone; process 2 on b left: no disk; process 3 on a is behind, at \
             operation 6 (barrier), while this process is at 7"
        );
        assert_eq!(reports.gone(), [1]);
        let all = RankReports::Answers(vec![at(7), at(8)]).sentence(&rendezvous, &own);
        assert!(all.contains("same step"), "{all}");
        assert!(RankReports::NoStore.sentence(&rendezvous, &own).starts_with("process 0"));
        let elsewhere = Rendezvous { store_is_external: true, ..rendezvous };
        assert!(RankReports::NoStore.sentence(&elsewhere, &own).starts_with("the launcher"));
    }
}
