//! The DINOv2 loss: DINO on class tokens, iBOT on masked patches, and KoLeo.
//!
//! ```text
//! q = softmax((teacher - center) / teacher_temp)      or Sinkhorn-Knopp over the batch
//! patch_loss = -sum_j weight[j] sum_k q[j][k] log_softmax(s[j] / student_temp)[k] / (2B)
//! loss = dino(cls)
//!      + ibot.loss_weight * patch_loss
//!      + koleo.loss_weight * koleo(student's backbone)
//! ```
//!
//! Patches have their own center. The network decides whether they share the head of the class
//! tokens: scores of any width are accepted.
//!
//! # Source
//! DINOv2, `DINOLoss`, `iBOTPatchLoss` and `KoLeoLoss` of facebookresearch/dinov2@b8931f7.
//!
//! # Deviations
//! The reference averages the patches of each process before it averages processes; here, every
//! masked patch has the same weight in the center, so it does not depend on the number of
//! processes. In both, the center of step `i` is that of the steps before `i`.
//!
//! Sinkhorn-Knopp balances each micro-batch separately, over all processes. With `train.accumulate`
//! above 1, the mean over micro-batches is therefore not the loss of the whole batch.

use tch::Tensor;
use torch_ext::Collective;

use crate::Result;
use crate::config::{DinoConfig, IbotConfig, KoleoConfig};
use crate::dino::ClsLoss;
use crate::error::refuse;
use crate::ibot::PatchPairs;
use crate::inputs::Inputs;
use crate::objective::{LossOutput, Needs, Objective, Statistics, no_other_state};
use crate::prototypes::{TeacherTargets, log_likelihood};
use crate::terms::Terms;

/// Names of the centers in the state.
const CENTERS: [&str; 2] = ["center", "patch_center"];

/// The DINOv2 loss; see the module documentation.
#[derive(Debug)]
pub struct DinoV2Loss {
    cls: ClsLoss,
    patch_teacher: TeacherTargets,
    student_temp: f64,
    terms: Terms,
}

impl DinoV2Loss {
    /// Creates the loss from its options.
    ///
    /// # Errors
    /// Returns an error that lists every invalid value.
    pub fn new(config: &DinoConfig, ibot: &IbotConfig, koleo: &KoleoConfig) -> Result<Self> {
        refuse([
            ("dino", config.validate()),
            ("ibot", ibot.validate()),
            ("koleo", koleo.validate()),
        ])?;
        Ok(Self {
            cls: ClsLoss::new(config, true),
            patch_teacher: TeacherTargets::new(
                config.centering,
                CENTERS[1],
                config.center_momentum,
            ),
            student_temp: config.student_temp,
            terms: Terms::new(ibot, koleo),
        })
    }

    fn patch_loss(&self, inputs: &Inputs, statistics: &mut Statistics) -> Result<Tensor> {
        let patches = PatchPairs::of(inputs)?;
        let targets = self.patch_teacher.targets(
            &patches.teacher,
            self.cls.temperature.at(inputs.context),
            inputs.collective,
            statistics,
        )?;
        Ok(patches.loss(&log_likelihood(&targets, &patches.student, self.student_temp)))
    }
}

impl Objective for DinoV2Loss {
    fn needs(&self) -> Needs {
        self.terms.needs(true)
    }

    fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput> {
        torch_ext::autocast(inputs.student.cls.device(), None, || {
            let mut output = self.cls.evaluate(inputs)?;
            self.terms
                .add_to(&mut output, inputs, |statistics| self.patch_loss(inputs, statistics))?;
            Ok(output)
        })?
    }

    fn update(&mut self, statistics: &Statistics, collective: &dyn Collective) -> Result<()> {
        self.cls.teacher.update(statistics, collective)?;
        self.patch_teacher.update(statistics, collective)
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.cls.teacher.state().into_iter().chain(self.patch_teacher.state()).collect()
    }

    fn load_state(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        no_other_state(tensors, &CENTERS)?;
        self.cls.teacher.load(tensors);
        self.patch_teacher.load(tensors);
        Ok(())
    }
}
