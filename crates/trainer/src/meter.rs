//! Contents of a metrics line: values of the step, speed, waiting time, memory, and remaining
//! time.

use std::time::{Duration, Instant};

use objectives::health::Signals;
use tch::{Device, Tensor};

use crate::error::Result;
use crate::metrics::Record;
use crate::plan::Plan;
use crate::schedule::StepValues;
use crate::step::StepOutput;

/// Measures the time between two lines of metrics.
pub(crate) struct Meter {
    device: Device,
    batch_size: usize,
    since: Instant,
    steps: u64,
    waited: Duration,
    /// Number of broken images that this process has found since it began.
    broken: u64,
    rate_retries: u64,
    skipped: u64,
}

impl Meter {
    /// Creates a meter that starts now.
    pub(crate) fn new(device: Device, batch_size: usize) -> Self {
        Self {
            device,
            batch_size,
            since: Instant::now(),
            steps: 0,
            waited: Duration::ZERO,
            broken: 0,
            rate_retries: 0,
            skipped: 0,
        }
    }

    /// Counts a step, whether it was skipped or not.
    pub(crate) fn step_done(&mut self, waited: Duration, broken: usize) {
        self.steps += 1;
        self.waited += waited;
        self.broken += broken as u64;
    }

    /// Returns the number of broken images that this process has found since it began.
    pub(crate) fn broken(&self) -> u64 {
        self.broken
    }

    /// Counts the retries of coding rates in a completed step.
    pub(crate) fn retried(&mut self, retries: u64) {
        self.rate_retries += retries;
    }

    /// Counts a step that was skipped.
    pub(crate) fn skipped(&mut self) {
        self.skipped += 1;
    }

    /// Runs something other than training without counting its time.
    pub(crate) fn pause<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = f();
        self.since += start.elapsed();
        result
    }

    /// Returns the line after `done` steps and starts the next interval. A skipped step has no
    /// output. `broken` is the number of broken images that all processes have found since they
    /// began.
    ///
    /// # Errors
    /// Returns an error if the device does not report its memory.
    pub(crate) fn record(
        &mut self,
        done: u64,
        plan: &Plan,
        values: &StepValues,
        output: Option<&StepOutput>,
        broken: u64,
    ) -> Result<Record> {
        let mut record = Record { step: done, epoch: plan.epoch(done), values: Vec::new() };
        let mut put = |key: &str, value: f64| record.values.push((key.to_owned(), value));
        if let Some(output) = output {
            put_output(&mut put, output);
        }
        put("train/skipped", self.skipped as f64);
        put("rate/retries", self.rate_retries as f64);
        put("optim/lr", values.lr);
        put("optim/weight_decay", values.weight_decay);
        put("optim/momentum_teacher", values.momentum_teacher);
        self.put_speed(&mut put, plan.last_step - done);
        self.put_memory(&mut put)?;
        put("data/broken", broken as f64);
        self.since = Instant::now();
        self.steps = 0;
        self.waited = Duration::ZERO;
        self.rate_retries = 0;
        self.skipped = 0;
        Ok(record)
    }

    fn put_speed(&self, put: &mut impl FnMut(&str, f64), steps_left: u64) {
        let elapsed = self.since.elapsed().as_secs_f64().max(1e-9);
        let step_s = elapsed / self.steps.max(1) as f64;
        put("speed/img_s", self.batch_size as f64 / step_s);
        put("speed/step_ms", 1e3 * step_s);
        put("speed/data_wait", (self.waited.as_secs_f64() / elapsed).min(1.0));
        put("time/eta_s", step_s * steps_left as f64);
    }

    fn put_memory(&self, put: &mut impl FnMut(&str, f64)) -> Result<()> {
        const GB: f64 = 1e9;
        let process = torch_ext::device_memory(Device::Cpu)?;
        put("memory/process_gb", process.allocated_bytes as f64 / GB);
        if self.device.is_cuda() {
            let device = torch_ext::device_memory(self.device)?;
            put("memory/device_gb", device.peak_allocated_bytes as f64 / GB);
        }
        Ok(())
    }
}

/// Adds the values that a step reports.
fn put_output(put: &mut impl FnMut(&str, f64), output: &StepOutput) {
    output.terms.iter().for_each(|(name, term)| put(name, read(term)));
    output.numbers.iter().for_each(|&(name, number)| put(name, number));
    let signals = output.signals.iter().flat_map(Signals::metrics);
    signals.for_each(|(name, signal)| put(name, signal));
    put("optim/grad_norm", output.grad_norm);
    for (module, norm) in &output.grad_norms {
        put(&format!("optim/grad_norm_{module}"), *norm);
    }
    if let Some(ratio) = &output.update_ratio {
        put("optim/update_ratio", read(ratio));
    }
}

/// Reads the value of a 0-dim tensor; waits for its device.
pub(crate) fn read(value: &Tensor) -> f64 {
    value.double_value(&[]) // sync
}
