"""Writes a fixture of DINO, DINOv2, and SimDINOv2: complete losses and their gradients by plain
formulas in torch.

They are computed pair by pair and row by row in float64, with Sinkhorn-Knopp by plain exponentials,
and KoLeo from a table of all distances. Written from the formulas, without code of the reference
implementations.

    python tools/parity/methods.py        (torch 2.11.0)

Writes crates/objectives/tests/fixtures/methods.safetensors. Each case has two steps, so that the
second one uses the center of the first one, with inputs, terms, gradients of all outputs of the
student, and the state after the last step. All numbers are in float64.
"""

import json
import math
import platform

import torch
from objectives import DEFAULTS, OUT, save, simdino
from torch.nn.functional import cosine_similarity, log_softmax, normalize, softmax

SEED = 20262
STEPS = 2
PROTOTYPES = {
    "student_temp": 0.1,
    "teacher_temp_start": 0.04,
    "teacher_temp": 0.04,
    "teacher_temp_warmup_epochs": 0,
    "centering": "softmax",
    "center_momentum": 0.9,
}

# name, method, sizes (V, B, k, k of patches, D), masked patches of each of the 2B crops, options
CASES = [
    ("dino", "dino", (6, 5, 12, 0, 0), None, {}),
    ("dino_no_locals", "dino", (2, 3, 16, 0, 0), None, {"center_momentum": 0.5}),
    ("dino_one_image", "dino", (4, 1, 8, 0, 0), None, {}),
    ("dino_one_view", "dino", (1, 5, 8, 0, 0), None, {}),
    (
        "dino_warm_up",
        "dino",
        (3, 4, 16, 0, 0),
        None,
        {"teacher_temp": 0.07, "teacher_temp_warmup_epochs": 4, "student_temp": 0.2},
    ),
    ("dinov2", "dinov2", (5, 4, 12, 12, 7), [3, 0, 1, 5, 0, 2, 0, 0], {}),
    (
        "dinov2_warm_up",
        "dinov2",
        (4, 3, 10, 6, 5),
        [2, 2, 0, 4, 0, 0],
        {"teacher_temp": 0.07, "teacher_temp_warmup_epochs": 4, "patch_weight": 0.5},
    ),
    (
        "dinov2_sinkhorn",
        "dinov2",
        (4, 6, 9, 14, 5),
        [1, 0, 4, 0, 0, 2, 2, 0, 0, 7, 0, 0],
        {"centering": "sinkhorn_knopp"},
    ),
    ("dinov2_no_masks", "dinov2", (3, 4, 12, 12, 6), [0] * 8, {}),
    (
        "dinov2_sinkhorn_no_masks",
        "dinov2",
        (2, 4, 12, 12, 6),
        [0] * 8,
        {"centering": "sinkhorn_knopp", "koleo_weight": 0.0},
    ),
    ("simdinov2", "simdinov2", (4, 8, 16, 16, 0), [3, 0, 1, 5] + [0] * 8 + [2, 0, 0, 9], {}),
    (
        "simdinov2_koleo",
        "simdinov2",
        (3, 12, 6, 6, 5),
        [0, 2] * 12,
        {"rate_groups": 1, "koleo_weight": 0.1, "patch_weight": 2.0},
    ),
    ("simdinov2_no_masks", "simdinov2", (2, 8, 8, 8, 0), [0] * 16, {}),
    ("simdinov2_one_view", "simdinov2", (1, 8, 8, 8, 0), [0, 2] * 8, {}),
]


def temperature(method, options, step, steps_per_epoch):
    """Returns the temperature, which is linear from start to end, per epoch in DINO and per step in
    DINOv2."""
    per_step = method == "dinov2"
    length = options["teacher_temp_warmup_epochs"] * (steps_per_epoch if per_step else 1)
    now = step if per_step else step // steps_per_epoch
    if now >= length:
        return options["teacher_temp"]
    table = torch.linspace(
        options["teacher_temp_start"], options["teacher_temp"], length, dtype=torch.float64
    )
    return table[now].item()


def sinkhorn(scores, temp):
    q = torch.exp(scores / temp).T
    prototypes, rows = q.shape
    if rows == 0:
        return q.T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / prototypes
        q = q / q.sum(0, keepdim=True) / rows
    return (q * rows).T


def targets(scores, temp, options, center):
    if options["centering"] == "sinkhorn_knopp":
        return sinkhorn(scores, temp)
    return softmax((scores - center) / temp, -1)


def moved(center, scores, options):
    if options["centering"] == "sinkhorn_knopp" or scores.shape[0] == 0:
        return center
    momentum = options["center_momentum"]
    return momentum * center + (1 - momentum) * scores.mean(0, keepdim=True)


def cross_entropy(q, s, temp):
    return -(q * log_softmax(s / temp, -1)).sum(-1)


def dino_term(student, q, temp):
    terms = [
        cross_entropy(q[g], student[v], temp).mean()
        for g in range(2)
        for v in range(student.shape[0])
        if v != g
    ]
    return torch.stack(terms).mean()


