//! The heads of a probe, all trained at once.

use std::ops::Range;

use augment::rng::{Purpose, Rng};
use tch::{Device, Kind, Tensor};

use super::config::{HeadInput, HeadOptimizer};
use super::dual::Dual;

/// Standard deviation of the initial weights.
const INIT_STD: f64 = 0.01;
const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;
/// Maximum number of logits computed at once when classifying: 64 MB.
const MOST_LOGITS: i64 = 16 << 20;

/// The layout of the columns of the feature matrix.
///
/// The class tokens come first, from the earliest block to the last, then a column of ones, then
/// the mean of the patches. The features of every head are therefore adjacent columns, and the
/// weight of the column of ones is the head's bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Feature width of the network.
    pub width: i64, // D
    /// Number of class tokens per row.
    pub blocks: i64,
    /// Whether rows contain the mean of the patches.
    pub mean_patch: bool,
}

impl Layout {
    pub(super) fn of(inputs: &[HeadInput], width: i64) -> Self {
        let blocks = inputs.iter().map(|input| i64::from(input.blocks)).max().unwrap_or(1);
        Self { width, blocks, mean_patch: inputs.iter().any(|input| input.mean_patch) }
    }

    /// Returns the number of columns, not counting the ones.
    pub(super) fn features(&self) -> i64 {
        self.width * (self.blocks + i64::from(self.mean_patch))
    }

    /// Returns the columns that the heads of an input see.
    fn columns(&self, input: HeadInput) -> Range<i64> {
        let first = self.width * (self.blocks - i64::from(input.blocks));
        let tokens = self.width * self.blocks + 1;
        first..tokens + if input.mean_patch { self.width } else { 0 }
    }

    /// Inserts the column of ones into features `[n, F]`: `[n, F + 1]`.
    pub(super) fn with_ones(&self, features: &Tensor) -> Tensor {
        let tokens = self.width * self.blocks;
        let ones = Tensor::ones([features.size()[0], 1], (features.kind(), features.device()));
        let (first, rest) =
            (features.narrow(1, 0, tokens), features.narrow(1, tokens, self.features() - tokens));
        Tensor::cat(&[first, ones, rest], 1)
    }
}

/// The heads that see the same features, as one matrix: a step of all of them takes two products.
struct Group {
    columns: Range<i64>,
    weight: Tensor,       // [C, H K], C columns
    moments: Vec<Tensor>, // one for SGD, two for AdamW, like the weight
    /// If set, learns instead of `weight` and `moments`, which then keep their initial values.
    dual: Option<Dual>,
}

/// One head for each input and learning rate, ordered by input first.
pub(super) struct Heads {
    groups: Vec<Group>,
    optimizer: HeadOptimizer,
    rates: Tensor,  // [1, H K], the rate of each column's head
    per_input: i64, // H
    classes: i64,   // K
    steps: u64,
}

impl Heads {
    /// Creates heads with random weights, which depend only on `seed` and the index of the head.
    pub(super) fn new(
        inputs: &[HeadInput],
        layout: Layout,
        rates: &[f64],
        optimizer: HeadOptimizer,
        (classes, device, seed): (i64, Device, u64),
    ) -> Self {
        let per_input = rates.len() as i64;
        let group = |(i, &input): (usize, &HeadInput)| {
            let columns = layout.columns(input);
            let rows = (columns.end - columns.start) as usize;
            // The row of the column of ones holds the biases, which start at 0.
            let bias = rows - 1 - if input.mean_patch { layout.width as usize } else { 0 };
            let mut weight = vec![0f32; rows * per_input as usize * classes as usize];
            let row_length = per_input as usize * classes as usize;
            for head in 0..per_input as usize {
                let number = i as u64 * per_input as u64 + head as u64;
                let mut rng = Rng::new(seed, 0, number, Purpose::Choice(INITIAL));
                for row in (0..rows).filter(|&row| row != bias) {
                    let start = row * row_length + head * classes as usize;
                    let cells = &mut weight[start..start + classes as usize];
                    cells.iter_mut().for_each(|cell| *cell = (rng.normal() * INIT_STD) as f32);
                }
            }
            let weight = Tensor::from_slice(&weight).view([rows as i64, -1]).to_device(device);
            let moments = match optimizer {
                HeadOptimizer::Sgd { .. } => 1,
                HeadOptimizer::AdamW { .. } => 2,
            };
            let moments = (0..moments).map(|_| weight.zeros_like()).collect();
            Group { columns, weight, moments, dual: None }
        };
        let groups = inputs.iter().enumerate().map(group).collect();
        let rates: Vec<f32> =
            rates.iter().flat_map(|&rate| vec![rate as f32; classes as usize]).collect();
        let rates = Tensor::from_slice(&rates).unsqueeze(0).to_device(device);
        Self { groups, optimizer, rates, per_input, classes, steps: 0 }
    }

