//! With `group_rows`, the objective does not depend on the batch size.

#![allow(clippy::unwrap_used)]

mod common;

use objectives::simdino::SimDinoOutput;
use objectives::{CoeffRule, Error, Gamma, SimDinoConfig, StepContext};
use tch::{Device, Kind, Tensor};

use common::simdino;

fn rows(shape: [i64; 3]) -> Tensor {
    let count: i64 = shape.iter().product();
    let x =
        (Tensor::arange(count, (Kind::Double, Device::Cpu)).square() * 0.37).sin().reshape(shape);
    &x / x.square().sum_dim_intlist(-1, true, Kind::Double).sqrt()
}

#[test]
fn the_loss_of_a_large_batch_is_the_mean_of_those_of_small_ones() {
    let (student, teacher) = (rows([3, 24, 10]), rows([2, 24, 10]));
    for gamma in [Gamma::Code, Gamma::Theorem, Gamma::Ceiling] {
        for coeff_rule in [CoeffRule::Scheduled, CoeffRule::Held] {
            let config = SimDinoConfig {
                group_rows: Some(8),
                gamma,
                coeff_rule,
                ..SimDinoConfig::default()
            };
            let of = |first: i64, count: i64| {
                let [s, t] = [&student, &teacher].map(|x| x.narrow(1, first, count));
                simdino(&config, &s, &t, StepContext::first(count as usize)).unwrap()
            };
            let whole = of(0, 24);
            let parts: Vec<_> = (0..3).map(|i| of(8 * i, 8)).collect();
            let mean = |f: fn(&SimDinoOutput) -> f64| {
                parts.iter().map(f).sum::<f64>() / parts.len() as f64
            };
            let expansion = mean(|out| out.expansion.double_value(&[]));
            assert!((whole.expansion.double_value(&[]) - expansion).abs() < 1e-9, "{gamma:?}");
            assert_eq!(whole.expansion_ceiling, parts[0].expansion_ceiling);
            assert_eq!(whole.gamma, parts[0].gamma);
            // `held` derives the weight of the similarity from the (micro-)batch itself.
            if coeff_rule == CoeffRule::Scheduled {
                let loss = mean(|out| out.loss.double_value(&[]));
                assert!((whole.loss.double_value(&[]) - loss).abs() < 1e-9, "{gamma:?}");
            }
        }
    }
}

#[test]
fn a_batch_of_parts_of_groups_is_refused_and_a_small_one_is_a_group() {
    let config = SimDinoConfig { group_rows: Some(8), ..SimDinoConfig::default() };
    let of = |count: i64| {
        simdino(
            &config,
            &rows([3, count, 10]),
            &rows([2, count, 10]),
            StepContext::first(count as usize),
        )
    };
    let error = of(12).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::PartOfGroup { rows: 8, batch: 12 }), "{error}");
    let one = SimDinoConfig { rate_groups: 1, ..SimDinoConfig::default() };
    let as_one =
        simdino(&one, &rows([3, 6, 10]), &rows([2, 6, 10]), StepContext::first(6)).unwrap();
    let small = of(6).unwrap();
    assert_eq!(small.loss.double_value(&[]), as_one.loss.double_value(&[]));
}
