//! The held trade-off: its equations, its state, and that networks that learn with it neither
//! collapse nor keep views apart, at any batch size, number of groups, width, and weight of the
//! rate.

#![allow(clippy::unwrap_used)]

mod common;

use common::number;
use objectives::gradient_scale::{rate_ceiling, rate_floor};
use objectives::simdino::SimDinoLoss;
use objectives::{
    CoeffRule, Gamma, Inputs, Objective, Outputs, RatePrecision, SimDinoConfig, StepContext,
};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::SingleProcess;

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

fn held() -> SimDinoConfig {
    let coeff_rule = CoeffRule::Held;
    let precision = RatePrecision::Fp64;
    SimDinoConfig { coeff_rule, precision, rate_groups: 1, ..SimDinoConfig::default() }
}

fn unit_rows(x: &Tensor) -> Tensor {
    x / x.square().sum_dim_intlist(-1, true, None).sqrt()
}

/// Runs one step of an objective on fixed features; returns the weight and the position.
fn step(loss: &mut SimDinoLoss, z: &Tensor, progress: f64) -> (f64, f64) {
    let (student, teacher) = (Outputs::of_cls(z.shallow_clone()), Outputs::of_cls(z.copy()));
    let batch = z.size()[1] as usize;
    let context = StepContext { progress, ..StepContext::first(batch) };
    let collective = &SingleProcess;
    let inputs = Inputs {
        student: &student,
        teacher: &teacher,
        masked: None,
        context,
        collective,
        deferred: None,
    };
    let output = loss.evaluate(&inputs).unwrap();
    loss.update(&output.statistics, collective).unwrap();
    (output.value("rate/coeff").unwrap(), output.value("rate/position").unwrap())
}

/// Computes the first term of `log c`, without feedback, as documented.
fn log_rest(n: usize, d: usize, position: f64) -> f64 {
    let alpha = d as f64 / (n as f64 * 0.05);
    let r = n.min(d) as f64;
    let (floor, ceiling) = (rate_floor(alpha, n), rate_ceiling(alpha, n, d));
    let kappa = alpha * n as f64 / r;
    let s = ((2.0 / r * (floor + position * (ceiling - floor))).exp() - 1.0) / kappa;
    ((1.0 / n as f64 + 1.0 / d as f64) * r / (2.0 * s)).ln()
}

#[test]
fn the_weight_is_that_of_the_equations() {
    tch::manual_seed(3);
    let (n, d) = (24, 16);
    let z = unit_rows(&Tensor::randn([2, n, d], DOUBLE));
    let mut loss = SimDinoLoss::new(&held()).unwrap();
    let (first, position) = step(&mut loss, &z, 0.0);
    let rest = |p| log_rest(n as usize, d as usize, p);
    assert!((first.ln() - rest(0.85)).abs() < 1e-9, "no feedback in the first step");
    assert!(position > 0.85, "random features are above the path: {position}");
    let (second, _) = step(&mut loss, &z, 0.01);
    let path = |progress: f64| 0.85 - 0.35 * f64::min(progress / 0.4, 1.0);
    let (e0, e1) = (position - path(0.0), position - path(0.01));
    assert!((second.ln() - rest(path(0.01)) - 6.0 * e0).abs() < 1e-9);
    let (third, _) = step(&mut loss, &z, 0.6);
    let integral = 90.0 * e1 * 0.01;
    assert!((third.ln() - rest(0.5) - integral - 6.0 * e1).abs() < 1e-9, "{third}");
    // A step counts for at most a fiftieth of the training.
    let (fourth, _) = step(&mut loss, &z, 0.9);
    let e2 = position - 0.5;
    let integral = integral + 90.0 * e2 * 0.02;
    assert!((fourth.ln() - rest(0.5) - integral - 6.0 * e2).abs() < 1e-9, "{fourth}");
}

#[test]
fn a_resumed_controller_goes_on_bit_for_bit_and_knows_its_names() {
    tch::manual_seed(4);
    let z = |i: u64| unit_rows(&(Tensor::randn([2, 12, 8], DOUBLE) + i as f64 * 0.1));
    let features: Vec<Tensor> = (0..6).map(z).collect();
    let mut loss = SimDinoLoss::new(&held()).unwrap();
    for (i, z) in features[..3].iter().enumerate() {
        step(&mut loss, z, i as f64 / 6.0);
    }
    let state = loss.state();
    assert_eq!(state.len(), 1);
    let mut resumed = SimDinoLoss::new(&held()).unwrap();
    resumed.load_state(&state).unwrap();
    for (i, z) in features.iter().enumerate().skip(3) {
        let progress = i as f64 / 6.0;
        assert_eq!(step(&mut loss, z, progress), step(&mut resumed, z, progress));
    }
    assert!(SimDinoLoss::new(&SimDinoConfig::default()).unwrap().load_state(&state).is_err());
    for shape in [&[3][..], &[], &[4, 1]] {
        let other = [("held".to_owned(), Tensor::zeros(shape, DOUBLE))];
        let error = resumed.load_state(&other).unwrap_err();
        assert!(matches!(error, objectives::Error::Shape { .. }), "{error}");
    }
}

