//! The SimDINO loss: pull different views of an image together, push the batch apart.
//!
//! `V` views, the first 2 of them global; `B` images of this (micro-)batch; `d` width; `G` rate
//! groups in this batch. Student features `s[v][b]`, teacher features `t[g][b]`, rows of norm 1.
//! With `n` the global batch and `N` the configured number of rate groups, as plain loops:
//!
//! ```text
//! comp = 0
//! for g in 0..2, v in 0..V, v != g, b in 0..B:
//!     comp += cos(t[g][b], s[v][b]) / (B * (2V - 2))
//!
//! alpha = d / (n * eps)                      eps^2 in the paper's semantics
//! gamma = 1/n + 1/d                          or as configured
//! expa = 0
//! for g in 0..2, group in 0..G:
//!     F = rows of group in s[g]              or in (s[g] + t[g]) / 2
//!     expa += gamma * 1/2 logdet(I + alpha F^T F) / (2G)
//!
//! loss = -coeff * comp - expa
//! ```
//!
//! A rate group stands for one process of the published run: with `N` processes of `m` images,
//! that run sums `m` rows but divides by `N m`. Here a run on any number of devices computes the
//! same, because groups are part of the objective. In gradient accumulation each micro-batch
//! brings `N / accumulate` of the groups, and `alpha` and `gamma` keep the global numbers, so the
//! mean over micro-batches is the loss of the whole batch.
//!
//! # Source
//! SimDINO, loss of section 3; reference code `MCRLoss` in simdino/main_dino.py of
//! RobinWu218/SimDINO@8149fc4 (`reduce_cov 0`; `reduce_cov 1` is `rate_groups: 1`).
//!
//! # Deviations
//! Single precision where the reference is in half, a checked factorisation (see
//! [`mod@crate::coding_rate`]), and the options of [`SimDinoConfig`] that the reference lacks.

use std::f64::consts::PI;

use tch::{Device, Kind, Tensor};

use crate::coding_rate::{self, Fault, RateEvents};
use crate::config::{EpsSemantics, ExpaSource, Gamma, LossForm, SimDinoConfig};
use crate::{Error, Result};

/// Global views of each image.
const GLOBAL_VIEWS: i64 = 2;
/// Least norm that a cosine divides by.
const COSINE_EPS: f64 = 1e-8;

/// Where a batch stands in the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepContext {
    /// Share of the training that is done, 0 to 1.
    pub progress: f64,
    /// Rate groups in this (micro-)batch.
    pub groups: usize,
    /// Images in a step of the whole run.
    pub global_batch: usize,
}

/// The loss, its terms, and the numbers they were computed with.
#[derive(Debug)]
pub struct SimDinoOutput {
    /// What to minimise, 0-dimensional; its backward reaches the student's features.
    pub loss: Tensor,
    /// Mean similarity of different views, 1 at best; detached. A cosine, or 1 minus half the
    /// squared distance: the same for rows of norm 1.
    pub compression: Tensor,
    /// Weighted coding rate; detached.
    pub expansion: Tensor,
    /// Expansion when all features are the same.
    pub expansion_floor: f64,
    /// Expansion when features of norm 1 spread evenly. Means of student and teacher are shorter,
    /// so with them the expansion stays a little below, and may even pass below the floor.
    pub expansion_ceiling: f64,
    /// `eps` of this step, as configured.
    pub eps: f64,
    /// Weight of the compression in this step.
    pub coeff: f64,
    /// Weight of the coding rate in this step.
    pub gamma: f64,
    /// Retries that the coding rate needed.
    pub events: RateEvents,
}

/// The SimDINO loss; see the module's text.
#[derive(Debug, Clone)]
pub struct SimDinoLoss {
    config: SimDinoConfig,
}

/// Numbers of one step.
#[derive(Debug, Clone, Copy)]
struct Weights {
    eps: f64,
    coeff: f64,
    gamma: f64,
    alpha: f64,
}

impl SimDinoLoss {
    /// The loss that a configuration describes.
    ///
    /// # Errors
    /// Values that cannot be, all at once.
    pub fn new(config: &SimDinoConfig) -> Result<Self> {
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        Ok(Self { config: config.clone() })
    }

    /// Loss of one (micro-)batch. Computes in single precision, or in double when the features
    /// are double; autocast is off inside. Waits for the device once.
    ///
    /// # Shapes
    /// - `student`: `[V, B, d]`, global views first; gradients flow through it
    /// - `teacher`: `[2, B, d]`; no gradient flows through it
    ///
    /// # Errors
    /// Wrong shapes, fewer than 2 views, a batch that does not split into the rate groups, and
    /// features that are not finite, naming the term and the view.
    pub fn forward(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        ctx: StepContext,
    ) -> Result<SimDinoOutput> {
        let (batch, d) = check_shapes(student, teacher)?;
        self.check_groups(batch, ctx)?;
        let weights = self.weights(d, ctx)?;
        torch_ext::autocast(student.device(), None, || {
            self.terms(student, &teacher.detach(), weights, ctx)
        })?
    }

