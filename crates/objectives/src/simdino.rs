//! The SimDINO loss: it pulls different views of an image together and pushes the batch apart.
//!
//! `V` views, the first 2 of them global (a single view is compared with the teacher's other one);
//! `B` images of this (micro-)batch; `d` width; `G` rate groups in this batch. Student features
//! `s[v][b]` and teacher features `t[g][b]` are rows of norm 1. With `n` the batch size and `N`
//! the configured number of rate groups, as plain loops:
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
//! loss = -coeff * comp - expa                or as [`crate::held`] weighs both
//! ```
//!
//! A rate group stands for one process of the published run: with `N` processes of `m` images,
//! that run sums `m` rows but divides by `N m`. Here, a run on any number of devices computes the
//! same, because groups are part of the objective: a group has `n / N` rows, and a batch of `B`
//! images contains `G = B N / n` groups. In gradient accumulation, `alpha` and `gamma` keep the
//! global numbers, so the mean over micro-batches is the loss of the whole batch. If a single
//! group (`N = 1`) spans several processes, their covariances are summed.
//!
//! With `group_rows`, `n` in all formulas is the number of rows of a group, and `N` is 1: `alpha`
//! and `gamma` do not depend on the batch, and the loss of a batch is the mean of those of its
//! groups.
//!
//! # Source
//! SimDINO, loss of section 3; reference code `MCRLoss` in simdino/main_dino.py of
//! RobinWu218/SimDINO@8149fc4 (`reduce_cov 0`; `reduce_cov 1` is `rate_groups: 1`).
//!
//! # Deviations
//! This implementation uses single precision where the reference uses half, checks the
//! factorization (see [`crate::coding_rate`]), and has options in [`SimDinoConfig`] that the
//! reference lacks.

use tch::Tensor;
use torch_ext::Collective;

use crate::balance::{self, Balance};
use crate::coding_rate::{self, Fault, RateEvents, RateOptions};
use crate::compression::{compression, gradient_square};
use crate::config::{CoeffRule, ExpaSource, Gamma, LossForm, SimDinoConfig};
use crate::error::refuse;
use crate::held::{self, Held, Path};
use crate::inputs::{Inputs, check_cls, working_kind};
use crate::objective::{LossOutput, Needs, Objective, Statistics, no_other_state};
use crate::rate_weights::{Sizes, Weights, range};
use crate::rows::{tangential_square, unit_rows};
use crate::views::global_views;
use crate::{Error, Result};

/// The loss, its terms, and the values used to compute them.
#[derive(Debug)]
pub struct SimDinoOutput {
    /// The loss to minimize, 0-dimensional; its backward pass reaches the student's features.
    pub loss: Tensor,
    /// Mean similarity of different views, at most 1; detached. It is a cosine, or 1 minus half
    /// the squared distance, which is the same for rows of norm 1.
    pub compression: Tensor,
    /// Weighted coding rate; detached.
    pub expansion: Tensor,
    /// Expansion when all features are equal.
    pub expansion_floor: f64,
    /// Expansion when features of norm 1 spread evenly. Means of student and teacher are shorter,
    /// so their expansion stays slightly lower, and may even fall below the floor.
    pub expansion_ceiling: f64,
    /// `eps` of this step, as configured.
    pub eps: f64,
    /// Weight of the compression in this step; with `coeff_rule: held`, that of the schedule,
    /// which is not used.
    pub coeff: f64,
    /// With `coeff_rule: held`, the path and the weight of the compression relative to that of
    /// the expansion, 0-dimensional.
    pub held: Option<(Path, Tensor)>,
    /// Weight of the coding rate in this step.
    pub gamma: f64,
    /// With `gamma: balanced`, the ratio of the gradient of the coding rate on the student's
    /// features to that of the similarity, 0-dimensional.
    pub proportion: Option<Tensor>,
    /// Retries that the coding rate needed.
    pub events: RateEvents,
    /// What [`Objective::update`] needs to know about the step.
    pub statistics: Statistics,
}

/// The SimDINO loss; see the module documentation.
#[derive(Debug, Clone)]
pub struct SimDinoLoss {
    config: SimDinoConfig,
    balance: Option<Balance>,
    held: Option<Held>,
}

/// The rows whose coding rate is computed.
struct RateFeatures {
    /// `[2G, n / N, d]`, groups of view 0 first.
    rows: Tensor,
    /// Whether other processes have more rows of the same groups.
    spanning: bool,
}

impl SimDinoLoss {
    /// Creates the loss from its configuration.
    ///
    /// # Errors
    /// Returns an error that lists every invalid value.
    pub fn new(config: &SimDinoConfig) -> Result<Self> {
        refuse([("simdino", config.validate())])?;
        let balanced = config.gamma == Gamma::Balanced;
        let balance = balanced.then(|| Balance::new(config.gamma_balance));
        let held = (config.coeff_rule == CoeffRule::Held).then(Held::default);
        Ok(Self { config: config.clone(), balance, held })
    }