def koleo(backbone):
    total = 0.0
    for view in backbone:
        x = normalize(view, dim=-1)
        for b in range(len(x)):
            others = [o for o in range(len(x)) if o != b]
            nearest = max(others, key=lambda o: (x[b] @ x[o]).item())
            distance = (x[b] - x[nearest] + 1e-8).norm()
            total = total - torch.log(distance + 1e-8) / len(x)
    return total


def patch_term(similarity, weights, crops):
    total = similarity.sum() * 0
    for value, weight in zip(similarity, weights):
        total = total - value * weight
    return total / crops


def numbers(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make_step(generator, method, sizes, masks):
    views, batch, width, patch_width, depth = sizes
    image = numbers(generator, 1, batch, width)
    made = {
        "student/cls": image + numbers(generator, views, batch, width),
        "teacher/cls": image + numbers(generator, 2, batch, width),
    }
    if masks is not None:
        count = sum(masks)
        seen = numbers(generator, count, patch_width)
        made["teacher/patches"] = seen
        made["student/patches"] = seen + numbers(generator, count, patch_width)
        weights = [1 / masked for masked in masks for _ in range(masked)]
        made["weights"] = torch.tensor(weights, dtype=torch.float64)
    if depth:
        made["student/backbone"] = numbers(generator, 2, batch, depth)
    if method == "simdinov2":
        for name in ["student/cls", "teacher/cls", "student/patches", "teacher/patches"]:
            made[name] = normalize(made[name], dim=-1)
    for name in list(made):
        if name.startswith("student/"):
            made[name].requires_grad_()
    return made


def evaluate(method, made, options, masks, step, steps_per_epoch, centers):
    """Returns the loss, and its terms by name."""
    student, teacher = made["student/cls"], made["teacher/cls"]
    batch = student.shape[1]
    terms = {}
    if method == "simdinov2":
        context = (0.0, options["rate_groups"], batch)
        cls, terms["compression"], terms["expansion"] = simdino(student, teacher, options, context)
    else:
        temp = temperature(method, options, step, steps_per_epoch)
        flat = targets(teacher.flatten(0, 1), temp, options, centers["center"])
        cls = dino_term(student, flat.view_as(teacher), options["student_temp"])
        terms["cls"] = cls
    loss = cls
    if masks is not None and options["patch_weight"] > 0:
        s, t = made["student/patches"], made["teacher/patches"]
        if method == "simdinov2":
            similarity = cosine_similarity(s, t, dim=-1)
        else:
            q = targets(t, temp, options, centers["patch_center"])
            similarity = -cross_entropy(q, s, options["student_temp"])
        terms["patches"] = patch_term(similarity, made["weights"], len(masks))
        loss = loss + options["patch_weight"] * terms["patches"]
    if options.get("koleo_weight", 0) > 0:
        terms["koleo"] = koleo(made["student/backbone"])
        loss = loss + options["koleo_weight"] * terms["koleo"]
    return {"total": loss} | terms


def defaults(method):
    if method == "simdinov2":
        return DEFAULTS | {"patch_weight": 1.0, "koleo_weight": 0.0}
    if method == "dinov2":
        return PROTOTYPES | {"patch_weight": 1.0, "koleo_weight": 0.1}
    return PROTOTYPES


def make_case(generator, name, method, sizes, masks, changes):
    options = defaults(method) | changes
    width, patch_width = sizes[2], sizes[3]
    centers = {
        "center": torch.zeros(1, width, dtype=torch.float64),
        "patch_center": torch.zeros(1, patch_width, dtype=torch.float64),
    }
    tensors, steps = {}, []
    for index in range(STEPS):
        step, steps_per_epoch = [(3, 5), (11, 5)][index]
        made = make_step(generator, method, sizes, masks)
        terms = evaluate(method, made, options, masks, step, steps_per_epoch, centers)
        terms["total"].backward()
        at = f"{name}/{index}"
        tensors |= {f"{at}/{key}": tensor for key, tensor in made.items()}
        tensors |= {f"{at}/term/{key}": torch.as_tensor(term) for key, term in terms.items()}
        for key, tensor in made.items():
            if tensor.requires_grad and tensor.grad is not None:
                tensors[f"{at}/gradient/{key}"] = tensor.grad
        if method != "simdinov2":
            centers["center"] = moved(centers["center"], made["teacher/cls"].flatten(0, 1), options)
        if method == "dinov2":
            patches = made["teacher/patches"]
            centers["patch_center"] = moved(centers["patch_center"], patches, options)
        steps.append({"step": step, "steps_per_epoch": steps_per_epoch})
    if options.get("centering") == "softmax":
        tensors[f"{name}/state/center"] = centers["center"]
        if method == "dinov2":
            tensors[f"{name}/state/patch_center"] = centers["patch_center"]
    case = {"name": name, "method": method, "options": options, "steps": steps}
    return tensors, case | {"global_batch": sizes[1], "crops": len(masks or [])}


def main():
    generator = torch.Generator().manual_seed(SEED)
    tensors, cases = {}, []
    for case in CASES:
        made, description = make_case(generator, *case)
        tensors |= made
        cases.append(description)
    metadata = {
        "script": "tools/parity/methods.py",
        "seed": str(SEED),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cases": json.dumps(cases),
    }
    path = OUT.with_name("methods.safetensors")
    save(path, tensors, metadata)
    assert math.isfinite(sum(t.detach().sum().item() for t in tensors.values()))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