    fn terms(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        weights: Weights,
        ctx: StepContext,
    ) -> Result<SimDinoOutput> {
        let kind = if student.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let (student, teacher) = (student.to_kind(kind), teacher.to_kind(kind));
        let compression = compression(&student, &teacher, self.config.loss_form);
        let features = self.rate_features(&student, &teacher, ctx.groups);
        let precision = self.config.precision;
        let also = [&compression];
        let checked = coding_rate::rate_of_groups(&features, weights.alpha, precision, &also)?;
        if let Some(&fault) = checked.faults.first() {
            return Err(describe(fault, &student, &teacher));
        }
        let rate = checked.rate;
        let mean_rate = rate.value.mean(kind);
        // Nothing in size; its derivative is the closed-form gradient of the mean.
        let surrogate = ((&features - features.detach()) * &rate.gradient).sum(kind);
        let surrogate = surrogate / features.size()[0] as f64;
        let expansion = (mean_rate + surrogate) * weights.gamma;
        let loss = match self.config.loss_form {
            LossForm::NegCos => &compression * -weights.coeff - &expansion,
            LossForm::HalfSqL2 => (1.0 - &compression) * weights.coeff - &expansion,
        };
        let (floor, ceiling) = self.range(weights, &features);
        Ok(SimDinoOutput {
            loss,
            compression: compression.detach(),
            expansion: expansion.detach(),
            expansion_floor: floor,
            expansion_ceiling: ceiling,
            eps: weights.eps,
            coeff: weights.coeff,
            gamma: weights.gamma,
            events: rate.events,
        })
    }

    /// What the coding rate expands: `[V, B, d] -> [2G, B/G, d]`, groups of view 0 first.
    fn rate_features(&self, student: &Tensor, teacher: &Tensor, groups: usize) -> Tensor {
        let global = student.narrow(0, 0, GLOBAL_VIEWS); // [2, B, d]
        let features = match self.config.expa_source {
            ExpaSource::Student => global,
            ExpaSource::MeanStudentTeacher => (global + teacher) * 0.5,
        };
        let (batch, d) = (features.size()[1], features.size()[2]);
        let groups = groups as i64;
        let features = features.reshape([GLOBAL_VIEWS * groups, batch / groups, d]);
        if self.config.center_cov {
            let mean = features.mean_dim([1].as_slice(), true, features.kind()); // [2G, 1, d]
            features - mean
        } else {
            features
        }
    }

    /// Expansion at collapse and at its best, for unit rows. Subtracting the mean leaves nothing
    /// of equal rows, and one direction less to spread over.
    fn range(&self, weights: Weights, features: &Tensor) -> (f64, f64) {
        let (rows, d) = (features.size()[1] as usize, features.size()[2] as usize);
        let Weights { gamma, alpha, .. } = weights;
        if !self.config.center_cov {
            let ceiling = coding_rate::ceiling(gamma, alpha, rows, d);
            return (coding_rate::floor(gamma, alpha, rows), ceiling);
        }
        let directions = d.min(rows - 1);
        let energy = alpha * rows as f64 / directions.max(1) as f64;
        (0.0, 0.5 * gamma * directions as f64 * energy.ln_1p())
    }

    fn weights(&self, d: i64, ctx: StepContext) -> Result<Weights> {
        let progress = ctx.progress;
        if !(0.0..=1.0).contains(&progress) {
            let expected = "between 0 and 1";
            return Err(Error::Number { what: "progress", expected, got: progress });
        }
        let config = &self.config;
        let eps = cosine(config.eps, config.eps_end, progress);
        let coeff = cosine(config.coeff, config.coeff_end, progress);
        // Squared, as it enters the rate, and as the paper's formulas name it.
        let (eps_squared, eps_paper) = match config.eps_semantics {
            EpsSemantics::Code => (eps, eps.sqrt()),
            EpsSemantics::Paper => (eps * eps, eps),
        };
        let (n, d) = (ctx.global_batch as f64, d as f64);
        let gamma = match config.gamma {
            Gamma::Code => 1.0 / n + 1.0 / d,
            Gamma::Theorem => eps_paper * (n / (d * d.min(n))).sqrt(),
            Gamma::Constant(gamma) => gamma,
        };
        Ok(Weights { eps, coeff, gamma, alpha: d / (n * eps_squared) })
    }

