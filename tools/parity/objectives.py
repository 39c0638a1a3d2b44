"""Writes a fixture of the objectives: the SimDINO loss and the coding rate by plain formulas in
torch.

Log-determinants are computed with slogdet of the d x d matrix, and gradients with autograd, one
process or group at a time. Written from the formulas, without code of the reference implementation.

    python tools/parity/objectives.py        (torch 2.11.0)

Writes crates/objectives/tests/fixtures/objectives.safetensors, with the inputs and the expected
values and gradients of each case, all in float64. Single precision is compared with the same
numbers, because autograd in float32 through the d x d matrix is itself only accurate to about 1e-5.
"""

import json
import math
import platform
import struct
from pathlib import Path

import numpy
import torch
from torch.nn.functional import normalize

SEED = 20261
OUT = Path(__file__).parents[2] / "crates/objectives/tests/fixtures/objectives.safetensors"

# name, (n, d), number of groups, alpha; rows are not of norm 1
RATES = [
    ("n_below_d", (6, 16), 1, 10.0),
    ("n_equals_d", (12, 12), 1, 3.0),
    ("n_above_d", (40, 8), 1, 0.7),
    ("groups_below", (5, 16), 3, 25.0),
    ("groups_above", (24, 6), 4, 0.05),
]

# name, shape (V, B, d), changes to the default config, context (progress, groups, global batch)
LOSSES = [
    ("published", (12, 8, 16), {"rate_groups": 2}, (0.0, 2, 8)),
    ("no_locals", (2, 8, 8), {"rate_groups": 1}, (0.5, 1, 8)),
    ("n_above_d", (3, 24, 6), {"rate_groups": 2, "eps": 0.5}, (0.0, 2, 24)),
    ("one_view", (1, 8, 12), {"rate_groups": 2}, (0.0, 2, 8)),
    ("one_view_of_the_student", (1, 8, 8), {"rate_groups": 1, "expa_source": "student"}, (0.0, 1, 8)),
    ("student_only", (5, 12, 16), {"rate_groups": 3, "expa_source": "student"}, (0.0, 3, 12)),
    (
        "paper",
        (4, 12, 12),
        {
            "rate_groups": 1,
            "eps": 0.3,
            "eps_semantics": "paper",
            "gamma": "theorem",
            "expa_source": "student",
            "loss_form": "half_sq_l2",
        },
        (0.0, 1, 12),
    ),
    (
        "schedules",
        (3, 8, 16),
        {
            "rate_groups": 2,
            "eps": 0.5,
            "eps_end": 0.05,
            "coeff": 2.0,
            "coeff_end": 0.5,
            "gamma": 0.25,
            "precision": "fp64",
        },
        (0.37, 2, 8),
    ),
    ("centered", (3, 20, 8), {"rate_groups": 2, "center_cov": True}, (1.0, 2, 20)),
    ("theorem_code_eps", (3, 8, 16), {"rate_groups": 2, "gamma": "theorem"}, (0.0, 2, 8)),
    ("accumulated", (4, 8, 16), {"rate_groups": 8}, (0.0, 2, 32)),
    ("ceiling_below", (3, 8, 16), {"rate_groups": 2, "gamma": "ceiling"}, (0.0, 2, 8)),
    (
        "ceiling_above",
        (3, 24, 6),
        {"rate_groups": 2, "gamma": "ceiling", "gamma_ceiling": 1.5},
        (0.0, 2, 24),
    ),
]

DEFAULTS = {
    "eps": 0.05,
    "eps_end": None,
    "eps_semantics": "code",
    "coeff": 1.0,
    "coeff_end": None,
    "gamma": "code",
    "gamma_ceiling": 0.45,
    "expa_source": "mean_student_teacher",
    "rate_groups": 8,
    "center_cov": False,
    "loss_form": "neg_cos",
    "precision": "fp32",
}


def coding_rate(z, alpha):
    """Returns 1/2 logdet(I + alpha Z^T Z) of one group, always with the d x d matrix."""
    eye = torch.eye(z.shape[1], dtype=z.dtype)
    return 0.5 * torch.linalg.slogdet(eye + alpha * z.T @ z)[1]


def cosine(start, end, progress):
    if end is None:
        return start
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


