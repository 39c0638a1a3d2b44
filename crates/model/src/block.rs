//! One transformer block.

use tch::nn::Module;
use tch::{Kind, Tensor, nn};
use torch_ext::fused::{Branch, Norm};

use crate::attention::Attention;
use crate::config::ModelConfig;
use crate::drop_path::{BranchDraw, DropPath};
use crate::error::Result;
use crate::init;
use crate::layer_scale::LayerScale;
use crate::mlp::FeedForward;
use crate::stream::{self, FusedPlan, Stream};
use crate::tokens::Mode;

/// Pre-norm block: `x += drop(ls1(attn(norm1(x))))`, then `x += drop(ls2(mlp(norm2(x))))`.
#[derive(Debug)]
pub(crate) struct Block {
    norm1: nn::LayerNorm,
    attn: Attention,
    ls1: LayerScale,
    norm2: nn::LayerNorm,
    mlp: FeedForward,
    ls2: LayerScale,
    drop_path: DropPath,
    eps: f64,
    index: i64,
}

impl Block {
    /// Creates the parameters `norm1`, `attn`, `ls1`, `norm2`, `mlp`, and `ls2` of block `index`.
    pub(crate) fn new(path: &nn::Path, config: &ModelConfig, index: i64) -> Result<Self> {
        let dim = config.arch.dimensions().embed_dim;
        Ok(Self {
            norm1: init::layer_norm(&(path / "norm1"), dim, config.norm_eps),
            attn: Attention::new(&(path / "attn"), dim, config.heads(), config.qk_norm)?,
            ls1: LayerScale::new(&(path / "ls1"), dim, config.layer_scale)?,
            norm2: init::layer_norm(&(path / "norm2"), dim, config.norm_eps),
            mlp: FeedForward::new(&(path / "mlp"), config.ffn, dim, config.ffn_hidden())?,
            ls2: LayerScale::new(&(path / "ls2"), dim, config.layer_scale)?,
            drop_path: DropPath::of_block(config, index),
            eps: config.norm_eps,
            index,
        })
    }

    /// Returns all parameters of the block.
    pub(crate) fn parameters(&self) -> Vec<Tensor> {
        let norms = [&self.norm1, &self.norm2];
        let norms = norms.into_iter().flat_map(|norm| norm.ws.iter().chain(&norm.bs));
        let attn = self.attn.parameters().chain(self.ls1.parameters());
        let mlp = self.mlp.parameters().chain(self.ls2.parameters());
        norms.chain(attn).chain(mlp).map(Tensor::shallow_clone).collect()
    }

    /// Applies the block, `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let attend = |x: &Tensor| self.ls1.forward(self.attn.forward(&self.norm1.forward(x)));
        let x = self.drop_path.add(x, x, mode, attend);
        self.feed_forward(&x, mode)
    }

    /// Computes only the class token of [`Self::forward`], `[B, T, D]` to `[B, 1, D]`. The last
    /// block uses this if nothing reads the other tokens: their queries and MLP are skipped.
    pub(crate) fn forward_cls(&self, x: &Tensor, mode: Mode) -> Tensor {
        let attend = |x: &Tensor| self.ls1.forward(self.attn.forward_cls(&self.norm1.forward(x)));
        let x = self.drop_path.add(&x.narrow(1, 0, 1), x, mode, attend); // [B, T, D] -> [B, 1, D]
        self.feed_forward(&x, mode)
    }

    /// Returns whether this block can use the kernels of [`torch_ext::fused`] for tokens `x` and
    /// activations of type `kind`.
    pub(crate) fn is_fusible(&self, x: &Tensor, kind: Kind) -> bool {
        let normal = self.norms().iter().all(Option::is_some);
        let streams = [Kind::Float, Kind::BFloat16];
        kind == Kind::BFloat16 && streams.contains(&x.kind()) && normal
    }

    /// Computes [`Self::forward`] for tokens whose last branch may still be pending; the MLP
    /// branch of the result is pending, too.
    pub(crate) fn forward_fused(&self, stream: Stream, plan: &FusedPlan) -> Result<Stream> {
        let [Some(norm1), Some(norm2)] = self.norms() else {
            return Ok(Stream::from(self.forward(&stream.added(), plan.mode)));
        };
        let [attention, mlp] = self.draws(plan);
        let (normed, stream) = stream.normed(norm1, plan.kind, attention.subset())?;
        let attended = self.attn.forward_fused(&normed)?;
        let stream = stream.with(branch(attended, &self.ls1, &attention));
        let (normed, stream) = stream.normed(norm2, plan.kind, mlp.subset())?;
        let fed = self.mlp.forward_fused(&normed)?;
        Ok(stream.with(branch(fed, &self.ls2, &mlp)))
    }

    /// Computes [`Self::forward_cls`] for tokens whose last branch may still be pending,
    /// `[B, 1, D]`.
    pub(crate) fn forward_cls_fused(&self, stream: Stream, plan: &FusedPlan) -> Result<Tensor> {
        let [Some(norm1), Some(_)] = self.norms() else {
            return Ok(self.forward_cls(&stream.added(), plan.mode));
        };
        let [attention, _] = self.draws(plan);
        let (normed, stream) = stream.normed(norm1, plan.kind, attention.subset())?;
        let x = stream.added().narrow(1, 0, 1); // [B, T, D] -> [B, 1, D]
        let attended = self.attn.forward_cls(&normed); // [K, T, D] -> [K, 1, D]
        let x = stream::add(&x, &branch((attended, None), &self.ls1, &attention));
        Ok(self.feed_forward(&x, plan.mode))
    }

    /// Returns the weights of both norms; `None` for a norm without weights.
    fn norms(&self) -> [Option<Norm<'_>>; 2] {
        [&self.norm1, &self.norm2].map(|norm| {
            let (weight, shift) = (norm.ws.as_ref()?, norm.bs.as_ref()?);
            Some(Norm { weight, shift, eps: self.eps })
        })
    }

    /// Returns the stochastic depth of the attention branch and the MLP branch.
    fn draws(&self, plan: &FusedPlan) -> [BranchDraw; 2] {
        plan.draws.get(self.index as usize).cloned().unwrap_or_default()
    }

    /// Computes queries, keys, and values, `[B, T, D]` to three of `[B, H, T, D/H]`.
    pub(crate) fn qkv(&self, x: &Tensor) -> [Tensor; 3] {
        self.attn.project(&self.norm1.forward(x))
    }

    /// Computes attention maps, `[B, T, D]` to `[B, H, T, T]`.
    pub(crate) fn attention_maps(&self, x: &Tensor) -> Tensor {
        self.attn.maps(&self.norm1.forward(x))
    }

    fn feed_forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let branch = |x: &Tensor| self.ls2.forward(self.mlp.forward(&self.norm2.forward(x)));
        self.drop_path.add(x, x, mode, branch)
    }
}