    /// Computes the loss of one (micro-)batch in single precision, or in double precision if the
    /// features are double, with autocast off. Waits for the device once, unless checks are
    /// deferred.
    ///
    /// # Shapes
    /// - `student.cls`: `[V, B, d]`, global views first; gradients flow through it
    /// - `teacher.cls`: `[2, B, d]`; no gradient flows through it
    ///
    /// # Errors
    /// Returns an error if shapes are wrong, if the batch does not split into the rate groups, if
    /// these have a single row with `center_cov`, `held`, or `balanced`, or if features are not
    /// finite; this error names the term and the view.
    pub fn forward(&self, inputs: &Inputs) -> Result<SimDinoOutput> {
        let (student, teacher) = (&inputs.student.cls, &inputs.teacher.cls);
        check_cls(student, teacher)?;
        torch_ext::autocast(student.device(), None, || {
            let kind = working_kind(student);
            self.terms(&student.to_kind(kind), &teacher.detach().to_kind(kind), inputs)
        })?
    }

    /// Returns the sizes of the batch and the weights of this step.
    fn weights(&self, student: &Tensor, inputs: &Inputs) -> Result<(Sizes, Weights)> {
        let whole = inputs.context.batch_size;
        let groups = self.config.groups(whole);
        let rows = whole / groups;
        // The coding rate of a single unit row is constant, so it can be neither held nor balanced,
        // and centering would leave nothing.
        let needs_two = self.config.center_cov || self.held.is_some() || self.balance.is_some();
        if rows < 2 && needs_two {
            return Err(Error::OneRow { batch: whole, groups });
        }
        // A group of fixed size takes the place of the batch in the formulas, so that they do not
        // depend on the number of groups.
        let batch_size = if self.config.group_rows.is_some() { rows } else { whole };
        let sizes = Sizes { batch_size, rows, width: student.size()[2] as usize };
        let mut weights = Weights::at(&self.config, inputs.context, sizes)?;
        if let Some(balance) = &self.balance {
            weights.gamma = balance.gamma(weights.gamma);
        }
        Ok((sizes, weights))
    }

    fn terms(&self, student: &Tensor, teacher: &Tensor, inputs: &Inputs) -> Result<SimDinoOutput> {
        let features = self.rate_features(student, teacher, inputs)?;
        let (sizes, weights) = self.weights(student, inputs)?;
        let compression = compression(student, teacher, self.config.loss_form);
        let rate = self.rate(&features, weights.alpha, inputs, &compression);
        let rate = rate?.map_err(|fault| describe(fault, student, teacher))?;
        let expansion = rate.attached_to(&features.rows).mean(student.kind()) * weights.gamma;
        let (floor, ceiling) = range(weights.alpha, sizes, self.config.center_cov);
        let disagreement = match self.config.loss_form {
            LossForm::NegCos => -&compression,
            LossForm::HalfSqL2 => 1.0 - &compression,
        };
        let mut statistics = Statistics::default();
        let held = self.held.as_ref().map(|controller| {
            let progress = inputs.context.progress;
            let path = Path::at(&self.config, progress, &weights, sizes, (floor, ceiling));
            let span = (ceiling - floor).max(1e-6 * ceiling);
            Held::record(&mut statistics, &((&expansion / weights.gamma - floor) / span), &path);
            let coeff = controller.coeff(&path, &compression);
            (path, coeff)
        });
        let loss = match &held {
            Some((_, coeff)) => disagreement * coeff - &expansion,
            None => disagreement * weights.coeff - &expansion,
        };
        let proportion = self.balance.as_ref().map(|_| {
            let pull = self.pull_of_rate(&rate.gradient, student, &features);
            let of_rate = pull * weights.gamma.powi(2);
            let of_views = gradient_square(student, teacher) * weights.coeff.powi(2);
            Balance::record(&mut statistics, &of_rate, &of_views, weights.gamma);
            (of_rate / of_views).sqrt()
        });
        Ok(SimDinoOutput {
            loss,
            compression: compression.detach(),
            expansion: expansion.detach(),
            expansion_floor: weights.gamma * floor,
            expansion_ceiling: weights.gamma * ceiling,
            eps: weights.eps,
            coeff: weights.coeff,
            held,
            gamma: weights.gamma,
            proportion,
            events: rate.events,
            statistics,
        })
    }

    /// Computes the coding rate of all groups, or the fault of one. Also checks whether
    /// `compression` is finite, in the same read from the device.
    fn rate(
        &self,
        features: &RateFeatures,
        alpha: f64,
        inputs: &Inputs,
        compression: &Tensor,
    ) -> Result<std::result::Result<coding_rate::CodingRate, Fault>> {
        let options = RateOptions {
            alpha,
            precision: self.config.precision,
            center: self.config.center_cov,
            across: features.spanning.then_some(inputs.collective),
        };
        let (rows, deferred) = (&features.rows, inputs.deferred);
        let checked = coding_rate::rate_of_groups(rows, &options, &[compression], deferred)?;
        Ok(match checked.faults.first() {
            Some(&fault) => Err(fault),
            None => Ok(checked.rate),
        })
    }