def similarity(teacher, student, form):
    """Returns the mean similarity of different views, pair by pair."""
    total, pairs = 0.0, 0
    for g in range(2):
        for v in range(student.shape[0]):
            if g == v:
                continue
            if form == "neg_cos":
                rows = torch.cosine_similarity(teacher[g], student[v], dim=-1)
            else:
                rows = 1 - 0.5 * ((teacher[g] - student[v]) ** 2).sum(-1)
            total, pairs = total + rows.mean(), pairs + 1
    return total / pairs


def simdino(student, teacher, config, context):
    """Returns loss, compression, and expansion."""
    progress, groups, n = context
    d = student.shape[-1]
    eps = cosine(config["eps"], config["eps_end"], progress)
    coeff = cosine(config["coeff"], config["coeff_end"], progress)
    squared = eps**2 if config["eps_semantics"] == "paper" else eps
    alpha = d / (n * squared)
    gamma = config["gamma"]
    if gamma == "code":
        gamma = (d + n) / (d * n)
    elif gamma == "theorem":
        gamma = math.sqrt(squared) * math.sqrt(n / (d * min(d, n)))
    elif gamma == "ceiling":
        rows = n // config["rate_groups"]
        directions = min(rows, d)
        even = torch.eye(directions, dtype=student.dtype) * math.sqrt(rows / directions)
        gamma = config["gamma_ceiling"] / coding_rate(even, alpha).item()

    rates = []
    for g in range(min(2, student.shape[0])):
        features = student[g]
        if config["expa_source"] == "mean_student_teacher":
            features = (features + teacher[g]) / 2
        for rows in features.chunk(groups):
            if config["center_cov"]:
                rows = rows - rows.mean(0, keepdim=True)
            rates.append(coding_rate(rows, alpha))
    expansion = gamma * torch.stack(rates).mean()
    compression = similarity(teacher, student, config["loss_form"])
    distance = 1 - compression if config["loss_form"] == "half_sq_l2" else -compression
    return coeff * distance - expansion, compression, expansion


def views(generator, shape):
    """Returns unit rows whose views of an image resemble each other and the teacher's."""
    v, b, d = shape
    image = torch.randn(1, b, d, generator=generator, dtype=torch.float64)
    student = image + torch.randn(shape, generator=generator, dtype=torch.float64)
    teacher = image + torch.randn(2, b, d, generator=generator, dtype=torch.float64)
    return normalize(student, dim=-1), normalize(teacher, dim=-1)


def rate_tensors(generator, name, shape, groups, alpha):
    z = torch.randn(groups, *shape, generator=generator, dtype=torch.float64).requires_grad_()
    value = torch.stack([coding_rate(group, alpha) for group in z])
    value.sum().backward()
    named = {"z": z, "value": value, "gradient": z.grad}
    return {f"rate/{name}/{field}": tensor for field, tensor in named.items()}


def loss_tensors(generator, name, shape, config, context):
    student, teacher = views(generator, shape)
    student.requires_grad_()
    terms = torch.stack(simdino(student, teacher, config, context))
    terms[0].backward()
    named = {"student": student, "teacher": teacher, "terms": terms, "gradient": student.grad}
    return {f"loss/{name}/{field}": tensor for field, tensor in named.items()}


def save(path, tensors, metadata):
    """Writes the safetensors format: length of the header, header, and data."""
    names = {torch.float64: "F64", torch.float32: "F32"}
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        raw = numpy.ascontiguousarray(tensor.detach().numpy()).tobytes()
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    generator = torch.Generator().manual_seed(SEED)
    tensors, cases = {}, {"rates": [], "losses": []}
    for name, shape, groups, alpha in RATES:
        tensors |= rate_tensors(generator, name, shape, groups, alpha)
        cases["rates"].append({"name": name, "alpha": alpha})
    for name, shape, changes, context in LOSSES:
        tensors |= loss_tensors(generator, name, shape, DEFAULTS | changes, context)
        progress, groups, n = context
        step = {"progress": progress, "global_batch": n}
        cases["losses"].append({"name": name, "config": changes, **step})
    metadata = {
        "script": "tools/parity/objectives.py",
        "seed": str(SEED),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cases": json.dumps(cases),
    }
    save(OUT, tensors, metadata)
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
