"""Loads the weights of a run, a checkpoint, or an export as a model of timm or transformers."""

from __future__ import annotations

import json
import math
import os
import struct
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

if TYPE_CHECKING:
    import torch

# Number of attention heads of the architectures, by width.
_HEADS = {128: 4, 192: 3, 384: 6, 768: 12, 832: 13, 896: 14, 1024: 16, 1152: 16, 1536: 24}


def load(
    path: Union[str, "os.PathLike[str]"],
    library: Optional[str] = None,
    network: str = "teacher",
) -> "torch.nn.Module":
    """Loads the backbone of a run as a model in evaluation mode on the CPU.

    Args:
        path: folder of a run (its final weights, or else those of its newest checkpoint), of a
            checkpoint, or of ``simdino export``; or a ``.safetensors`` file written by simdino.
        library: ``"timm"`` (a ``VisionTransformer``) or ``"transformers"`` (a ``Dinov2Model``, or
            with registers a ``Dinov2WithRegistersModel``). By default that of the export, or timm.
        network: ``"teacher"``, which is the result of training, or ``"student"``.

    Returns:
        The model. Its attribute ``simdino`` is a dictionary with ``file``, ``image_size``,
        ``mean``, and ``std``.

    Raises:
        FileNotFoundError: if there are no weights.
        ValueError: if the file is damaged, or the library cannot compute the network.
        ImportError: if torch or the library is missing.
    """
    if library not in (None, "timm", "transformers"):
        raise ValueError(f"library must be 'timm' or 'transformers' (got {library!r})")
    if network not in ("teacher", "student"):
        raise ValueError(f"network must be 'teacher' or 'student' (got {network!r})")
    found = Path(path)
    config = found / "config.json"
    if config.is_file() and (found / "model.safetensors").is_file():
        return _exported(found, json.loads(config.read_text(encoding="utf-8")), library)
    file = find_weights(found, network)
    tensors, metadata = read_safetensors(file)
    if metadata.get("format") != "simdino" or "model" not in metadata:
        raise ValueError(
            f"{file} was not written by simdino: open it with its own library, or run "
            "`simdino import FILE --out OUT`"
        )
    model = json.loads(metadata["model"])
    if model.get("qk_norm"):
        raise ValueError(f"{file} has model.qk_norm, which neither timm nor transformers computes")
    prefix = "backbone."
    backbone = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    build = _transformers if library == "transformers" else _timm
    result = build(backbone, model, file)
    mean, std = (tuple(json.loads(metadata[key])) for key in ("mean", "std"))
    return _described(result, file, model["image_size"], mean, std)


def _described(model: Any, file: Path, image_size: Any, mean: Any, std: Any) -> Any:
    model.simdino = {"file": str(file), "image_size": image_size, "mean": mean, "std": std}
    return model.eval()


def find_weights(path: Path, network: str) -> Path:
    """Returns the weight file for a path."""
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    name = f"{network}.safetensors"
    candidates = [path / "weights" / name, path / name]
    latest = path / "checkpoints" / "latest"
    if latest.is_file():
        candidates.append(latest.parent / latest.read_text(encoding="utf-8").strip() / name)
    for file in candidates:
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"{path}: no {name} found; pass the folder of a run, a checkpoint, or a `simdino export`"
    )


def read_safetensors(file: Path) -> tuple[dict[str, "torch.Tensor"], dict[str, str]]:
    """Reads the tensors and metadata of a safetensors file."""
    try:
        import torch
    except ImportError as error:
        raise ImportError("simdino.load needs torch: pip install torch") from error
    types = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "U8": torch.uint8,
    }
    data = bytearray(file.read_bytes())
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(bytes(data[8 : 8 + length]))
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name, entry in header.items():
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            kind, shape = types[entry["dtype"]], entry["shape"]
            count = math.prod(shape)
            if not 0 <= start <= end <= len(data) or end - start != count * kind.itemsize:
                raise ValueError(f"tensor {name} has the wrong size")
            flat = torch.frombuffer(data, dtype=kind, count=count, offset=start) if count else None
            tensors[name] = torch.empty(shape, dtype=kind) if flat is None else flat.reshape(shape)
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: damaged, or not a safetensors file ({error})") from None
    return tensors, metadata


def _exported(folder: Path, config: dict[str, Any], library: Optional[str]) -> Any:
    """Loads a folder that was written by `simdino export` or by the library itself."""
    kind = "transformers" if "model_type" in config else "timm"
    if library not in (None, kind) or not ("model_type" in config or "architecture" in config):
        made = kind if library not in (None, kind) else "DINOv2's own code"
        raise ValueError(
            f"{folder} was exported for {made}: pass the folder of the run, or export it "
            "with `simdino export --to timm` or `--to hf`"
        )
    file = folder / "model.safetensors"
    if kind == "transformers":
        model = _library("transformers").AutoModel.from_pretrained(folder)
        path = folder / "preprocessor_config.json"
        images = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        size, names = config.get("image_size"), ("image_mean", "image_std")
    else:
        model = _library("timm").create_model(f"local-dir:{folder}", checkpoint_path=str(file))
        images = config.get("pretrained_cfg", {})
        size, names = images.get("input_size", [None])[-1], ("mean", "std")
    return _described(model, file, size, *(images.get(name) for name in names))


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(f"this model needs {name}: pip install {name}") from error


