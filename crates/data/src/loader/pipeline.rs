//! Runs several jobs at a time and returns their results in the order of submission.
//!
//! There are two kinds of threads. Workers (a rayon pool) execute the small tasks of a job, one
//! image each. A few coordinators, idle most of the time, split jobs into tasks and wait for them.
//! A worker never waits for another one, so a later batch never delays an earlier one. Several jobs
//! are in progress at once, so no worker is idle at the end of a batch.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Maximum number of coordinators. More of them gain nothing, because a few batches in progress
/// keep all workers busy.
const MAX_COORDINATORS: usize = 4;

/// How often a waiting thread checks whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// How long dropping a pipeline waits for images in progress. A worker may be reading from a source
/// that never responds, and such a read cannot be canceled; the worker is then abandoned.
const LAST_IMAGE: Duration = Duration::from_secs(5);

/// Determines when a waiting thread gives up.
pub(super) struct Patience<'a> {
    /// Returns whether the run was asked to stop.
    pub(super) stop: &'a dyn Fn() -> bool,
    /// How long to keep waiting once `stop` returns true.
    pub(super) grace: Duration,
}

/// The workers that a job may use.
pub(super) struct WorkerPool {
    pool: ThreadPool,
    stop: AtomicBool,
}

impl WorkerPool {
    /// Executes the tasks on the workers, starting them in order, and waits for all of them. After
    /// a stop, the remaining tasks are skipped.
    pub(super) fn for_each<T: Send>(&self, tasks: Vec<T>, work: impl Fn(T) + Sync) {
        let work = &work;
        self.pool.in_place_scope_fifo(|scope| {
            for task in tasks {
                scope.spawn_fifo(move |_| {
                    if !self.stop.load(Ordering::Relaxed) {
                        work(task);
                    }
                });
            }
        });
    }
}

type Job<J, O> = (J, SyncSender<Result<O>>);

/// Threads that execute jobs, and the queue of their results.
pub(super) struct Pipeline<J, O> {
    workers_pool: Option<Arc<WorkerPool>>,
    jobs: Option<Sender<Job<J, O>>>,
    pending: VecDeque<Receiver<Result<O>>>,
    coordinators: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    /// Whether a waiting thread gave up; dropping the pipeline then does not wait for tasks in
    /// progress.
    interrupted: bool,
}

impl<J: Send + 'static, O: Send + 'static> Pipeline<J, O> {
    /// Starts `workers` threads (`None` = one per core) that execute `work` for each job, with up
    /// to `ahead` jobs at a time.
    pub(super) fn start(
        workers: Option<usize>,
        ahead: usize,
        work: impl Fn(J, &WorkerPool) -> Result<O> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (pool, workers) = start_pool(workers)?;
        let workers_pool = Arc::new(WorkerPool { pool, stop: AtomicBool::new(false) });
        let (jobs, queue) = channel::<Job<J, O>>();
        let (queue, work) = (Arc::new(Mutex::new(queue)), Arc::new(work));
        let mut pipeline = Self {
            workers_pool: Some(workers_pool.clone()),
            jobs: Some(jobs),
            pending: VecDeque::new(),
            coordinators: Vec::new(),
            workers,
            interrupted: false,
        };
        for _ in 0..ahead.clamp(1, MAX_COORDINATORS) {
            let (queue, work, workers_pool) = (queue.clone(), work.clone(), workers_pool.clone());
            let coordinator = std::thread::Builder::new()
                .name("data-coordinator".into())
                .spawn(move || coordinate(&queue, &workers_pool, work.as_ref()))
                .map_err(|error| Error::Worker { message: error.to_string() })?;
            pipeline.coordinators.push(coordinator);
        }
        Ok(pipeline)
    }

    /// Returns the number of submitted jobs whose results have not been taken.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Submits a job.
    pub(super) fn submit(&mut self, job: J) {
        let (sender, receiver) = sync_channel(1);
        self.pending.push_back(receiver);
        if let Some(jobs) = &self.jobs {
            // If no coordinator is left, the receiver reports this when the result is requested.
            let _ = jobs.send((job, sender));
        }
    }