#[test]
fn near_a_collapse_the_rate_pulls_harder_than_the_similarity_whatever_came_before() {
    tch::manual_seed(5);
    for (n, d, gamma) in [(16, 64, Gamma::Code), (128, 8, Gamma::Ceiling), (32, 512, Gamma::Code)] {
        let config = SimDinoConfig { gamma, ..held() };
        let mut loss = SimDinoLoss::new(&config).unwrap();
        let spread = unit_rows(&Tensor::randn([2, n, d], DOUBLE));
        // The position stays above the path for so long that the integral is at its upper end.
        for i in 0..500 {
            step(&mut loss, &spread, i as f64 / 1000.0);
        }
        let one = unit_rows(&Tensor::randn([1, 1, d], DOUBLE));
        let noise = Tensor::randn([2, n, d], DOUBLE) * 1e-4;
        let collapsed = unit_rows(&(one + noise));
        step(&mut loss, &collapsed, 0.5);
        let z = collapsed.copy().set_requires_grad(true);
        let student = Outputs::of_cls(unit_rows(&z));
        // The similarity shrinks noise that differs between views the fastest.
        let teacher = Outputs::of_cls(collapsed.flip([0]).copy());
        let inputs = Inputs {
            student: &student,
            teacher: &teacher,
            masked: None,
            context: StepContext { progress: 0.5, ..StepContext::first(n as usize) },
            collective: &SingleProcess,
            deferred: None,
        };
        loss.evaluate(&inputs).unwrap().loss.backward();
        // A step of gradient descent must spread the rows.
        let mean = collapsed.mean_dim(1, true, Kind::Double);
        let growth = number(&(-z.grad() * (&collapsed - mean)).sum(Kind::Double));
        assert!(growth > 0.0, "{n} x {d}: {growth:e}");
    }
}

#[test]
fn a_path_that_leads_nowhere_and_two_controllers_are_refused() {
    for (config, key) in [
        (SimDinoConfig { position_end: 0.0, ..held() }, "position_end"),
        (SimDinoConfig { position_start: 1.0, ..held() }, "position_start"),
        (SimDinoConfig { position_by: f64::NAN, ..held() }, "position_by"),
        (SimDinoConfig { gamma: Gamma::Balanced, ..held() }, "coeff_rule"),
        (SimDinoConfig { gamma: Gamma::Balanced, coeff: 0.0, ..Default::default() }, "gamma"),
        (
            SimDinoConfig { gamma: Gamma::Balanced, coeff_end: Some(0.0), ..Default::default() },
            "gamma",
        ),
    ] {
        let problems = config.validate();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, key);
    }
}

/// A network of two layers.
struct Net(Vec<Tensor>);

impl Net {
    fn new(inputs: i64, width: i64) -> Self {
        let layer = |i: i64, o: i64| {
            (Tensor::randn([i, o], DOUBLE) / (i as f64).sqrt()).set_requires_grad(true)
        };
        Self(vec![layer(inputs, 64), layer(64, width)])
    }

    fn features(&self, x: &Tensor) -> Tensor {
        unit_rows(&x.matmul(&self.0[0]).gelu("none").matmul(&self.0[1]))
    }
}

const CLASSES: i64 = 8;
/// Number of dimensions of an input that tell its class.
const SIGNAL: i64 = 8;
/// Number of dimensions that differ from view to view.
const NUISANCE: i64 = 16;

/// Draws views of `n` images, `[views, n, SIGNAL + NUISANCE]`, and their classes.
fn views(n: i64, views: i64) -> (Tensor, Tensor) {
    let class = Tensor::randint(CLASSES, [n], (Kind::Int64, Device::Cpu));
    let signal = class.one_hot(CLASSES).to_kind(Kind::Double) * 2.0;
    let signal = signal + Tensor::randn([n, SIGNAL], DOUBLE) * 0.3;
    let signal = signal.unsqueeze(0).expand([views, n, SIGNAL], false);
    let nuisance = Tensor::randn([views, n, NUISANCE], DOUBLE) * 1.5;
    (Tensor::cat(&[signal, nuisance], -1), class)
}

/// Returns the accuracy of the nearest neighbor in features.
fn nearest(features: &dyn Fn(&Tensor) -> Tensor) -> f64 {
    let (x, class) = views(512, 1);
    let z = features(&x.get(0));
    let near = z.matmul(&z.tr()) - Tensor::eye(512, DOUBLE) * 10.0;
    let guess = class.index_select(0, &near.argmax(1, false));
    number(&guess.eq_tensor(&class).to_kind(Kind::Double).mean(Kind::Double))
}