def _sizes(tensors: dict[str, Any], model: dict[str, Any], file: Path) -> tuple[int, int, int, float]:
    """Returns width, depth, number of heads, and the MLP ratio."""
    width = tensors["norm.weight"].shape[0]
    depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    heads = model.get("num_heads") or _HEADS.get(width)
    if heads is None:
        raise ValueError(f"{file} does not say how many attention heads a width of {width} has")
    first = tensors.get("blocks.0.mlp.fc1.weight", tensors.get("blocks.0.mlp.w12.weight"))
    if first is None:
        raise ValueError(f"{file} has blocks without a feed-forward network")
    hidden = first.shape[0]
    exact = hidden % width == 0
    return width, depth, heads, (hidden if exact else hidden + 0.5) / width


def _timm(tensors: dict[str, Any], model: dict[str, Any], file: Path) -> Any:
    timm, torch = _library("timm"), _library("torch")
    width, depth, heads, ratio = _sizes(tensors, model, file)
    registers, gated = model["num_register_tokens"] > 0, model["ffn"] == "swiglu"
    # All properties of the network are passed as arguments; the named architecture only determines
    # whether the MLP is gated.
    result = timm.create_model(
        "vit_giant_patch14_dinov2" if gated else "vit_base_patch16_224",
        img_size=model["image_size"],
        patch_size=model["patch_size"],
        in_chans=model["in_channels"],
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=ratio,
        init_values=model["layer_scale"],
        reg_tokens=model["num_register_tokens"],
        no_embed_class=registers,
        dynamic_img_size=True,
        global_pool="token",
        num_classes=0,
        norm_layer=partial(torch.nn.LayerNorm, eps=model["norm_eps"]),
    )
    state = {}
    for name, tensor in tensors.items():
        if name == "mask_token":
            continue  # timm has no mask token
        if registers and name == "cls_token":
            # timm has no positional embedding for the class token.
            tensor = tensor + tensors["pos_embed"][:, :1]
        if registers and name == "pos_embed":
            tensor = tensor[:, 1:]
        name = "reg_token" if name == "register_tokens" else name
        state[name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")] = tensor
    result.load_state_dict(state)
    return result


_HF_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "mask_token": "embeddings.mask_token",
    "register_tokens": "embeddings.register_tokens",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_HF_INSIDE = (
    (".attn.proj.", ".attention.output.dense."),
    (".ls1.gamma", ".layer_scale1.lambda1"),
    (".ls2.gamma", ".layer_scale2.lambda1"),
    (".mlp.w12.", ".mlp.weights_in."),
    (".mlp.w3.", ".mlp.weights_out."),
)


def _transformers(tensors: dict[str, Any], model: dict[str, Any], file: Path) -> Any:
    transformers, torch = _library("transformers"), _library("torch")
    width, depth, heads, ratio = _sizes(tensors, model, file)
    registers, gated = model["num_register_tokens"] > 0, model["ffn"] == "swiglu"
    options = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        # transformers derives the width of a gated MLP from that of a plain one.
        "mlp_ratio": 4 if gated else (int(ratio) if ratio == int(ratio) else ratio),
        "layer_norm_eps": model["norm_eps"],
        "image_size": model["image_size"],
        "patch_size": model["patch_size"],
        "num_channels": model["in_channels"],
        "layerscale_value": model["layer_scale"] or 1.0,
        "use_swiglu_ffn": gated,
    }
    if registers:
        options["num_register_tokens"] = model["num_register_tokens"]
        config = transformers.Dinov2WithRegistersConfig(**options)
        result = transformers.Dinov2WithRegistersModel(config)
    else:
        result = transformers.Dinov2Model(transformers.Dinov2Config(**options))
    state = {}
    for name, tensor in tensors.items():
        if ".attn.qkv." in name:
            block, kind = name.split(".attn.qkv.")
            number = block.removeprefix("blocks.")
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3)):
                state[f"encoder.layer.{number}.attention.attention.{part}.{kind}"] = rows
            continue
        name = _HF_OUTSIDE.get(name, name.replace("blocks.", "encoder.layer.", 1))
        for ours, theirs in _HF_INSIDE:
            name = name.replace(ours, theirs)
        state[name] = tensor
    # Parts that the network lacks get neutral values: 1 for LayerScale, and 0 for the mask token.
    state.setdefault("embeddings.mask_token", torch.zeros(1, width))
    if model["layer_scale"] is None:
        for layer in range(depth):
            for scale in (1, 2):
                state[f"encoder.layer.{layer}.layer_scale{scale}.lambda1"] = torch.ones(width)
    result.load_state_dict(state)
    return result