    /// Returns the result of the oldest job if it arrives within `time`, and `None` if it does not
    /// or if there is no job.
    pub(super) fn next_within(&mut self, time: Duration) -> Option<Result<O>> {
        let result = match self.pending.front()?.recv_timeout(time) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => Err(ended_early()),
        };
        self.pending.pop_front();
        Some(result)
    }

    /// Waits for the result of the oldest job. Returns `None` if there is no job.
    pub(super) fn next(&mut self, patience: &Patience<'_>) -> Option<Result<O>> {
        let receiver = self.pending.pop_front()?;
        let mut asked: Option<Instant> = None;
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Disconnected) => return Some(Err(ended_early())),
                Err(RecvTimeoutError::Timeout) if !(patience.stop)() => {}
                Err(RecvTimeoutError::Timeout) => {
                    if asked.get_or_insert_with(Instant::now).elapsed() >= patience.grace {
                        self.interrupted = true;
                        return Some(Err(Error::Interrupted));
                    }
                }
            }
        }
    }
}

fn ended_early() -> Error {
    Error::Worker { message: "it ended early".into() }
}

impl<J, O> Drop for Pipeline<J, O> {
    /// Stops all threads. A worker finishes its image in progress, unless that takes too long.
    fn drop(&mut self) {
        if let Some(workers_pool) = &self.workers_pool {
            workers_pool.stop.store(true, Ordering::Relaxed);
        }
        self.jobs = None;
        self.pending.clear();
        let wait = if self.interrupted { Duration::ZERO } else { LAST_IMAGE };
        let deadline = Instant::now() + wait;
        self.coordinators.drain(..).for_each(|thread| join_until(thread, deadline));
        self.workers_pool = None; // drops the last reference to the pool, which ends its threads
        self.workers.drain(..).for_each(|thread| join_until(thread, deadline));
    }
}

/// Waits for a thread to end, but not beyond `deadline`.
fn join_until(thread: JoinHandle<()>, deadline: Instant) {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = thread.join();
}

/// Starts a pool and returns the handles of its threads, which rayon itself does not allow to be
/// joined.
fn start_pool(workers: Option<usize>) -> Result<(ThreadPool, Vec<JoinHandle<()>>)> {
    let mut handles = Vec::new();
    let pool = ThreadPoolBuilder::new()
        .num_threads(workers.unwrap_or_default())
        .spawn_handler(|thread| {
            let builder = std::thread::Builder::new().name(format!("data-{}", thread.index()));
            handles.push(builder.spawn(|| thread.run())?);
            Ok(())
        })
        .build()
        .map_err(|error| Error::Worker { message: error.to_string() })?;
    Ok((pool, handles))
}

