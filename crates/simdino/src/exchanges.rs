//! The number and sizes of the exchanges between the processes of a run in each step.
//!
//! The numbers follow from the config and the sizes of the parameters. `tests/exchanges.rs`
//! compares them with what a step actually sends.

use objectives::{Centering, CoeffRule, Gamma, Method, RatePrecision};
use tch::Kind;
use trainer::learner::Learner;

use crate::config::RunConfig;

/// Sizes in bytes of the numbers that are exchanged.
const FP32: u64 = 4;
const FP64: u64 = 8;
/// Number of global views, each of which has a coding rate.
const VIEWS: u64 = 2;
/// Number of rounds of Sinkhorn-Knopp, each with a maximum and a sum over all prototypes.
const SINKHORN_ROUNDS: u64 = 3;
/// Sizes in bytes at which the first and the other buckets of gradients are full, as in PyTorch.
const BUCKETS: [u64; 2] = [1 << 20, 25 << 20];

/// Tensors of a step that are summed over all processes, or whose maximum over all is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Description of the tensors.
    pub what: &'static str,
    /// Number of collective operations.
    pub calls: u64,
    /// Total size of one process's tensors, in bytes.
    pub bytes: u64,
    /// When the exchange takes place.
    pub moment: Moment,
}

/// When an exchange takes place, and where its tensors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// On the device, overlapping with the backward pass.
    Beside,
    /// On the device, while the step waits.
    Within,
    /// On the CPU, while the step waits.
    Host,
}

/// Returns the exchanges of each step of a run with several processes. Less frequent exchanges are
/// left out: those for metrics and evaluations, and those before the first step.
pub fn per_step(config: &RunConfig, learner: &Learner) -> Vec<Exchange> {
    let passes = config.train.accumulate as u64;
    let mut all = vec![gradients(&learner.parameter_bytes())];
    match config.method {
        Method::SimDino | Method::SimDinoV2 => all.extend(of_rate(config)),
        Method::Dino => all.extend(of_targets(config, passes, "class tokens")),
        Method::DinoV2 => {
            all.extend(of_targets(config, passes, "class tokens"));
            if config.ibot.loss_weight > 0.0 {
                all.extend(of_targets(config, passes, "masked patches"));
            }
        }
    }
    // With several passes or batch norm, the features of each pass are checked before the loss.
    let each = passes > 1 || config.head.use_bn;
    let (calls, flags) = if each { (passes, 2) } else { (1, 1) };
    all.push(host("flags: whether all values are finite", calls, calls * flags * FP32));
    all.push(host("flag: whether to stop", 1, FP32));
    all
}

fn host(what: &'static str, calls: u64, bytes: u64) -> Exchange {
    Exchange { what, calls, bytes, moment: Moment::Host }
}

fn within(what: &'static str, calls: u64, bytes: u64) -> Exchange {
    Exchange { what, calls, bytes, moment: Moment::Within }
}

/// Returns the exchange of gradients, in buckets that are filled from the last parameter on, as in
/// c10d's reducer.
fn gradients(parameters: &[usize]) -> Exchange {
    let (mut calls, mut filled) = (0, 0);
    for &bytes in parameters.iter().rev() {
        filled += bytes as u64;
        if filled >= BUCKETS[usize::from(calls > 0)] {
            (calls, filled) = (calls + 1, 0);
        }
    }
    let calls = calls + u64::from(filled > 0);
    let bytes = parameters.iter().map(|&bytes| bytes as u64).sum();
    Exchange { what: "gradients", calls, bytes, moment: Moment::Beside }
}

/// Returns the exchanges of the coding rate: moments of a rate group that spans the processes, and
/// the values that adapt the weights of the terms.
fn of_rate(config: &RunConfig) -> Vec<Exchange> {
    let (simdino, width) = (&config.simdino, config.head.out_dim.max(0) as u64);
    let double = config.train.precision.weights() == Kind::Double;
    let number = if double || simdino.precision == RatePrecision::Fp64 { FP64 } else { FP32 };
    let spans = simdino.groups(config.train.batch_size) == 1 && config.train.accumulate == 1;
    let mut all = Vec::new();
    if spans && simdino.center_cov {
        all.push(within("means of the coding rate", 2, VIEWS * width * number + FP64));
    }
    if spans {
        all.push(within("covariances of the coding rate", 1, VIEWS * width * width * number));
    }
    if simdino.gamma == Gamma::Balanced {
        all.push(within("gradient norms of gamma: balanced", 1, 4 * FP64));
    }
    if simdino.coeff_rule == CoeffRule::Held {
        all.push(within("position of coeff_rule: held", 1, 5 * FP64));
    }
    all
}

/// Returns the exchanges of the teacher's targets, `of` class tokens or masked patches.
fn of_targets(config: &RunConfig, passes: u64, of: &'static str) -> Option<Exchange> {
    let prototypes = config.head.prototypes.max(0) as u64;
    let number = if config.train.precision.weights() == Kind::Double { FP64 } else { FP32 };
    let patches = of == "masked patches";
    Some(match config.dino.centering {
        Centering::Softmax => {
            let what = if patches { "center of masked patches" } else { "center of class tokens" };
            within(what, 1, (prototypes + 1) * number)
        }
        Centering::SinkhornKnopp => {
            let what = if patches {
                "Sinkhorn-Knopp of masked patches"
            } else {
                "Sinkhorn-Knopp of class tokens"
            };
            let (calls, of_round) = (1 + 2 * SINKHORN_ROUNDS, 2 * prototypes * number);
            within(what, passes * calls, passes * (FP64 + SINKHORN_ROUNDS * of_round))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_closed_as_soon_as_they_are_full() {
        let mib = 1 << 20;
        for (parameters, calls) in [
            (vec![4], 1),
            (vec![30 * mib], 1),
            (vec![30 * mib, 1], 1), // the last parameter comes first and does not fill a bucket
            (vec![1, 30 * mib], 2), // the last parameter fills a bucket
            (vec![26 * mib, 2 * mib], 2), // each fills a bucket, of 1 MiB and 25 MiB
            (vec![mib; 27], 3),     // buckets of 1, 25, and 1 MiB
            (vec![mib / 2; 2], 1),
        ] {
            let exchange = gradients(&parameters);
            assert_eq!(exchange.calls, calls, "{parameters:?}");
            assert_eq!(exchange.bytes, parameters.iter().sum::<usize>() as u64);
        }
    }
}
