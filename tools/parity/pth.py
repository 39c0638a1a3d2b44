"""Writes fixtures of the .pth reader: all forms of torch.save's files, and files of attackers.

    python tools/parity/pth.py crates/model/tests/fixtures/pth
"""

import argparse
import collections
import io
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import torch
from torch import nn


class DictConfig:
    """A class that the reader does not know, such as those of omegaconf."""

    def __init__(self, content):
        self._content = content


DictConfig.__module__ = "omegaconf.dictconfig"
for module in ("omegaconf", "omegaconf.dictconfig"):
    sys.modules[module] = type(sys)(module)
sys.modules["omegaconf.dictconfig"].DictConfig = DictConfig


def values(*shape):
    """Returns numbers that a test can compute itself: i / 8 - 1."""
    return torch.arange(int(torch.tensor(shape).prod()), dtype=torch.float64).reshape(shape) / 8 - 1


def kinds():
    base = values(3, 4)
    shared = values(40).float()
    return collections.OrderedDict(
        f32=base.float(), f64=base, f16=base.half(), bf16=base.bfloat16(), i64=(base * 8).long(),
        i32=(base * 8).int(), i16=(base * 8).short(), i8=(base * 8).char(),
        u8=(base + 1).byte(), flag=base > 0, scalar=torch.tensor(1.5), empty=torch.zeros(0, 3),
        turned=base.float().t(), slice=shared[4:16].view(3, 4), strided=shared[1:37:3],
        parameter=nn.Parameter(base.float()),
    )


def training():
    """Returns a checkpoint like those of the training code of DINO and DINOv2."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(values(*p.shape))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return {
        "student": {"module." + k: v for k, v in model.state_dict().items()},
        "teacher": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 7,
        "args": argparse.Namespace(arch="vit_small", patch_size=16, lr=5e-4, use_fp16=True, out=None),
        "cfg": DictConfig({"student": 1}),
        "big": 1 << 80,
    }


class Runs:
    """Runs a command when a reader unpickles it and executes its calls."""

    def __reduce__(self):
        return (os.system, ("touch simdino-was-here",))


def archive(path, pickled, storages=(), method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("archive/data.pkl", pickled)
        for key, data in storages:
            file.writestr(f"archive/data/{key}", data)


def tensor_pickle(storage="FloatStorage", count=4, offset=0, size=(4,), stride=(1,)):
    """Returns a dictionary with one tensor, written by hand so that its numbers may be invalid."""

    class Persistent:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Persistent):
                return ("storage", getattr(torch, storage), "0", "cpu", count)
            return None

    class Rebuild:
        def __reduce__(self):
            args = (Persistent(), offset, size, stride, False, collections.OrderedDict())
            return (torch._utils._rebuild_tensor_v2, args)

    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"weight": Rebuild()})
    return out.getvalue()


def hostile(folder):
    four = [("0", struct.pack("<4f", 1, 2, 3, 4))]
    lies = {
        "more_elements": {"size": (5,)}, "beyond": {"offset": 1}, "expanded": {"size": (1 << 40,), "stride": (0,)},
        "negative_size": {"size": (-4,)}, "negative_stride": {"stride": (-1,)}, "wide": {"storage": "DoubleStorage"},
        "overflow": {"size": (1 << 62, 1 << 62), "stride": (1, 1)}, "negative_count": {"count": -1},
        "count": {"count": 1 << 60}, "huge_stride": {"size": (2,), "stride": (1 << 62,)},
    }
    for name, lie in lies.items():
        archive(folder / f"hostile_{name}.pth", tensor_pickle(**lie), four)
    archive(folder / "hostile_no_storage.pth", tensor_pickle())
    archive(folder / "hostile_compressed.pth", tensor_pickle(), four, zipfile.ZIP_DEFLATED)
    archive(folder / "hostile_unfolds.pth", laughs())
    archive(folder / "hostile_deep.pth", b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 3000 + b"N" + b"s" * 3000 + b".")
    archive(folder / "hostile_cycle.pth", b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.")
    archive(folder / "hostile_opcode.pth", b"\x80\x02\x82\x01.")
    archive(folder / "hostile_stack.pth", b"\x80\x02R.")


def laughs():
    """Returns lists of ten lists of ten lists, and so on for ten levels: 10^10 values in 200
    bytes."""
    out = b"\x80\x02]q\x00"
    for level in range(1, 11):
        out += b"]" + b"q" + bytes([level]) + b"(" + (b"h" + bytes([level - 1])) * 10 + b"e"
    return out + b"."


def main(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.save(kinds(), folder / "kinds.pth")
    torch.save(kinds(), folder / "kinds_protocol4.pth", pickle_protocol=4)
    torch.save(kinds(), folder / "kinds_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(training(), folder / "training.pth")
    torch.save(training(), folder / "training_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), folder / "module.pth")
    torch.save({"weight": values(2, 2).float(), "hook": Runs()}, folder / "runs.pth")
    negative = {"weight": torch._neg_view(values(4).float())}
    torch.save(negative, folder / "negative_bit.pth")
    torch.save(negative, folder / "negative_bit_legacy.pth", _use_new_zipfile_serialization=False)
    hostile(folder)
    # A reader that does not support early tar archives or plain pickles must say so.
    (folder / "hostile_plain.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))


if __name__ == "__main__":
    main(sys.argv[1])