    /// Prepares new heads to learn only from these rows `[n, F + 1]`, using [`Dual`] where it is
    /// faster.
    pub(super) fn learn_from(&mut self, rows: &Tensor) {
        if !matches!(self.optimizer, HeadOptimizer::Sgd { .. }) {
            return;
        }
        for group in &mut self.groups {
            let columns = group.columns.end - group.columns.start;
            if Dual::pays_off(rows.size()[0], columns) {
                let rows = rows.narrow(1, group.columns.start, columns);
                group.dual = Some(Dual::new(&rows, &group.weight));
            }
        }
    }

    /// Takes a step of all heads with learning rates multiplied by `share`.
    ///
    /// The loss is the sum over the heads of the batch's mean cross-entropy, so the heads are
    /// independent.
    ///
    /// # Shapes
    /// - `rows`: `[B, F + 1]`, see [`Layout`]
    /// - `images`: `[B]` int64, indices among the rows of [`Self::learn_from`] if that was called
    /// - `labels`: `[B]` int64, from 0 to K - 1
    pub(super) fn step(
        &mut self,
        rows: &Tensor,
        images: Option<&Tensor>,
        labels: &Tensor,
        share: f64,
    ) {
        self.steps += 1;
        let batch = rows.size()[0];
        // [B, H, 1]
        let places = labels.view([batch, 1, 1]).expand([batch, self.per_input, 1], false);
        let minus = Tensor::full([batch, self.per_input, 1], -1.0, (Kind::Float, rows.device()));
        let rates = &self.rates * share;
        let rule = Rule { optimizer: self.optimizer, rates: &rates, steps: self.steps };
        for group in &mut self.groups {
            let x = rows.narrow(1, group.columns.start, group.columns.end - group.columns.start);
            let logits = match (&group.dual, images) {
                (Some(dual), Some(images)) => dual.logits(images),
                _ => x.matmul(&group.weight), // [B, C] x [C, H K] -> [B, H K]
            };
            let of_heads = logits.view([batch, self.per_input, self.classes]);
            let errors = of_heads.softmax(-1, Kind::Float).scatter_add_(-1, &places, &minus);
            let errors = errors.view([batch, -1]) / batch as f64; // [B, H K]
            match (&mut group.dual, images, self.optimizer) {
                (Some(dual), Some(images), HeadOptimizer::Sgd { momentum }) => {
                    dual.update(images, &errors, &rates, momentum);
                }
                _ => group.update(&x, &errors, &rule),
            }
        }
    }

    /// Counts, for each head, the rows whose label ranks first, and among the first five:
    /// `[heads, 2]` int64 on the CPU. Rows with logits that are not finite do not count.
    ///
    /// Lower labels rank first on a tie. Labels of K or more belong to classes that no head knows.
    pub(super) fn correct(&self, rows: &Tensor, labels: &Tensor) -> Tensor {
        let at_once = (MOST_LOGITS / (self.per_input * self.classes)).max(1);
        let total = rows.size()[0];
        let counts: Vec<Tensor> = self
            .groups
            .iter()
            .map(|group| {
                let columns = group.columns.end - group.columns.start;
                let weight = group.weight();
                let mut sum = Tensor::zeros([self.per_input, 2], (Kind::Int64, rows.device()));
                for first in (0..total).step_by(at_once as usize) {
                    let count = at_once.min(total - first);
                    let x = rows.narrow(0, first, count).narrow(1, group.columns.start, columns);
                    let logits = x.matmul(&weight).view([count, self.per_input, self.classes]);
                    sum += self.hits(&logits, &labels.narrow(0, first, count));
                }
                sum
            })
            .collect();
        Tensor::cat(&counts, 0).to_device(Device::Cpu)
    }

    /// Counts the rows as [`Self::correct`] does: logits `[b, H, K]` and labels `[b]` to `[H, 2]`.
    fn hits(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let known = labels.clamp_max(self.classes - 1).view([-1, 1, 1]); // [b, 1, 1]
        let known = known.expand([-1, self.per_input, 1], false);
        let own = logits.gather(-1, &known, false); // [b, H, 1]
        let numbers = Tensor::arange(self.classes, (Kind::Int64, logits.device())); // [K]
        let ties = logits.eq_tensor(&own).logical_and(&numbers.lt_tensor(&known));
        let before =
            logits.gt_tensor(&own).logical_or(&ties).sum_dim_intlist(-1, false, Kind::Int64); // [b, H]
        let valid = logits.isfinite().all_dim(-1, false); // [b, H]
        let valid = valid.logical_and(&labels.lt(self.classes).unsqueeze(1));
        let within = |best: i64| {
            let hits = before.lt(best).logical_and(&valid);
            hits.sum_dim_intlist([0].as_slice(), false, Kind::Int64) // [H]
        };
        Tensor::stack(&[within(1), within(5)], 1)
    }

