//! Runs work on several threads and delivers its results in order.

use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::thread;

use base::panic_message;

use crate::error::Error;

/// Maximum number of results that wait per thread; more would take memory and gain nothing.
const AHEAD: usize = 2;

/// Calls `make` for each index on `workers` threads, and passes the results to `take` in order, on
/// the calling thread. The threads work at most a fixed number of results ahead. After an error of
/// `take`, they stop.
///
/// # Errors
/// Returns the first error of `take`, or [`Error::Worker`] with the message of the panic if `make`
/// panicked.
pub fn in_order<T: Send, E: From<Error>>(
    indices: Range<usize>,
    workers: usize,
    make: impl Fn(usize) -> T + Sync,
    mut take: impl FnMut(usize, T) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let workers = workers.clamp(1, indices.len().max(1));
    thread::scope(|scope| {
        let (mut receivers, mut threads) = (Vec::with_capacity(workers), Vec::new());
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(AHEAD);
            let (make, mine) = (&make, indices.clone().skip(worker).step_by(workers));
            threads.push(scope.spawn(move || {
                // Sending fails once the receivers have been dropped after an error.
                for index in mine {
                    if sender.send(make(index)).is_err() {
                        break;
                    }
                }
            }));
            receivers.push(receiver);
        }
        // `None` stands for a thread that ended early.
        let taken = indices.enumerate().try_for_each(|(count, index)| {
            let made = receivers[count % workers].recv().map_err(|_| None)?;
            take(index, made).map_err(Some)
        });
        drop(receivers);
        // All threads are joined here, because the scope would propagate the panics of threads that
        // it joins itself.
        let panics: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().err()).collect();
        taken.map_err(|error| {
            error.unwrap_or_else(|| {
                let message = panics.first().and_then(|payload| panic_message(payload.as_ref()));
                Error::Worker { message: message.unwrap_or("no message").to_owned() }.into()
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_arrive_in_order_with_any_number_of_threads() {
        for workers in [0, 1, 3, 50] {
            let mut got = Vec::new();
            in_order::<_, Error>(
                5..25,
                workers,
                |i| i * i,
                |i, square| {
                    got.push((i, square));
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(got, (5..25).map(|i| (i, i * i)).collect::<Vec<_>>());
        }
        in_order::<usize, Error>(3..3, 2, |i| i, |_, _| Err(Error::Interrupted)).unwrap();
    }

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        let make = |i: usize| {
            assert!(i != 7, "seven");
            i
        };
        let error = in_order(0..100, 3, make, |_, _| Ok::<(), Error>(())).unwrap_err();
        assert!(matches!(&error, Error::Worker { message } if message == "seven"), "{error}");
    }

    #[test]
    fn an_error_ends_the_work() {
        let made = std::sync::atomic::AtomicUsize::new(0);
        let make = |i| {
            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            i
        };
        let result = in_order(0..10_000, 2, make, |i, _| match i {
            7 => Err(Error::Interrupted),
            _ => Ok(()),
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        assert!(made.into_inner() < 30);
    }
}
