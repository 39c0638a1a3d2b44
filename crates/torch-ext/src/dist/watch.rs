//! A thread beside each process that answers for it while it waits inside an operation.
//!
//! Without it, a process that waits for a dead one looks as dead to the others as that one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::roll_call::{Caller, Position, Roll};
use crate::{Error, Result};

/// How often the thread looks whether some process has failed.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct State {
    stop: bool,
    failed: bool,
    operations: u64,
    what: &'static str,
    roll: Option<Roll>,
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

    /// Waits for something to do: true to call the roll, false to stop.
    fn wait(&self, caller: &Caller) -> bool {
        loop {
            let idle = |state: &mut State| !state.stop && !state.failed;
            let waited = self.changed.wait_timeout_while(self.lock(), PERIOD, idle);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.stop || state.failed {
                return !state.stop;
            }
            drop(state);
            if caller.called().unwrap_or(true) {
                return true;
            }
        }
    }

    fn position(&self) -> Position {
        let state = self.lock();
        Position { operations: state.operations, what: state.what.to_owned() }
    }
}

/// The thread, seen from the process.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(caller: Caller) -> Result<Self> {
        let state =
            State { stop: false, failed: false, operations: 0, what: "the start", roll: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let run = move || {
            if !of_thread.wait(&caller) {
                return;
            }
            let roll = caller.call(&of_thread.position());
            of_thread.lock().roll = Some(roll.clone());
            of_thread.changed.notify_all();
            caller.linger(&roll);
        };
        let thread = thread::Builder::new().name("group watch".into()).spawn(run);
        let thread = thread.map_err(|source| Error::Thread { what: "group watch", source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Notes that an operation begins.
    pub fn begin(&self, what: &'static str) {
        let mut state = self.shared.lock();
        state.operations += 1;
        state.what = what;
    }

    /// After an operation has failed: what became of the others, and where this process is.
    pub fn ask(&self) -> (Roll, Position) {
        self.shared.lock().failed = true;
        self.shared.changed.notify_all();
        let waiting = |state: &mut State| state.roll.is_none();
        let state = self.shared.changed.wait_while(self.shared.lock(), waiting);
        let roll = state.unwrap_or_else(PoisonError::into_inner).roll.clone();
        (roll.unwrap_or(Roll::NoStore), self.shared.position())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it does not panic, and there is nobody to tell
        }
    }
}
