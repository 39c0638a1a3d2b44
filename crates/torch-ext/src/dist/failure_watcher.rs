//! A thread in each process that responds to failures while the process waits inside an operation.
//!
//! Without the thread, a process that waits for a dead one would look dead to the others, too.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::failure_report::{FailureReporter, Position, RankReports};
use crate::{Error, Result};

/// How often the thread checks whether any process has failed.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct State {
    stop: bool,
    failed: bool,
    operations: u64,
    what: &'static str,
    reports: Option<RankReports>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is a failure, and returns `true`, or until the thread is to stop, and
    /// returns `false`.
    fn wait(&self, reporter: &FailureReporter) -> bool {
        loop {
            let idle = |state: &mut State| !state.stop && !state.failed;
            let waited = self.changed.wait_timeout_while(self.lock(), PERIOD, idle);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.stop || state.failed {
                return !state.stop;
            }
            drop(state);
            if reporter.failure_reported().unwrap_or(true) {
                return true;
            }
        }
    }

    fn position(&self) -> Position {
        let state = self.lock();
        Position { operations: state.operations, what: state.what.to_owned() }
    }
}

/// Handle to the thread, which stops it when dropped.
#[derive(Debug)]
pub(super) struct FailureWatcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl FailureWatcher {
    pub(super) fn start(reporter: FailureReporter) -> Result<Self> {
        let state =
            State { stop: false, failed: false, operations: 0, what: "the start", reports: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let run = move || {
            if !of_thread.wait(&reporter) {
                return;
            }
            let reports = reporter.report(&of_thread.position());
            of_thread.lock().reports = Some(reports.clone());
            of_thread.changed.notify_all();
            reporter.wait_until_read(&reports);
        };
        let thread = thread::Builder::new().name("group watch".into()).spawn(run);
        let thread = thread.map_err(|source| Error::Thread { what: "group watch", source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Records the start of an operation.
    pub(super) fn begin(&self, what: &'static str) {
        let mut state = self.shared.lock();
        state.operations += 1;
        state.what = what;
    }

    /// After a failed operation, returns the status of the other processes and the position of
    /// this one.
    pub(super) fn ask(&self) -> (RankReports, Position) {
        self.shared.lock().failed = true;
        self.shared.changed.notify_all();
        let waiting = |state: &mut State| state.reports.is_none();
        let state = self.shared.changed.wait_while(self.shared.lock(), waiting);
        let reports = state.unwrap_or_else(PoisonError::into_inner).reports.clone();
        (reports.unwrap_or(RankReports::NoStore), self.shared.position())
    }
}

impl Drop for FailureWatcher {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it does not panic, and `drop` could not report an error
        }
    }
}