fn branch(
    (output, bias): (Tensor, Option<&Tensor>),
    scale: &LayerScale,
    draw: &BranchDraw,
) -> Branch {
    let [bias, gamma, factor] =
        [bias, scale.gamma(), draw.factor()].map(|t| t.map(Tensor::shallow_clone));
    Branch { output, bias, gamma, factor, subset: draw.subset().cloned() }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::config::{Arch, DropPathForm, DropPathSchedule, Ffn};
    use crate::drop_path;
    use crate::tokens::ImageRange;

    const MODES: [Mode; 3] =
        [Mode::Eval, Mode::Train, Mode::TrainPart(ImageRange { first: 1, count: 3, of: 5 })];

    fn configs() -> Vec<ModelConfig> {
        // No drop path here: both variants draw from the same distribution, but not the same
        // numbers.
        let plain =
            ModelConfig { arch: Arch::VitNano, drop_path_rate: 0.0, ..ModelConfig::default() };
        let scaled = ModelConfig { layer_scale: Some(0.5), ..plain.clone() };
        let swiglu = ModelConfig { ffn: Ffn::Swiglu, qk_norm: true, ..scaled.clone() };
        vec![plain, scaled, swiglu]
    }

    /// Returns the output of `f`, and the gradients of a fixed weighted sum of it with respect to
    /// the input and the parameters, which are ordered by name.
    fn computed(
        (vars, block): &(nn::VarStore, Block),
        f: impl Fn(&Block, Stream) -> Tensor,
    ) -> Vec<Tensor> {
        // Not random, because tests that run in parallel draw from the same global generator.
        let x = Tensor::arange(6 * 5 * 128, (Kind::Float, Device::Cpu)).square() * 0.37;
        let x = (x.sin() * 1.4).view([6, 5, 128]).set_requires_grad(true);
        let out = f(block, Stream::from(x.shallow_clone()));
        let weights = Tensor::arange(out.numel() as i64, (Kind::Float, Device::Cpu)).sin();
        (&out * weights.view_as(&out)).sum(None).backward();
        let variables = vars.variables();
        let mut names: Vec<&String> = variables.keys().collect();
        names.sort();
        let gradients = names.into_iter().map(|name| {
            let gradient = variables[name].grad();
            let mut variable = variables[name].shallow_clone();
            variable.zero_grad();
            if gradient.defined() { gradient.copy() } else { Tensor::zeros_like(&variable) }
        });
        let gradients: Vec<Tensor> = gradients.collect();
        [out.detach(), x.grad()].into_iter().chain(gradients).collect()
    }

    fn assert_same(ours: &[Tensor], eager: &[Tensor], what: &str) {
        assert_eq!(ours.len(), eager.len());
        for (i, (ours, eager)) in ours.iter().zip(eager).enumerate() {
            let error = (ours - eager).abs().max().double_value(&[]);
            let largest = eager.abs().max().double_value(&[]);
            assert!(
                error <= 2e-5 * largest + 1e-6,
                "{what}: result {i} is off by {error} of {largest}"
            );
        }
    }

    #[test]
    fn fused_steps_compute_what_the_block_computes() {
        for config in configs() {
            let vars = nn::VarStore::new(Device::Cpu);
            tch::manual_seed(3);
            let block = Block::new(&vars.root(), &config, 1).unwrap();
            // Moves parameters away from their initial zeros, which would hide a missing bias.
            for (_, mut variable) in vars.variables() {
                let noise = variable.randn_like() * 0.1;
                tch::no_grad(|| variable += noise);
            }
            let made = (vars, block);
            for mode in MODES {
                let what = format!("{config:?} {mode:?}");
                let plan = FusedPlan { kind: Kind::Float, mode, draws: Vec::new() };
                let eager = computed(&made, |block, x| block.forward(&x.added(), mode));
                let fused = |block: &Block, x| block.forward_fused(x, &plan).unwrap();
                let ours = computed(&made, |block, x| fused(block, x).added());
                assert_same(&ours, &eager, &what);
                // Applies the block twice, so that a pending branch reaches the next norm.
                let eager = computed(&made, |block, x| {
                    block.forward_cls(&block.forward(&x.added(), mode), mode)
                });
                let ours = computed(&made, |block, x| {
                    block.forward_cls_fused(fused(block, x), &plan).unwrap()
                });
                assert_same(&ours, &eager, &what);
            }
        }
    }

    #[test]
    fn branches_of_dropped_images_are_left_out_and_the_others_scaled() {
        // `Batch` keeps floor(6 * 0.6) = 3 of the 6 images, so it scales their branches by 2.
        for (form, scale) in [(DropPathForm::Image, 1.0 / 0.6), (DropPathForm::Batch, 2.0)] {
            let config = ModelConfig {
                arch: Arch::VitNano,
                drop_path_rate: 0.4,
                drop_path_schedule: DropPathSchedule::Uniform,
                drop_path_form: form,
                ..ModelConfig::default()
            };
            let vars = nn::VarStore::new(Device::Cpu);
            let block = Block::new(&vars.root(), &config, 1).unwrap();
            let x = Tensor::randn([6, 5, 128], (Kind::Float, Device::Cpu));
            tch::manual_seed(1);
            let draws = drop_path::draw_all(&config, 6, Mode::Train, Device::Cpu);
            // Factor of each image in block 1; 0 if its branch is dropped.
            let [attention, mlp] = draws[1].each_ref().map(factors);
            let plan = FusedPlan { kind: Kind::Float, mode: Mode::Train, draws };
            let stream = Stream::from(x.shallow_clone());
            let out = block.forward_fused(stream, &plan).unwrap().added();
            let drawn = format!("{form:?}: {attention:?} {mlp:?}");
            let dropped = |image: usize| attention[image] == 0.0 && mlp[image] == 0.0;
            for image in 0..6 {
                let same = out.get(image as i64) == x.get(image as i64);
                assert_eq!(same, dropped(image), "image {image}, {drawn}");
            }
            let kept = |image: &usize| attention[*image] > 0.0 && mlp[*image] == 0.0;
            let image = (0..6).find(kept).unwrap_or_else(|| panic!("{drawn}")) as i64;
            let one = x.get(image).unsqueeze(0);
            let attended = block.attn.forward(&block.norm1.forward(&one));
            let error = (out.get(image) - (one + attended * scale).get(0)).abs().max();
            assert!(error.double_value(&[]) < 1e-5, "{error:?}, {drawn}");

            let stream = Stream::from(x.shallow_clone());
            let cls = block.forward_cls_fused(stream, &plan).unwrap(); // the MLP draws again
            assert_eq!(cls.size(), [6, 1, 128]);
            let same = |image: i64| cls.get(image) == x.get(image).narrow(0, 0, 1);
            assert!((0..6).all(|i| attention[i] == 0.0 || !same(i as i64)), "{drawn}");
        }
    }

    /// Returns the factor of each image of a batch, 0 for images whose branch is dropped.
    fn factors(draw: &BranchDraw) -> Vec<f32> {
        let all = draw.factor().unwrap();
        let factors = match draw.subset() {
            Some(subset) => {
                let images = subset.images();
                all.zeros_like().index_copy(0, &images, &all.index_select(0, &images))
            }
            None => all.shallow_clone(),
        };
        Vec::try_from(factors).unwrap()
    }
}
