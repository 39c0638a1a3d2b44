//! Signal handling: SIGINT, SIGTERM, and SIGUSR1 ask a run to stop after its current step and to
//! write a checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::failure::{Context, Result};

/// A flag that a signal sets.
#[derive(Clone)]
pub struct StopFlag {
    stop: Arc<AtomicBool>,
    /// Set once `stop` is no longer checked, so that signals get their default action back.
    released: Arc<AtomicBool>,
}

impl StopFlag {
    /// Installs the signal handlers.
    ///
    /// A second SIGINT ends the process at once, with exit code 1. A second SIGTERM does not:
    /// schedulers and wrappers may send it both to the process and to its group.
    ///
    /// # Errors
    /// Returns an error if a handler cannot be installed.
    pub fn listen() -> Result<Self> {
        let (stop, released) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            let register = || -> std::io::Result<()> {
                if signal == SIGINT {
                    flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
                }
                flag::register_conditional_default(signal, Arc::clone(&released))?;
                flag::register(signal, Arc::clone(&stop))?;
                Ok(())
            };
            register().context(|| "cannot listen for signals".into())?;
        }
        Ok(Self { stop, released })
    }

    /// Returns whether a signal was received.
    pub fn is_set(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns the flag itself, for code that waits for images.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Restores the default action of signals, which ends the process. To be called when the loop
    /// that checks the flag is over.
    pub fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }
}