    fn check_groups(&self, batch: i64, ctx: StepContext) -> Result<()> {
        let batch = batch as usize;
        let split = |what, batch: usize, groups: usize| {
            if groups == 0 || batch == 0 || !batch.is_multiple_of(groups) {
                return Err(Error::Groups { what, batch, groups });
            }
            Ok(batch / groups)
        };
        let expected = split("the global batch", ctx.global_batch, self.config.rate_groups)?;
        let got = split("a batch of", batch, ctx.groups)?;
        if got != expected {
            return Err(Error::GroupRows { expected, got, batch, groups: ctx.groups });
        }
        Ok(())
    }
}

/// Mean similarity of each teacher view with every other student view; 0-dimensional.
fn compression(student: &Tensor, teacher: &Tensor, form: LossForm) -> Tensor {
    let (views, batch, _) = sizes(student);
    let similarity = match form {
        LossForm::NegCos => pair_products(&unit_rows(teacher), &unit_rows(student)),
        LossForm::HalfSqL2 => {
            let half_square = |x: &Tensor| x.square().sum_dim_intlist(-1, false, x.kind()) * 0.5;
            let own = half_square(teacher).unsqueeze(1) + half_square(student).unsqueeze(0);
            pair_products(teacher, student) - own + 1.0 // [2, V, B]
        }
    };
    let pairs = other_views(views, student.kind(), student.device()).unsqueeze(-1); // [2, V, 1]
    (similarity * pairs).sum(student.kind()) / ((2 * views - 2) * batch) as f64
}

/// Inner products of the teacher's and the student's views of each image:
/// `[2, B, d], [V, B, d] -> [2, V, B]`
fn pair_products(teacher: &Tensor, student: &Tensor) -> Tensor {
    let t_bgd = teacher.transpose(0, 1); // [B, 2, d]
    let s_bdv = student.permute([1, 2, 0]); // [B, d, V]
    t_bgd.matmul(&s_bdv).permute([1, 2, 0])
}

fn unit_rows(x: &Tensor) -> Tensor {
    let square = x.square().sum_dim_intlist(-1, true, x.kind());
    // The root of 0 has no derivative; clamping the square cuts it off.
    x / square.clamp_min(COSINE_EPS * COSINE_EPS).sqrt()
}

/// 1 where teacher and student see different views, 0 where they see the same: `[2, V]`.
fn other_views(views: i64, kind: Kind, device: Device) -> Tensor {
    1.0 - Tensor::eye_m(GLOBAL_VIEWS, views, (kind, device))
}

/// From `start` to `end` on half a cosine.
fn cosine(start: f64, end: Option<f64>, progress: f64) -> f64 {
    let end = end.unwrap_or(start);
    end + 0.5 * (start - end) * (1.0 + (PI * progress).cos())
}

fn sizes(x: &Tensor) -> (i64, i64, i64) {
    let size = x.size();
    (size[0], size[1], size[2])
}

fn check_shapes(student: &Tensor, teacher: &Tensor) -> Result<(i64, i64)> {
    let got = student.size();
    let &[views, batch, d] = got.as_slice() else {
        return Err(Error::Shape { what: "student features", expected: "[V, B, d]".into(), got });
    };
    if views < GLOBAL_VIEWS {
        return Err(Error::Views { got: views });
    }
    if teacher.size() != [GLOBAL_VIEWS, batch, d] {
        let expected = format!("[2, {batch}, {d}], as the student's");
        return Err(Error::Shape { what: "teacher features", expected, got: teacher.size() });
    }
    for (what, x) in [("student features", student), ("teacher features", teacher)] {
        if !matches!(x.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
            return Err(Error::Kind { what, got: x.kind() });
        }
    }
    Ok((batch, d))
}

/// Names the term, whose features and which view. Reads the features; the run is over anyway.
fn describe(fault: Fault, student: &Tensor, teacher: &Tensor) -> Error {
    let finite = |x: &Tensor| f64::try_from(x.isfinite().all()).is_ok_and(|all| all != 0.0);
    let bad_view = |x: &Tensor| (0..x.size()[0]).find(|&view| !finite(&x.get(view)));
    let term = match fault {
        Fault::Other(_) => "compression",
        _ => "expansion",
    };
    let what = match (bad_view(student), bad_view(teacher)) {
        (Some(view), _) => format!("student features of view {view}"),
        (None, Some(view)) => format!("teacher features of view {view}"),
        (None, None) => "features of a global view".to_owned(),
    };
    fault.error(term, what)
}
