"""Helpers of the tests, which need only unittest: ``python -m unittest discover -s
crates/py/tests``.

`cargo xtask test wheels` sets SIMDINO_REFERENCE, the folder that the example `reference_batches` of
crates/py has written, and SIMDINO_REQUIRE, the modules that must be there; without it, tests that
need a module that is missing are skipped.
"""

import importlib.util
import json
import os
import queue
import struct
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "crates/objectives/tests/fixtures"
REFERENCE = Path(os.environ.get("SIMDINO_REFERENCE", "reference is not set"))


def needs(*modules):
    """Skips a test without these modules, unless they are required."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    required = set(os.environ.get("SIMDINO_REQUIRE", "").split(",")) & set(missing)
    if required:
        raise RuntimeError(f"{', '.join(sorted(required))} must be here and cannot be imported")
    return unittest.skipIf(missing, f"{', '.join(missing)} is not here")


def reference():
    """Returns the cases of the reference."""
    return json.loads((REFERENCE / "reference.json").read_text())


def loader_threads():
    """Returns the number of loader threads of this process."""
    count = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            count += (task / "comm").read_text().startswith("data-")
        except OSError:
            pass  # it has just ended
    return count


def results_of(children, results):
    """Returns one result of each process; raises an error as soon as a process ends without one."""
    got = []
    while len(got) < len(children):
        try:
            got.append(results.get(timeout=0.5))
        except queue.Empty:
            if any(child.exitcode not in (None, 0) for child in children):
                raise RuntimeError("a process failed; see above") from None
    for child in children:
        child.join()
    return got


def fixture(name):
    """Reads the tensors and cases of a fixture in the safetensors format."""
    import torch

    types = {"F64": torch.float64, "F32": torch.float32, "I64": torch.int64}
    data = (FIXTURES / name).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    cases = json.loads(header.pop("__metadata__")["cases"])
    tensors = {}
    for key, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        kind, shape = types[entry["dtype"]], entry["shape"]
        flat = torch.frombuffer(bytearray(data[start:end]), dtype=kind) if end > start else None
        tensors[key] = torch.empty(shape, dtype=kind) if flat is None else flat.reshape(shape)
    return tensors, cases


def views(seed, views=4, batch=8, width=16):
    """Returns unit rows whose views of an image resemble each other and the teacher's."""
    import torch
    from torch.nn.functional import normalize

    make = torch.Generator().manual_seed(seed)
    image = torch.randn(1, batch, width, generator=make, dtype=torch.float64)
    student = image + torch.randn(views, batch, width, generator=make, dtype=torch.float64)
    teacher = image + torch.randn(2, batch, width, generator=make, dtype=torch.float64)
    return normalize(student, dim=-1), normalize(teacher, dim=-1)


def published(student, teacher, processes, expa_type, eps, coeff):
    """Computes the published loss of one of several processes with slogdet and autograd."""
    import torch

    total, pairs = 0.0, 0
    for g in range(2):
        for v in range(len(student)):
            if g != v:
                total = total + torch.cosine_similarity(teacher[g], student[v], dim=-1).mean()
                pairs += 1
    features = (student[:2] + teacher) / 2 if expa_type == 1 else student[:2]
    _, m, p = features.shape
    eye = torch.eye(p, dtype=student.dtype)
    scale = p / (m * processes * eps)
    rates = [0.5 * torch.linalg.slogdet(eye + scale * f.T @ f)[1] for f in features]
    expansion = torch.stack(rates).mean() * (p + processes * m) / (p * processes * m)
    compression = total / pairs
    return -coeff * compression - expansion, compression, expansion