/// Takes jobs in order until there are no more.
fn coordinate<J, O>(
    queue: &Mutex<Receiver<Job<J, O>>>,
    workers_pool: &WorkerPool,
    work: &(impl Fn(J, &WorkerPool) -> Result<O> + ?Sized),
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((job, sender)) = next else { return };
        if workers_pool.stop.load(Ordering::Relaxed) {
            return;
        }
        // A job owns its data, so a panic cannot leave visible state half-modified.
        let result =
            catch_unwind(AssertUnwindSafe(|| work(job, workers_pool))).unwrap_or_else(|payload| {
                let message = base::panic_message(payload.as_ref()).unwrap_or("no message");
                Err(Error::Worker { message: message.to_owned() })
            });
        // Sending fails if the loader has been dropped in the meantime.
        let _ = sender.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: Patience<'static> = Patience { stop: &|| false, grace: Duration::ZERO };

    fn squares(workers: usize, ahead: usize) -> Pipeline<Vec<u64>, u64> {
        Pipeline::start(Some(workers), ahead, |job: Vec<u64>, workers_pool: &WorkerPool| {
            let sum = Mutex::new(0);
            workers_pool.for_each(job, |value| {
                assert!(value != 13, "thirteen");
                *sum.lock().unwrap() += value * value;
            });
            Ok(sum.into_inner().unwrap())
        })
        .unwrap()
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for (workers, ahead) in [(1, 1), (2, 3), (4, 9)] {
            let mut pipeline = squares(workers, ahead);
            for first in 0..10 {
                pipeline.submit(if first == 9 { vec![] } else { vec![first, 2, 3] });
            }
            let got: Vec<u64> =
                std::iter::from_fn(|| pipeline.next(&FOREVER)).map(Result::unwrap).collect();
            let expected = (0..9).map(|first| first * first + 13).chain([0]);
            assert!(got.iter().copied().eq(expected), "{got:?}");
        }
    }

    #[test]
    fn who_waits_for_a_time_gets_the_result_or_nothing() {
        let mut pipeline = squares(1, 2);
        assert!(pipeline.next_within(Duration::ZERO).is_none(), "there is no job");
        pipeline.submit(vec![2]);
        pipeline.submit(vec![13]);
        let mut wait = || loop {
            if let Some(result) = pipeline.next_within(Duration::from_millis(1)) {
                return result;
            }
        };
        assert_eq!(wait().unwrap(), 4);
        assert!(wait().unwrap_err().to_string().contains("thirteen"));
        assert_eq!(pipeline.pending(), 0);
    }

    #[test]
    fn a_panic_is_an_error_of_its_job_only() {
        let mut pipeline = squares(2, 2);
        for job in [vec![1], vec![2, 13, 4], vec![5]] {
            pipeline.submit(job);
        }
        assert_eq!(pipeline.next(&FOREVER).unwrap().unwrap(), 1);
        let error = pipeline.next(&FOREVER).unwrap().unwrap_err().to_string();
        assert!(error.contains("thirteen"), "{error}");
        assert_eq!(pipeline.next(&FOREVER).unwrap().unwrap(), 25);
        assert!(pipeline.next(&FOREVER).is_none());
    }

    #[test]
    fn dropping_ends_all_threads_with_jobs_under_way() {
        let alive = Arc::new(());
        let held = alive.clone();
        let mut pipeline: Pipeline<Vec<u64>, ()> =
            Pipeline::start(Some(2), 2, move |job: Vec<u64>, workers_pool: &WorkerPool| {
                let _held = &held;
                workers_pool.for_each(job, |_| ());
                Ok(())
            })
            .unwrap();
        for _ in 0..50 {
            pipeline.submit((0..100).collect());
        }
        drop(pipeline);
        // The threads own the closure, so they have ended once it has been dropped.
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    /// A worker that never returns blocks neither a waiting caller nor the drop of the pipeline.
    #[test]
    fn who_waits_is_called_back_and_a_stuck_worker_left_behind() {
        let (never, waits) = channel::<()>();
        let (never, waits) = (Arc::new(Mutex::new(never)), Arc::new(Mutex::new(waits)));
        let mut pipeline: Pipeline<Vec<u64>, ()> =
            Pipeline::start(Some(2), 2, move |job: Vec<u64>, workers_pool: &WorkerPool| {
                workers_pool.for_each(job, |_| {
                    let _ = waits.lock().unwrap().recv();
                });
                Ok(())
            })
            .unwrap();
        pipeline.submit(vec![1, 2, 3]);
        pipeline.submit(vec![4]);
        let asked = AtomicBool::new(false);
        let stop = || asked.swap(true, Ordering::Relaxed);
        let patience = Patience { stop: &stop, grace: Duration::from_millis(10) };
        let error = pipeline.next(&patience).unwrap().unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error:?}");
        let start = Instant::now();
        drop(pipeline);
        assert!(start.elapsed() < LAST_IMAGE, "{:?}", start.elapsed());
        drop(never);
    }
}