    /// Returns the rows that the coding rate expands: `[V, B, d] -> [2G, B/G, d]`.
    fn rate_features(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        inputs: &Inputs,
    ) -> Result<RateFeatures> {
        let views = global_views(student.size()[0]);
        let global = student.narrow(0, 0, views); // [2, B, d]
        let features = match self.config.expa_source {
            ExpaSource::Student => global,
            ExpaSource::MeanStudentTeacher => (global + teacher.narrow(0, 0, views)) * 0.5,
        };
        let (batch, d) = (features.size()[1], features.size()[2]);
        let (groups, spanning) = self.groups(batch as usize, inputs)?;
        let groups = groups as i64;
        let rows = features.reshape([views * groups, batch / groups, d]);
        Ok(RateFeatures { rows, spanning })
    }

    /// Returns the number of groups in a batch, and whether they extend beyond this process.
    fn groups(&self, batch: usize, inputs: &Inputs) -> Result<(usize, bool)> {
        let whole = inputs.context.batch_size;
        let groups = self.config.groups(whole);
        if let Some(rows) = self.config.group_rows
            && groups * rows != whole
            && groups > 1
        {
            return Err(Error::PartOfGroup { rows, batch: whole });
        }
        let processes = inputs.collective.size();
        if groups == 1 && processes > 1 && batch > 0 && batch * processes == whole {
            return Ok((1, true));
        }
        let key = match self.config.group_rows {
            Some(_) => "simdino.group_rows",
            None => "simdino.rate_groups",
        };
        Ok((inputs.context.groups_of(batch, groups, key)?, false))
    }

    /// Computes the squared norm of the gradient of the mean coding rate with respect to the
    /// student's rows, counting only the part that rotates them; 0-dimensional.
    fn pull_of_rate(&self, gradient: &Tensor, student: &Tensor, features: &RateFeatures) -> Tensor {
        let global = student.narrow(0, 0, global_views(student.size()[0])).detach();
        let gradient = gradient.reshape_as(&global);
        let of_source = match self.config.expa_source {
            ExpaSource::Student => 1.0,
            ExpaSource::MeanStudentTeacher => 0.5,
        };
        // Like the gradient of the similarity, this is that of one process, before data-parallel
        // training averages over processes.
        let share = of_source / features.rows.size()[0] as f64;
        tangential_square(&gradient, &unit_rows(&global)).clamp_min(0.0) * share.powi(2)
    }
}

impl SimDinoOutput {
    /// Converts the output to the form that all objectives share.
    pub fn into_output(self) -> LossOutput {
        let (floor, ceiling) = (self.expansion_floor, self.expansion_ceiling);
        // Floor and ceiling are equal for one row or one direction, and, up to rounding, for a huge
        // `eps`.
        let far_apart = ceiling - floor > 1e-6 * ceiling;
        let position = far_apart.then(|| (&self.expansion - floor) / (ceiling - floor));
        let mut terms = vec![
            ("loss/total", self.loss.detach()),
            ("loss/compression", self.compression),
            ("loss/expansion", self.expansion),
        ];
        terms.extend(position.map(|position| ("rate/position", position)));
        terms.extend(self.proportion.map(|proportion| ("rate/proportion", proportion)));
        let mut numbers = vec![
            ("rate/floor", floor),
            ("rate/ceiling", ceiling),
            ("rate/eps", self.eps),
            ("rate/gamma", self.gamma),
        ];
        match self.held {
            Some((path, coeff)) => {
                terms.push(("rate/coeff", coeff));
                numbers.push(("rate/path", path.position));
            }
            None => numbers.push(("rate/coeff", self.coeff)),
        }
        LossOutput {
            terms,
            loss: self.loss,
            numbers,
            events: self.events,
            statistics: self.statistics,
        }
    }
}

impl Objective for SimDinoLoss {
    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput> {
        Ok(self.forward(inputs)?.into_output())
    }

    fn update(&mut self, statistics: &Statistics, collective: &dyn Collective) -> Result<()> {
        if let Some(balance) = &mut self.balance {
            balance.update(statistics, collective)?;
        }
        self.held.as_mut().map_or(Ok(()), |held| held.update(statistics, collective))
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = self.balance.as_ref().map(Balance::state).unwrap_or_default();
        state.extend(self.held.iter().flat_map(Held::state));
        state
    }

    fn load_state(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        let balance = self.balance.is_some().then_some(balance::STATE);
        let held = self.held.is_some().then_some(held::STATE);
        let known: Vec<&str> = balance.into_iter().chain(held).collect();
        no_other_state(tensors, &known)?;
        if let Some(held) = &mut self.held {
            held.load(tensors)?;
        }
        self.balance.as_mut().map_or(Ok(()), |balance| balance.load(tensors))
    }
}

/// Converts a fault to an error that names the term, the network, and the view. Waits for the
/// device, which does not matter because the run ends anyway.
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
