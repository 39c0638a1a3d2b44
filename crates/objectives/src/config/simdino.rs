//! Options of the SimDINO loss.

use base::check::{Check, Problem};
use serde::{Deserialize, Serialize};

/// How `eps` is interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EpsSemantics {
    /// As in the published code, where it stands for the square of the epsilon in the paper.
    #[default]
    Code,
    /// As in the paper's formula, where it enters squared.
    Paper,
    /// The distortion relative to the variance that evenly spread features have in each direction. The rate
    /// then depends neither on the width of features, as long as they are wider than a group has rows,
    /// nor on the batch size. For a group that is the whole batch and has at least as many rows as
    /// features are wide, it equals `code`.
    Relative,
}

/// Weight of the coding rate in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Gamma {
    /// `1/n + 1/d`, as in the published code.
    #[default]
    Code,
    /// `eps * sqrt(n / (d min(d, n)))`, from Theorem 3.1 of the paper.
    Theorem,
    /// Chosen so that the weighted coding rate of evenly spread features is `gamma_ceiling`,
    /// whatever the batch size, groups, width, and `eps` are.
    Ceiling,
    /// Adapted slowly, so that the coding rate and the similarity pull on the student's features in
    /// the proportion `gamma_balance`. Starts like `ceiling`.
    Balanced,
    /// This number.
    #[serde(untagged)]
    Constant(f64),
}

/// Rule for the weight of the similarity over training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CoeffRule {
    /// `coeff`, or a cosine from it to `coeff_end`, as published.
    #[default]
    Scheduled,
    /// The weight is adapted in each step, so that the position of the coding rate between its floor
    /// and its ceiling follows a path: features first spread and then agree. It needs no tuning for
    /// the batch size, the number of groups, or the width.
    Held,
}

/// Features that the coding rate expands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExpaSource {
    /// Those of the student, as in the paper (`expa_type 0` of the code).
    Student,
    /// The mean of student and teacher, which is the code's default (`expa_type 1`). Gradients flow
    /// through the student only.
    #[default]
    MeanStudentTeacher,
}

/// Distance between student and teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LossForm {
    /// Minus the cosine similarity, as in the code.
    #[default]
    NegCos,
    /// Half the squared Euclidean distance, as in the paper. It equals the other form plus 1.
    HalfSqL2,
}

/// Precision of Gram matrices, Cholesky and logarithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RatePrecision {
    /// Single precision. A Cholesky factorization that fails is repeated with jitter, and then in
    /// double precision.
    #[default]
    Fp32,
    /// Double precision throughout.
    Fp64,
}

/// The loss of SimDINO and SimDINOv2. Section `simdino`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SimDinoConfig {
    /// Allowed distortion `eps` of the coding rate. 0.05 in SimDINO's recipe, with `eps_semantics:
    /// code`.
    pub eps: f64,
    /// Value of `eps` at the end of training, reached along a cosine. If it is absent, `eps` is
    /// constant.
    pub eps_end: Option<f64>,
    /// Meaning of `eps`.
    pub eps_semantics: EpsSemantics,
    /// Weight of the compression term, the similarity of views. 1 in the recipe.
    pub coeff: f64,
    /// Value of `coeff` at the end of training, reached along a cosine. If it is absent, `coeff` is
    /// constant.
    pub coeff_end: Option<f64>,
    /// Rule for the weight of the similarity over training. With `held`, `coeff` and `coeff_end` are
    /// not used.
    pub coeff_rule: CoeffRule,
    /// With `coeff_rule: held`, the position at the start of the path (0 to 1).
    pub position_start: f64,
    /// With `coeff_rule: held`, the position at the end of the path (0 to 1).
    pub position_end: f64,
    /// With `coeff_rule: held`, the fraction of training after which the path is at its end.
    pub position_by: f64,
    /// Weight of the coding rate: one of these rules, or a number.
    pub gamma: Gamma,
    /// With `gamma: ceiling`, the largest value of the weighted coding rate. 0.45 is that of the
    /// paper's run.
    pub gamma_ceiling: f64,
    /// With `gamma: balanced`, the ratio of the norms of the gradients of the coding rate and of the
    /// similarity, whose weight must not be 0.
    pub gamma_balance: f64,
    /// Features that the coding rate spreads.
    pub expa_source: ExpaSource,
    /// Number of groups that the batch is split into. The coding rate is computed for each group and
    /// averaged. 8 groups at a batch size of 512 are the paper's run on 8 GPUs, regardless of the
    /// number of GPUs here; 1 is one covariance of the whole batch.
    pub rate_groups: usize,
    /// Images of a group, instead of `rate_groups`. A group then stands for the whole batch in the
    /// formulas, so that the objective does not depend on the batch size. A batch that is not larger is
    /// one group. If it is absent, `rate_groups` applies.
    pub group_rows: Option<usize>,
    /// Subtract the mean of each group before computing the covariance. Off in the paper's run.
    pub center_cov: bool,
    /// Distance between the features of student and teacher.
    pub loss_form: LossForm,
    /// Precision of Gram matrices, Cholesky factorizations, and logarithms.
    pub precision: RatePrecision,
}

