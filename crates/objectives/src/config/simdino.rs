//! Options of the SimDINO loss.

use serde::{Deserialize, Serialize};

use super::{Problem, negative, not_positive};

/// How `eps` is interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum EpsSemantics {
    /// As in the published code, where it stands for the paper's eps squared.
    #[default]
    Code,
    /// As in the paper's formula, where it enters squared.
    Paper,
}

/// Weight of the coding rate in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Gamma {
    /// `1/n + 1/d`, as in the published code.
    #[default]
    Code,
    /// `eps * sqrt(n / (d min(d, n)))`, from Theorem 3.1.
    Theorem,
    /// Such that the weighted coding rate of evenly spread features is `gamma_ceiling`, whatever
    /// batch, groups, width and `eps` are.
    Ceiling,
    /// Adapted slowly, so that coding rate and similarity pull on the student's features in the
    /// proportion `gamma_balance`. Starts like `ceiling`.
    Balanced,
    /// A number.
    #[serde(untagged)]
    Constant(f64),
}

/// Weight of the similarity over training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum CoeffRule {
    /// `coeff`, or a cosine from it to `coeff_end`, as published.
    #[default]
    Scheduled,
    /// Adapted in each step, so that the position of the coding rate between its floor and its
    /// ceiling follows a path: features spread first, and agree then.
    Held,
}

/// Features that the coding rate expands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ExpaSource {
    /// The student's, as in the paper (`expa_type 0` of the code).
    Student,
    /// The mean of student and teacher, the code's default (`expa_type 1`); gradient through the student alone.
    #[default]
    MeanStudentTeacher,
}

/// Distance between student and teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LossForm {
    /// Minus the cosine, as in the code.
    #[default]
    NegCos,
    /// Half the squared distance, as in the paper: the same plus one.
    HalfSqL2,
}

/// Precision of Gram matrices, Cholesky and logarithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RatePrecision {
    /// Single precision; a failed factorization is retried with jitter and then in double.
    #[default]
    Fp32,
    /// Double precision throughout.
    Fp64,
}

/// The SimDINO loss. Section `objective`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimDinoConfig {
    /// Precision `eps` of the coding rate; 0.05 in SimDINO's recipe (`eps_semantics: code`).
    pub eps: f64,
    /// Value of `eps` at the end of training, reached on a cosine; absent = constant.
    pub eps_end: Option<f64>,
    /// Whether `eps` is the code's (the paper's squared) or the paper's.
    pub eps_semantics: EpsSemantics,
    /// Weight of the compression term; 1 in the recipe.
    pub coeff: f64,
    /// Value of `coeff` at the end of training, reached on a cosine; absent = constant.
    pub coeff_end: Option<f64>,
    /// Weight of the similarity: `scheduled` (by `coeff` and `coeff_end`), or `held` (adapted so that the coding rate's
    /// position between floor and ceiling follows a path; needs no tuning for batch, groups, or width).
    pub coeff_rule: CoeffRule,
    /// With `coeff_rule: held`, the position at the start of the path, 0 to 1.
    pub position_start: f64,
    /// With `coeff_rule: held`, the position at the end of the path, 0 to 1.
    pub position_end: f64,
    /// With `coeff_rule: held`, the fraction of the training at which the path is at its end.
    pub position_by: f64,
    /// Weight of the coding rate: `code`, `theorem`, `ceiling`, `balanced` or a number.
    pub gamma: Gamma,
    /// With `gamma: ceiling`, the most that the weighted coding rate can be. 0.45 is that of the paper's run.
    pub gamma_ceiling: f64,
    /// With `gamma: balanced`, the norm of the coding rate's gradient over that of the similarity's.
    pub gamma_balance: f64,
    /// Features that the coding rate expands.
    pub expa_source: ExpaSource,
    /// Groups that the global batch is split into; the coding rate is computed for each and averaged.
    /// 8 at batch 512 is the paper's run on 8 GPUs, whatever the number of GPUs here; 1 is one covariance of the whole batch.
    pub rate_groups: usize,
    /// Subtract the mean of each group before the covariance; off in the paper's run.
    pub center_cov: bool,
    /// Distance between student and teacher.
    pub loss_form: LossForm,
    /// Precision of the coding rate.
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
            center_cov: false,
            loss_form: LossForm::NegCos,
            precision: RatePrecision::Fp32,
        }
    }
}

impl SimDinoConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let constant = if let Gamma::Constant(gamma) = self.gamma { Some(gamma) } else { None };
        let mut problems = not_positive(&[
            ("eps", Some(self.eps)),
            ("eps_end", self.eps_end),
            ("gamma", constant),
            ("gamma_ceiling", Some(self.gamma_ceiling)),
            ("gamma_balance", Some(self.gamma_balance)),
        ]);
        let coeffs = [("coeff", Some(self.coeff)), ("coeff_end", self.coeff_end)];
        problems.extend(negative(&coeffs));
        problems.extend(self.problems_of_path());
        if self.rate_groups == 0 {
            problems.push(("rate_groups", "must be at least 1 (got 0)".into()));
        }
        problems
    }

    /// Returns what is wrong with the path of `coeff_rule: held`.
    fn problems_of_path(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, value, most) in [
            ("position_start", self.position_start, 0.99),
            ("position_end", self.position_end, 0.99),
            ("position_by", self.position_by, 1.0),
        ] {
            if !(0.01..=most).contains(&value) {
                problems.push((key, format!("must be from 0.01 to {most} (got {value})")));
            }
        }
        if self.coeff_rule == CoeffRule::Held && self.gamma == Gamma::Balanced {
            let what =
                "both adapt the same trade-off: use one of gamma: balanced and coeff_rule: held";
            problems.push(("coeff_rule", what.into()));
        }
        problems
    }
}
