//! SIGINT, SIGTERM, and SIGUSR1 request that a run stop after its current step, with a checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::failure::{Context, Result};

/// Set by a signal.
#[derive(Clone)]
pub struct StopFlag {
    stop: Arc<AtomicBool>,
    /// Nobody looks at `stop` any more.
    released: Arc<AtomicBool>,
}

impl StopFlag {
    /// Listens from now on. A second SIGINT ends the process at once, with exit code 1; not a second
    /// SIGTERM, which schedulers and wrappers send to a process and its group alike.
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

    /// Whether a signal came.
    pub fn is_set(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The flag itself, for those who wait for images.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Signals end the process from now on: the loop that looked for them is over.
    pub fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }
}
