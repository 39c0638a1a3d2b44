//! The DINO loss: from every view, the student predicts the prototypes that the teacher assigns to
//! another view.
//!
//! `V` views, the first 2 of them global; `B` images; `K` prototypes. Scores `s[v][b]` of the
//! student and `t[g][b]` of the teacher:
//!
//! ```text
//! q[g][b] = softmax((t[g][b] - center) / teacher_temp)
//! loss = 0
//! for g in 0..2, v in 0..V, v != g, b in 0..B:
//!     loss += cross_entropy(q[g][b], softmax(s[v][b] / student_temp)) / (B * (2V - 2))
//! after the step:  center <- 0.9 center + 0.1 mean(t)
//! ```
//!
//! A teacher with uniform targets gives the loss `ln K`.
//!
//! # Source
//! DINO, `DINOLoss` in main_dino.py of facebookresearch/dino@7c446df.

use tch::Tensor;
use torch_ext::Collective;

use crate::Result;
use crate::coding_rate::RateEvents;
use crate::config::{Centering, DinoConfig};
use crate::error::refuse;
use crate::inputs::{Inputs, check_cls, working_kind};
use crate::objective::{LossOutput, Needs, Objective, Statistics, no_other_state};
use crate::prototypes::{TeacherTargets, TeacherTemperature, cross_entropy_of_views, entropies};

/// Name of the center in the state.
const CENTER: &str = "center";

/// The DINO loss; see the module documentation.
#[derive(Debug)]
pub struct DinoLoss {
    cls: ClsLoss,
}

impl DinoLoss {
    /// Creates the loss from its options.
    ///
    /// # Errors
    /// Returns an error that lists every invalid value, including Sinkhorn-Knopp, which belongs to
    /// DINOv2.
    pub fn new(config: &DinoConfig) -> Result<Self> {
        let mut problems = config.validate();
        if config.centering != Centering::Softmax {
            let what = "sinkhorn_knopp is for DINOv2; use softmax for DINO".to_owned();
            problems.push(("centering", what));
        }
        refuse([("dino", problems)])?;
        Ok(Self { cls: ClsLoss::new(config, false) })
    }
}

impl Objective for DinoLoss {
    fn needs(&self) -> Needs {
        Needs { prototypes: true, ..Needs::default() }
    }

    fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput> {
        torch_ext::autocast(inputs.student.cls.device(), None, || self.cls.evaluate(inputs))?
    }

    fn update(&mut self, statistics: &Statistics, collective: &dyn Collective) -> Result<()> {
        self.cls.teacher.update(statistics, collective)
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.cls.teacher.state().into_iter().collect()
    }

    fn load_state(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        no_other_state(tensors, &[CENTER])?;
        self.cls.teacher.load(tensors);
        Ok(())
    }
}

/// The loss of class tokens over prototypes, shared by DINO and DINOv2.
#[derive(Debug)]
pub(crate) struct ClsLoss {
    pub(crate) teacher: TeacherTargets,
    pub(crate) temperature: TeacherTemperature,
    student_temp: f64,
}

impl ClsLoss {
    /// Creates the loss from options that have been checked. `every_step` tells whether the
    /// teacher's temperature changes at each step rather than at each epoch.
    pub(crate) fn new(config: &DinoConfig, every_step: bool) -> Self {
        Self {
            teacher: TeacherTargets::new(config.centering, CENTER, config.center_momentum),
            temperature: TeacherTemperature {
                start: config.teacher_temp_start,
                end: config.teacher_temp,
                warmup_epochs: config.teacher_temp_warmup_epochs,
                warmup_form: config.teacher_temp_warmup_form,
                every_step,
            },
            student_temp: config.student_temp,
        }
    }

    pub(crate) fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput> {
        let (student, teacher) = (&inputs.student.cls, &inputs.teacher.cls);
        let (_, _, prototypes) = check_cls(student, teacher)?;
        let kind = working_kind(student);
        let temperature = self.temperature.at(inputs.context);
        let mut statistics = Statistics::default();
        let targets = self.teacher.targets(
            &teacher.to_kind(kind),
            temperature,
            inputs.collective,
            &mut statistics,
        )?;
        let loss = cross_entropy_of_views(&targets, &student.to_kind(kind), self.student_temp);
        inputs.require_finite(&loss, "cross-entropy", "scores of student or teacher")?;
        let entropies = entropies(&targets);
        Ok(LossOutput {
            terms: vec![
                ("loss/total", loss.detach()),
                ("loss/cls", loss.detach()),
                ("teacher/entropy", entropies.get(0)),
                ("teacher/entropy_of_mean", entropies.get(1)),
            ],
            loss,
            numbers: vec![
                ("loss/uniform", (prototypes as f64).ln()),
                ("teacher/temperature", temperature),
            ],
            events: RateEvents::default(),
            statistics,
        })
    }
}