/// The result of a training: the position at each step, and the accuracy at the end.
struct Learned {
    positions: Vec<f64>,
    accuracy: f64,
}

/// Fraction of the teacher that is kept in each step.
const AVERAGE: f64 = 0.95;

/// Trains with Adam and a teacher that is an average of the student, as the trainer does; with an
/// `average` of 0, the teacher is the student.
fn train(config: &SimDinoConfig, sizes: (i64, i64), rate: f64, average: f64) -> Learned {
    let ((batch, width), steps) = (sizes, 150);
    tch::manual_seed(11);
    let student = Net::new(SIGNAL + NUISANCE, width);
    let teacher: Vec<Tensor> = student.0.iter().map(|w| w.detach().copy()).collect();
    let teacher = Net(teacher);
    let mut moments: Vec<(Tensor, Tensor)> =
        student.0.iter().map(|w| (w.zeros_like(), w.zeros_like())).collect();
    let mut loss = SimDinoLoss::new(config).unwrap();
    let mut positions = Vec::new();
    for step in 0..steps {
        let (x, _) = views(batch, 4);
        let cls = student.features(&x);
        let target = no_grad(|| teacher.features(&x.narrow(0, 0, 2)));
        let (ours, theirs) = (Outputs::of_cls(cls), Outputs::of_cls(target));
        let progress = step as f64 / steps as f64;
        let inputs = Inputs {
            student: &ours,
            teacher: &theirs,
            masked: None,
            context: StepContext { progress, ..StepContext::first(batch as usize) },
            collective: &SingleProcess,
            deferred: None,
        };
        let output = loss.evaluate(&inputs).unwrap();
        positions.push(output.value("rate/position").unwrap());
        output.loss.backward();
        loss.update(&output.statistics, &SingleProcess).unwrap();
        let warmup = (10.0 * progress).min(1.0);
        no_grad(|| {
            for ((w, mean), (m, v)) in student.0.iter().zip(&teacher.0).zip(&mut moments) {
                let g = w.grad();
                *m = &*m * 0.9 + &g * 0.1;
                *v = &*v * 0.999 + g.square() * 0.001;
                let done = step + 1;
                let m = &*m / (1.0 - 0.9f64.powi(done));
                let v = &*v / (1.0 - 0.999f64.powi(done));
                let _ = w.shallow_clone().g_sub_(&(m / (v.sqrt() + 1e-8) * rate * warmup));
                let _ = mean
                    .shallow_clone()
                    .g_mul_scalar_(average)
                    .g_add_(&(w.detach() * (1.0 - average)));
                w.shallow_clone().zero_grad();
            }
        });
    }
    let accuracy = no_grad(|| nearest(&|x| teacher.features(x)));
    Learned { positions, accuracy }
}

/// Trains and checks that the position stays above a bound and ends near the path, and that the
/// features tell classes apart better than the inputs do.
fn learns(config: &SimDinoConfig, (batch, width): (i64, i64), rate: f64, average: f64) {
    let what = format!("{batch} x {width}, {} groups, {average}", config.rate_groups);
    let raw = nearest(&unit_rows);
    let Learned { positions, accuracy } = train(config, (batch, width), rate, average);
    let late = &positions[positions.len() / 2..];
    let mean = late.iter().sum::<f64>() / late.len() as f64;
    let least = positions.iter().copied().fold(f64::INFINITY, f64::min);
    println!("{what}: {mean:.3}, least {least:.3}, accuracy {accuracy:.3}, raw {raw:.3}");
    assert!(least > 0.1 && (mean - 0.5).abs() < 0.2, "{what}: {mean}, least {least}");
    assert!(accuracy > raw + 0.1, "{what}: {accuracy}, raw {raw}");
}

#[test]
fn it_learns_and_never_collapses_whatever_batch_groups_width_and_weight_are() {
    for (sizes, groups, gamma, rate) in [
        ((16, 32), 1, Gamma::Code, 2e-3),
        ((16, 32), 8, Gamma::Code, 2e-3),
        ((256, 32), 1, Gamma::Code, 2e-3),
        ((256, 32), 8, Gamma::Ceiling, 2e-3),
        ((64, 8), 1, Gamma::Code, 2e-3),
        ((64, 256), 1, Gamma::Code, 2e-3),
        ((64, 32), 2, Gamma::Ceiling, 1e-2),
        ((64, 32), 2, Gamma::Constant(10.0), 1e-3),
    ] {
        let config = SimDinoConfig { rate_groups: groups, gamma, ..held() };
        learns(&config, sizes, rate, AVERAGE);
    }
}

#[test]
fn it_learns_without_an_average() {
    learns(&held(), (64, 32), 2e-3, 0.0);
}