    /// Returns the indices of heads with weights that are not finite.
    pub(super) fn diverged(&self) -> Vec<usize> {
        let finite = |group: &Group| {
            let by_head = group.weight().isfinite().all_dim(0, false).view([self.per_input, -1]);
            by_head.all_dim(1, false).to_device(Device::Cpu) // [H]
        };
        let all: Vec<Tensor> = self.groups.iter().map(finite).collect();
        let all = Vec::<bool>::try_from(Tensor::cat(&all, 0)).unwrap_or_default();
        all.iter().enumerate().filter(|(_, finite)| !**finite).map(|(i, _)| i).collect()
    }

    /// Returns the weights of all groups.
    #[cfg(test)]
    pub(super) fn weights(&self) -> Vec<Tensor> {
        self.groups.iter().map(Group::weight).collect()
    }

    /// Returns the number of steps so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns the tensors of the state by name; they share memory with it.
    pub(super) fn tensors(&self) -> Vec<(String, Tensor)> {
        let of = |(i, group): (usize, &Group)| {
            if let Some(dual) = &group.dual {
                return dual.tensors().map(|(name, t)| (format!("{name}.{i}"), t)).into();
            }
            let weight = (format!("weight.{i}"), group.weight.shallow_clone());
            let moments = group.moments.iter().enumerate();
            let moments = moments.map(move |(j, m)| (format!("moment.{i}.{j}"), m.shallow_clone()));
            std::iter::once(weight).chain(moments).collect::<Vec<_>>()
        };
        self.groups.iter().enumerate().flat_map(of).collect()
    }

    /// Restores a state. Returns `None`, and changes nothing, if the state does not fit these
    /// heads.
    pub(super) fn restore(
        &mut self,
        steps: u64,
        tensors: &std::collections::BTreeMap<String, Tensor>,
    ) -> Option<()> {
        let own = self.tensors();
        let pairs: Option<Vec<(&Tensor, &Tensor)>> =
            own.iter().map(|(name, own)| Some((own, tensors.get(name)?))).collect();
        let pairs = pairs?;
        let fits =
            |(own, new): &(&Tensor, &Tensor)| own.size() == new.size() && own.kind() == new.kind();
        if !pairs.iter().all(fits) {
            return None;
        }
        for (own, new) in pairs {
            own.shallow_clone().copy_(new);
        }
        self.steps = steps;
        Some(())
    }
}

/// The [`Purpose::Choice`] number for initial weights.
const INITIAL: u32 = 20;

impl Group {
    /// Returns the current weight, `[C, H K]`.
    fn weight(&self) -> Tensor {
        match &self.dual {
            Some(dual) => &self.weight + dual.added(),
            None => self.weight.shallow_clone(),
        }
    }

    /// Takes a step. `errors` is the gradient of the loss with respect to the logits, `[B, H K]`.
    fn update(&mut self, x: &Tensor, errors: &Tensor, rule: &Rule<'_>) {
        let x = x.tr(); // [C, B]
        let Rule { optimizer, rates, steps } = *rule;
        match (optimizer, self.moments.as_mut_slice()) {
            (HeadOptimizer::Sgd { momentum }, [velocity]) => {
                let _ = velocity.g_mul_scalar_(momentum);
                let _ = velocity.addmm_(&x, errors); // adds [C, B] x [B, H K] in place
                let _ = self.weight.addcmul_(velocity, &-rates);
            }
            (HeadOptimizer::AdamW { weight_decay }, [first, second]) => {
                let gradient = x.matmul(errors); // -> [C, H K]
                let _ = self.weight.g_mul_(&(1.0 - rates * weight_decay));
                let _ = first.lerp_(&gradient, 1.0 - BETAS[0]);
                let _ = second.g_mul_scalar_(BETAS[1]);
                let _ = second.addcmul_(&(&gradient * (1.0 - BETAS[1])), &gradient);
                let correction = BETAS.map(|beta| 1.0 - beta.powf(steps as f64));
                let spread = second.sqrt() / correction[1].sqrt() + EPS;
                let step = &*first * (rates / -correction[0]);
                let _ = self.weight.addcdiv_(&step, &spread);
            }
            // Unreachable: the number of moments always fits the optimizer.
            _ => {}
        }
    }
}

/// The inputs of an update besides the gradient. `rates` are `[1, H K]`.
struct Rule<'a> {
    optimizer: HeadOptimizer,
    rates: &'a Tensor,
    steps: u64,
}
