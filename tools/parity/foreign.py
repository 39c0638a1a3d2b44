"""Checks that the real program reads the weights of other libraries; writes no fixtures.

Every network is small and random, and saved as its library saves it. The program must reproduce the
library's class token after the final norm to 1e-5 of the largest value, or refuse with one sentence
and exit code 1 or 2; each case states which of the two is expected. `import`, `embed`, and
`export --check` must agree.

    python tools/parity/foreign.py target/debug/simdino [name of a case]
"""

import json
import subprocess
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import timm
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLU, SwiGLUPacked
from timm.models import save_for_hf
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ParallelThingsBlock,
    VisionTransformer,
)
from torch import nn

SIDE, PATCH, DIM, DEPTH, HEADS = 64, 16, 128, 4, 4
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TOLERANCE = 1e-5
SIMDINO = sys.argv[1]
TIMM = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "num_classes": 0}
HF = {
    "hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "image_size": SIDE,
    "patch_size": PATCH,
}
VIT = HF | {"intermediate_size": 4 * DIM}


def pixels():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)


def inputs(mean=MEAN, std=STD, white=1.0):
    x = torch.from_numpy(pixels()).permute(0, 3, 1, 2).float() / 255 * white
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def randomize(model, seed=0):
    """Draws values that are not small: the initial norms, scales, and tokens of libraries hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim == 1:
                p.copy_(0.3 * noise + (1.0 if name.endswith(("weight", "gamma", "lambda1")) else 0.0))
            elif p.shape[0] == 1:
                p.copy_(0.5 * noise)
            else:
                p.copy_(noise / p[0].numel() ** 0.5)
    return model.eval()


def token(model, x):
    with torch.no_grad():
        if isinstance(model, hf.PreTrainedModel):
            model = getattr(model, model.base_model_prefix, model)
            return model(x).last_hidden_state[:, 0]
        return model.forward_features(x)[:, 0]


CASES = OrderedDict()


def case(name, reads):
    def keep(make):
        CASES[name] = (reads, make)
        return make

    return keep


# The result of a maker: the path to pass on, and the features, if there are any.


def timm_cases():
    kinds = {
        "plain": (True, {}),
        "layer_scale": (True, {"init_values": 0.1}),
        "registers": (True, {"reg_tokens": 4, "no_embed_class": True}),
        "deit3": (True, {"no_embed_class": True, "init_values": 0.1}),
        "no_qkv_bias": (True, {"qkv_bias": False}),
        "swiglu_packed": (True, {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 5.375}),
        "head": (True, {"num_classes": 10}),
        "pre_norm": (False, {"pre_norm": True}),
        "qk_norm": (False, {"qk_norm": True}),
        "fc_norm": (False, {"fc_norm": True}),
        "no_final_norm": (False, {"final_norm": False}),
        "scale_norms": (False, {"scale_attn_norm": True, "scale_mlp_norm": True}),
        "swiglu": (False, {"mlp_layer": SwiGLU, "act_layer": nn.SiLU}),
        "parallel": (False, {"block_fn": ParallelScalingBlock}),
        "things": (False, {"block_fn": ParallelThingsBlock}),
        "no_class_token": (False, {"class_token": False, "global_pool": "avg"}),
        "no_positions": (False, {"pos_embed": "none"}),
        "proj_bias": (False, {"proj_bias": False}),
    }
    for name, (reads, options) in kinds.items():
        def make(folder, options=options):
            model = randomize(VisionTransformer(**(TIMM | options)))
            save_file(model.state_dict(), folder / "x.safetensors")
            return folder / "x.safetensors", token(model, inputs())
        case(f"timm {name}", reads)(make)
    configured = {
        "8 heads": (True, {"num_heads": 8}, {}),
        "tanh": (False, {"act_layer": "gelu_tanh"}, {}),
        "silu": (False, {"act_layer": "silu"}, {}),
        "another width": (False, {}, {"embed_dim": 192}),
        "unknown argument": (False, {}, {"rope": True}),
        "norm layer": (False, {"norm_layer": "rmsnorm2d"}, {"norm_layer": "rmsnorm"}),
    }
    for name, (reads, options, also) in configured.items():
        def make(folder, options=options, also=also):
            build = {key: value for key, value in options.items() if key != "norm_layer"}
            model = randomize(VisionTransformer(**(TIMM | build)))
            model.pretrained_cfg = {"architecture": "vit_tiny_patch16_224", "mean": MEAN, "std": STD}
            model.num_features = DIM
            save_for_hf(model, folder, model_args=TIMM | options | also)
            return folder, token(model, inputs())
        case(f"timm config, {name}", reads)(make)
    others = {
        "eva": lambda: Eva(**TIMM, use_rot_pos_emb=True),
        "eva_swiglu": lambda: Eva(**TIMM, swiglu_mlp=True, scale_mlp=True, init_values=0.1),
        "beit": lambda: Beit(**TIMM, use_rel_pos_bias=True, init_values=0.1),
        "beit_plain": lambda: Beit(**TIMM, use_abs_pos_emb=True, init_values=0.1),
        "deit_distilled": lambda: VisionTransformerDistilled(**TIMM),
    }
    for name, build in others.items():
        def make(folder, build=build):
            model = randomize(build())
            torch.save({"model": model.state_dict()}, folder / "x.pth")
            return folder / "x.pth", token(model, inputs())
        case(f"timm {name}", False)(make)


def hf_cases():
    kinds = {
        "vit": (True, lambda: hf.ViTModel(hf.ViTConfig(**VIT))),
        "vit eps": (True, lambda: hf.ViTModel(hf.ViTConfig(**VIT, layer_norm_eps=0.05))),
        "vit 8 heads": (True, lambda: hf.ViTModel(hf.ViTConfig(**(VIT | {"num_attention_heads": 8})))),
        "vit no bias": (True, lambda: hf.ViTModel(hf.ViTConfig(**VIT, qkv_bias=False))),
        "vit quick_gelu": (False, lambda: hf.ViTModel(hf.ViTConfig(**VIT, hidden_act="quick_gelu"))),
        "vit gelu_new": (False, lambda: hf.ViTModel(hf.ViTConfig(**VIT, hidden_act="gelu_new"))),
        "vit classifier": (True, lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT))),
        "vit masked": (True, lambda: hf.ViTForMaskedImageModeling(hf.ViTConfig(**VIT))),
        "mae": (True, lambda: hf.ViTMAEForPreTraining(hf.ViTMAEConfig(**VIT, decoder_hidden_size=64, decoder_num_hidden_layers=1, decoder_num_attention_heads=4, decoder_intermediate_size=64, mask_ratio=0.0))),
        "msn": (True, lambda: hf.ViTMSNModel(hf.ViTMSNConfig(**VIT))),
        "dinov2": (True, lambda: hf.Dinov2Model(hf.Dinov2Config(**HF))),
        "dinov2 8 heads": (True, lambda: hf.Dinov2Model(hf.Dinov2Config(**(HF | {"num_attention_heads": 8})))),
        "dinov2 relu": (False, lambda: hf.Dinov2Model(hf.Dinov2Config(**HF, hidden_act="relu"))),
        "dinov2 swiglu": (True, lambda: hf.Dinov2Model(hf.Dinov2Config(**HF, use_swiglu_ffn=True, hidden_act="relu"))),
        "dinov2 classifier": (True, lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**HF))),
        "registers": (True, lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**HF))),
        "beit": (False, lambda: hf.BeitModel(hf.BeitConfig(**VIT, use_relative_position_bias=True))),
        "beit plain": (False, lambda: hf.BeitModel(hf.BeitConfig(**VIT, use_absolute_position_embeddings=True))),
        "data2vec": (False, lambda: hf.Data2VecVisionModel(hf.Data2VecVisionConfig(**VIT))),
        "deit": (False, lambda: hf.DeiTModel(hf.DeiTConfig(**VIT))),
        "yolos": (False, lambda: hf.YolosModel(hf.YolosConfig(**(VIT | {"image_size": [SIDE, SIDE]})))),
        "dinov3": (False, lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**VIT))),
        "ijepa": (False, lambda: hf.IJepaModel(hf.IJepaConfig(**VIT))),
        "clip": (False, lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**VIT))),
        "siglip": (False, lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**VIT))),
    }
    for name, (reads, build) in kinds.items():
        for with_config in (True, False):
            def make(folder, build=build, with_config=with_config, reads=reads):
                model = randomize(build())
                features = token(model, inputs()) if reads else None
                model.save_pretrained(folder)
                if not with_config:
                    (folder / "config.json").unlink()
                return folder, features
            # These cases depend on facts that only the config states.
            told = name not in ("vit eps", "vit 8 heads", "vit quick_gelu", "vit gelu_new", "dinov2 8 heads", "dinov2 relu")
            if with_config or told:
                case(f"hf {name}{'' if with_config else ', no config'}", reads)(make)


def pixel_cases():
    """Cases of preprocessor_config.json, compared with the library's own processor."""
    half = [0.5, 0.5, 0.5]
    for name, reads, keys in [
        ("half", True, {"image_mean": half, "image_std": half}),
        ("number", True, {"image_mean": 0.5, "image_std": 0.25}),
        ("not normalized", True, {"do_normalize": False}),
        ("not rescaled", True, {"do_rescale": False, "image_mean": [100.0] * 3, "image_std": [50.0] * 3}),
        ("rescaled otherwise", True, {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}),
        ("neither", True, {"do_rescale": False, "do_normalize": False}),
        ("flipped", False, {"do_flip_channel_order": True, "image_mean": half, "image_std": half}),
        ("nothing said", False, {"do_resize": True}),
        ("two channels", False, {"image_mean": [0.5, 0.5], "image_std": [0.5, 0.5]}),
        ("zero", False, {"image_mean": half, "image_std": [0.0, 0.5, 0.5]}),
    ]:
        def make(folder, keys=keys, reads=reads):
            model = randomize(hf.Dinov2Model(hf.Dinov2Config(**HF)))
            model.save_pretrained(folder)
            (folder / "preprocessor_config.json").write_text(json.dumps(keys))
            processor = hf.ViTImageProcessor(**({"do_resize": False} | {k: v for k, v in keys.items() if k != "do_flip_channel_order"}))
            if not reads:
                return folder, None
            x = processor(images=list(pixels()), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
            return folder, token(model, x)
        case(f"pixels, {name}", reads)(make)


def part_cases():
    def sharded(folder, safe=True):
        model = randomize(hf.Dinov2Model(hf.Dinov2Config(**HF)))
        model.save_pretrained(folder, max_shard_size="1MB", safe_serialization=safe)
        return token(model, inputs())

    def bins(folder):
        """Writes parts as transformers did before safetensors."""
        model = randomize(hf.Dinov2Model(hf.Dinov2Config(**HF)))
        model.config.save_pretrained(folder)
        state = model.state_dict()
        names = sorted(state)
        halves = [names[: len(names) // 2], names[len(names) // 2 :]]
        index = {}
        for i, half in enumerate(halves, 1):
            file = f"pytorch_model-{i:05}-of-00002.bin"
            torch.save({name: state[name] for name in half}, folder / file)
            index |= dict.fromkeys(half, file)
        text = json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
        (folder / "pytorch_model.bin.index.json").write_text(text)
        return token(model, inputs())

    def index_of(folder):
        return next(folder.glob("*.index.json"))

    @case("parts, folder", True)
    def _(folder):
        return folder, sharded(folder)

    @case("parts, index", True)
    def _(folder):
        features = sharded(folder)
        return index_of(folder), features

    @case("parts, bin", True)
    def _(folder):
        return folder, bins(folder)

    @case("parts, another name", True)
    def _(folder):
        features = sharded(folder)
        index_of(folder).rename(folder / "model.fp32.safetensors.index.json")
        return folder, features

    @case("parts, one missing", False)
    def _(folder):
        sharded(folder)
        sorted(folder.glob("model-*"))[1].unlink()
        return folder, None

    @case("parts, a tensor missing", False)
    def _(folder):
        sharded(folder)
        part = sorted(folder.glob("model-*"))[1]
        tensors = load_file(part)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, part)
        return folder, None

    @case("parts, no index", False)
    def _(folder):
        sharded(folder)
        index_of(folder).unlink()
        return folder, None

    @case("parts, one by itself", False)
    def _(folder):
        sharded(folder)
        return sorted(folder.glob("model-*"))[0], None

    @case("parts, index damaged", False)
    def _(folder):
        sharded(folder)
        index_of(folder).write_text("{")
        return folder, None

    @case("parts, path outside", False)
    def _(folder):
        sharded(folder)
        index = json.loads(index_of(folder).read_text())
        index["weight_map"] = {key: "../" + part for key, part in index["weight_map"].items()}
        index_of(folder).write_text(json.dumps(index))
        return folder, None


PAIRS = [
    ("teacher_backbone.", "student_backbone."), ("momentum_backbone.", "backbone."),
    ("teacher_embedding_model.wrapped_model.", "student_embedding_model.wrapped_model."),
    ("state_dict_ema/", "state_dict/"), ("teacher_ema/", "student/"), ("module.encoder_k.", "module.encoder_q."),
    ("target_encoder/module.", "encoder/module."), ("ema_model.", "model."), ("backbone_ema.", "backbone."),
    ("module.momentum_encoder.", "module.base_encoder."), ("target_network.encoder.", "online_network.encoder."),
    ("model_ema/", "model/"), ("teacher/backbone.", "student/backbone."),
]


def pair_cases():
    for taken, other in PAIRS:
        def make(folder, taken=taken, other=other):
            models = [randomize(VisionTransformer(**TIMM), seed) for seed in (1, 2)]
            content = {"epoch": 3}
            for front, model in zip((other, taken), models):
                outer, slash, inner = front.rpartition("/")
                state = {inner + key: value for key, value in model.state_dict().items()}
                (content.setdefault(outer, {}) if slash else content.setdefault("state", {})).update(state)
            torch.save(content, folder / "x.pth")
            return folder / "x.pth", token(models[1], inputs())
        case(f"pair {taken}", True)(make)

    @case("pair of strangers", False)
    def _(folder):
        state = {}
        for seed, front in enumerate(("left.", "right.")):
            state |= {front + k: v for k, v in randomize(VisionTransformer(**TIMM), seed).state_dict().items()}
        save_file(state, folder / "x.safetensors")
        return folder / "x.safetensors", None

    @case("pair by its prefix", True)
    def _(folder):
        CASES["pair of strangers"][1](folder)
        model = randomize(VisionTransformer(**TIMM), 1)
        return [folder / "x.safetensors", "--prefix", "right"], token(model, inputs())


def name_cases():
    names = ["gamma_{}", "ls{}.weight", "ls{}.scale_factor", "ls{}.lambda1", "lambda_{}", "layer_scale_{}.scale"]
    for name in names:
        def make(folder, name=name):
            model = randomize(VisionTransformer(**TIMM, init_values=0.1))
            state = {}
            for key, value in model.state_dict().items():
                for which in "12":
                    key = key.replace(f"ls{which}.gamma", name.format(which))
                state[key] = value
            save_file(state, folder / "x.safetensors")
            return folder / "x.safetensors", token(model, inputs())
        case(f"LayerScale as {name}", True)(make)

    def altered(name, reads, change):
        def make(folder):
            model = randomize(VisionTransformer(**TIMM))
            state = dict(model.state_dict())
            change(state)
            torch.save({"model": state}, folder / "x.pth")
            return folder / "x.pth", token(model, inputs())
        case(f"altered, {name}", reads)(make)

    wide = torch.randn(1, 1, 48)
    altered("decoder of MAE", True, lambda s: s.update({"mask_token": wide, "decoder_embed.weight": torch.randn(48, DIM), "decoder_blocks.0.norm1.weight": torch.randn(48)}))
    altered("classifier", True, lambda s: s.update({"fc.weight": torch.randn(10, DIM)}))
    altered("unknown part", False, lambda s: s.update({"blocks.2.adapter.weight": torch.randn(8, DIM)}))
    altered("lora", False, lambda s: s.update({"blocks.2.attn.qkv.lora_A.weight": torch.randn(8, DIM)}))
    altered("one bias missing", False, lambda s: s.pop("blocks.2.attn.qkv.bias"))
    altered("norm missing", False, lambda s: s.pop("norm.weight"))
    altered("a block missing", False, lambda s: [s.pop(k) for k in list(s) if k.startswith("blocks.1.")])
    altered("twice", False, lambda s: s.update({"module.norm.weight": torch.randn(DIM)}))
    altered("LayerScale of one block", False, lambda s: s.update({"blocks.0.gamma_1": torch.randn(DIM), "blocks.0.gamma_2": torch.randn(DIM)}))


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def check(name, folder, images):
    reads, make = CASES[name]
    folder.mkdir()
    path, expected = make(folder)
    path, *more = path if isinstance(path, list) else [path]
    out = folder / "out.npy"
    embed = run(SIMDINO, "embed", "--weights", path, "--data", images, "--out", out, "--crop", SIDE, "--resize", SIDE, "--device", "cpu", *more)
    others = {"import": run(SIMDINO, "import", path, "--out", folder / "own.safetensors", *more)}
    others["export"] = run(SIMDINO, "export", path, "--to", "hf" if reads else "dinov2", "--out", folder / "exported", "--check", *more)
    problems = []
    for verb, (code, said) in {"embed": embed, **others}.items():
        if (code == 0) != reads or code not in (0, 1, 2):
            problems.append(f"{verb} gave {code}: {said}")
        if code and (len(said.splitlines()) != 1 or "panicked" in said):
            problems.append(f"{verb} said more than a sentence: {said}")
    if not problems and reads:
        for what, weights in (("directly", out), ("imported", folder / "own.npy"), ("exported", folder / "back.npy")):
            source = {"imported": folder / "own.safetensors", "exported": folder / "exported"}.get(what)
            if source:
                code, said = run(SIMDINO, "embed", "--weights", source, "--data", images, "--out", weights, "--crop", SIDE, "--resize", SIDE, "--device", "cpu")
                if code:
                    problems.append(f"{what}: {said}")
                    continue
            mine, theirs = torch.from_numpy(np.load(weights)), expected
            error = ((mine - theirs).abs().max() / theirs.abs().max()).item()
            if not error <= TOLERANCE:
                problems.append(f"{what}: features differ by {error:.1e} of the largest")
    verdict = "WRONG" if problems else ("read" if reads else "refused")
    print(f"{verdict:8} {name}" + "".join(f"\n    {p}" for p in problems))
    if not reads and not problems:
        print("    " + embed[1].replace(str(folder.parent), ""))
    return not problems


def main():
    for cases in (timm_cases, hf_cases, pixel_cases, part_cases, pair_cases, name_cases):
        cases()
    wanted = [name for name in CASES if all(word in name for word in sys.argv[2:])]
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        images = root / "images"
        images.mkdir()
        for i, image in enumerate(pixels()):
            Image.fromarray(image).save(images / f"{i}.png")
        fine = [check(name, root / f"case{i}", images) for i, name in enumerate(wanted)]
    print(f"{sum(fine)} of {len(fine)} cases are as they should be")
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