impl Default for SimDinoConfig {
    fn default() -> Self {
        Self {
            eps: 0.05,
            eps_end: None,
            eps_semantics: EpsSemantics::Code,
            coeff: 1.0,
            coeff_end: None,
            coeff_rule: CoeffRule::Scheduled,
            position_start: 0.85,
            position_end: 0.5,
            position_by: 0.4,
            gamma: Gamma::Code,
            gamma_ceiling: 0.45,
            gamma_balance: 1.0,
            expa_source: ExpaSource::MeanStudentTeacher,
            rate_groups: 8,
            group_rows: None,
            center_cov: false,
            loss_form: LossForm::NegCos,
            precision: RatePrecision::Fp32,
        }
    }
}

impl SimDinoConfig {
    /// Returns the number of groups that a batch of this size is split into, evenly if the batch size is a
    /// multiple of `group_rows` or smaller.
    pub fn groups(&self, batch_size: usize) -> usize {
        match self.group_rows {
            Some(rows) => batch_size.div_ceil(rows.max(1)).max(1),
            None => self.rate_groups,
        }
    }

    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let constant = if let Gamma::Constant(gamma) = self.gamma { Some(gamma) } else { None };
        let mut check = Check::default();
        check.positive("eps", self.eps);
        check.positive("eps_end", self.eps_end);
        check.positive("gamma", constant);
        check.positive("gamma_ceiling", self.gamma_ceiling);
        check.positive("gamma_balance", self.gamma_balance);
        check.not_negative("coeff", self.coeff);
        check.not_negative("coeff_end", self.coeff_end);
        self.check_path(&mut check);
        let unweighted = self.coeff == 0.0 || self.coeff_end == Some(0.0);
        check.that("gamma", !(self.gamma == Gamma::Balanced && unweighted), || {
            "balanced keeps the coding rate in proportion to the similarity, whose weight coeff or \
             coeff_end is 0: make it greater than 0, or use another gamma"
                .into()
        });
        check.at_least("rate_groups", self.rate_groups, 1);
        check.at_least("group_rows", self.group_rows.unwrap_or(2), 2);
        check.problems()
    }

    /// Returns what is wrong with the path of `coeff_rule: held`.
    fn check_path(&self, check: &mut Check) {
        check.within("position_start", self.position_start, 0.01..=0.99);
        check.within("position_end", self.position_end, 0.01..=0.99);
        check.within("position_by", self.position_by, 0.01..=1.0);
        let both = self.coeff_rule == CoeffRule::Held && self.gamma == Gamma::Balanced;
        check.that("coeff_rule", !both, || {
            "both adapt the same trade-off: use one of gamma: balanced and coeff_rule: held".into()
        });
    }
}
