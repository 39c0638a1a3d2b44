"""The summary of a GPU check: its parts, and tables of their results."""

import contextlib
import json
import statistics
from pathlib import Path

H100_BF16 = 989e12  # dense FLOP/s, from the data sheet
# depth and width; as in crates/model/src/config.rs
ARCHS = {"vit_nano": (4, 128), "vit_small": (12, 384), "vit_base": (12, 768), "vit_large": (24, 1024)}
SIZES = {"B": "ViT-B/16", "L": "ViT-L/16", "S": "ViT-S/16"}
METHODS = {
    "simdino": ["method=simdino"],
    "simdinov2": ["method=simdinov2"],
    "dino": ["method=dino", "head.prototypes=4096"],
    "dinov2": ["method=dinov2", "head.prototypes=4096"],
    "dinov2_sinkhorn": ["method=dinov2", "head.prototypes=4096", "dino.centering=sinkhorn_knopp"],
}
# Recipes whose step is timed with the sizes of DINOv3, whose losses are those of DINOv2.
DINOV3 = {"simdino": "simdino_vitl16_in1k", "dinov2": "dinov2_vitl16_short_in1k"}
# img/s per H100 of that step, with 32 GPUs: from 0.57 s for 2,048 images in the header of its
# config (facebookresearch/dinov3@98b38de), and from 14 hours for 125,000 such steps in its README.
DINOV3_REPORTED = (112, 159)
TESTS = ["nccl", "reducer", "runtime", "foreach", "fused", "attention", "linear", "transfer", "graph"]
# Our step with one part computed differently.
OTHERWISE = {
    "without_cudnn": "simdino, attention not by cuDNN",
    "unfused": "simdino, without fused kernels",
    "sdpa": "simdino, without own attention",
    "libtorch_linear": "simdino, linear layers by libtorch's kernels",
    "no_graph": "simdino, without CUDA graphs",
}


def flops_per_image(config):
    """Returns the FLOPs of a training step: the teacher's forward pass on the global crops, and three
    times the student's on all crops. A block has 24 T D^2 + 4 T^2 D, and the patch embedding has
    2 N D C P^2; heads and losses are not counted.
    """
    model, augment = config["model"], config["augment"]
    depth, width = ARCHS[model["arch"]]
    patch = model["patch_size"]

    def forward(side):
        patches = (side // patch) ** 2
        tokens = patches + 1
        block = 24 * tokens * width**2 + 4 * tokens**2 * width
        return depth * block + 2 * patches * width * model.get("in_channels", 3) * patch**2

    global_crops = 2 * forward(augment["global_crops_size"])
    local_crops = augment["local_crops_number"] * forward(augment["local_crops_size"])
    return global_crops + 3 * (global_crops + local_crops)


def crops_of(config):
    augment = config["augment"]
    return (
        f"2 x {augment['global_crops_size']} + "
        f"{augment['local_crops_number']} x {augment['local_crops_size']}"
    )


def last_json(path):
    """Returns the last line of a file as JSON, or None."""
    try:
        return json.loads(Path(path).read_text().strip().splitlines()[-1])
    except (OSError, IndexError, ValueError):
        return None


def json_lines(path):
    """Returns the lines of a run's metrics; the last line of a stopped run may be incomplete."""
    records = []
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
    return records


def is_number(value, most=float("inf")):
    """Returns whether a metric is a number below `most`; the program writes null for NaN and
    infinity."""
    return value is not None and abs(value) < most


def shown(value):
    return "-" if value is None else f"{value:.4f}"


def tail_of(path, lines=25):
    with contextlib.suppress(OSError):
        return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])[-6000:]
    return ""


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows])


def summary(check):
    text = [f"# GPU check: {check.call}", f"{check.passed():.0f} s of {check.seconds}, {check.device}."]
    sections = {
        "smoke": [("Card", card), ("Numbers", numbers), ("Tests", tests), ("Methods", methods)],
        "times": [
            ("Training step", steps), ("DINOv3's step", dinov3), ("Training from files", trained), ("k-NN on CIFAR-10", curves),
            ("Where the time of ViT-B/16's step goes", traced),
        ],
    }
    for title, section in sections[check.call]:
        text.append(f"## {title}\n\n{section(check)}")
    rows = [[name, result, f"{seconds:.1f}"] for name, (result, seconds) in check.parts.items()]
    text.append("## Parts\n\n" + table(["part", "result", "s"], rows))
    for name, result, tail in check.failures:
        text.append(f"### {name}: {result}\n\n```text\n{tail}\n```")
    return "\n\n".join(text) + "\n"


def card(check):
    wanted = ("Product Name", "Graphics", "SM", "Memory", "Current Power Limit", "Total", "Instantaneous")
    lines = [" ".join(line.split()) for line in tail_of(check.file("card.out"), 400).splitlines()]
    chosen = [line for line in lines if line.startswith(wanted)]
    return "\n".join(f"- {line}" for line in chosen[:24]) or "No answer of nvidia-smi."


def numbers(check):
    text = ["PyTorch's attention of one query in bf16, errors: "]
    text[0] += json.dumps(last_json(check.file("attention.out")) or "no result")
    found = last_json(check.file("self_check.out"))
    if found is None:
        return "\n\n".join([*text, "Self-check: no result."])
    text.append(f"Self-check {'passed' if found.get('passed') else '**FAILED**'}.")
    checks = [c for c in found.get("self_check") or [] if isinstance(c, dict)]
    if checks:
        header = list(dict.fromkeys(key for one in checks for key in one))
        text.append(table(header, [[one.get(key, "") for key in header] for one in checks]))
    return "\n\n".join(text)


def tests(check):
    rows = []
    for name in TESTS:
        lines = tail_of(check.file(f"{name}.out"), 200).splitlines()
        said = [x for x in lines if x.startswith("test result") or "skipped:" in x]
        rows.append([name, "; ".join(said) or "no result"])
    return table(["test", "says"], rows)


def methods(check):
    rows = []
    for name in METHODS:
        records = [r for r in json_lines(check.file(f"run_{name}/metrics.jsonl")) if "loss/total" in r]
        losses = " ".join(shown(r["loss/total"]) for r in records)
        rows.append([name, losses or "no step", check.parts.get(f"{name}_continued", ("-",))[0]])
    return table(["method, bf16", "losses of steps 1 to 3, and from the checkpoint on", "continued"], rows)


def steps(check):
    rows, crops = [], None
    for size, model in SIZES.items():
        ours = last_json(check.file(f"{size}_simdino.out"))
        config = json.loads(check.file(f"{size}.json").read_text()) if ours else None
        for program in ["simdino", *OTHERWISE, "eager", "compile"]:
            result = last_json(check.file(f"{size}_{program}.out"))
            if result is None and program in OTHERWISE:
                continue
            if result is None:
                rows.append([model, program, "no result", "-", "-", "-", "-"])
                continue
            config = config or json.loads(check.file(f"{size}.json").read_text())
            crops = crops_of(config)
            label = OTHERWISE.get(program, program)
            label = f"{result['peer']} {program}" if "peer" in result else label
            mfu = result["img_s"] * flops_per_image(config) / H100_BF16
            ratio = f"{ours['img_s'] / result['img_s']:.2f}" if ours else "-"
            gib = f"{result['peak_memory_bytes'] / 2**30:.1f}"
            of = f"{model}, {result['batch_size']}"
            row = [of, label, f"{result['step_ms']:.1f}", f"{result['img_s']:.0f}", f"{100 * mfu:.1f}"]
            rows.append([*row, ratio, gib])
    header = ["model, batch", "program", "step ms", "img/s", "MFU %", "simdino / it", "peak GiB"]
    note = f"Random input, {crops or 'no'} crops. MFU is of an H100's {H100_BF16 / 1e12:.0f} TFLOP/s."
    return f"{note}\n\n{table(header, rows)}"


def dinov3(check):
    rows = []
    for method in DINOV3:
        result = last_json(check.file(f"dinov3_{method}.out"))
        if result is None:
            rows.append([method, "no result", "-", "-", "-", "-"])
            continue
        mfu = "-"
        if "config" in result:
            mfu = f"{100 * result['img_s'] * flops_per_image(result['config']) / H100_BF16:.1f}"
        times = " to ".join(f"{result['img_s'] / reported:.2f}" for reported in reversed(DINOV3_REPORTED))
        gib = f"{result['peak_memory_bytes'] / 2**30:.1f}"
        rows.append([method, f"{result['step_ms']:.1f}", f"{result['img_s']:.0f}", mfu, times, gib])
    low, high = DINOV3_REPORTED
    note = f"ViT-L/16, 2 x 224 + 8 x 96 crops, batch 64. DINOv3 reports {low} to {high} img/s per H100."
    header = ["losses", "step ms", "img/s", "MFU %", "img/s / reported", "peak GiB"]
    return f"{note}\n\n{table(header, rows)}"


def traced(check):
    return tail_of(check.file("B_trace.md"), 400) or "No trace."


def trained(check):
    records = json_lines(check.file("trained_S/metrics.jsonl"))
    lines = [r for r in records if is_number(r.get("speed/img_s"))][1:]
    if not lines:
        return "No result."
    middle = lambda key: statistics.median(r[key] for r in lines if is_number(r.get(key)))  # noqa: E731
    alone = last_json(check.file("data_alone.out")) or {}
    step = last_json(check.file("S_simdino.out")) or {}
    rows = [
        ["training, data and step", f"{middle('speed/img_s'):.0f}"],
        ["the step alone", f"{step['img_s']:.0f}" if step else "no result"],
        ["the pipeline alone, all cores", f"{alone['pipeline'][0]['img_s']:.0f}" if alone else "no result"],
    ]
    wait = 100 * middle("speed/data_wait")
    return f"ViT-S/16; {wait:.0f}% of a step is waiting for data.\n\n" + table(["what", "img/s"], rows)


def curves(check):
    text = []
    for run in sorted(check.work.glob("curve_*/")):
        records = json_lines(run / "metrics.jsonl")
        probes = [r for r in records if any(key.startswith("probe") for key in r)]
        last = records[-1] if records else {}
        text.append(f"**{run.name}**: step {last.get('step', 0)}, epoch {last.get('epoch', 0):.2f}.")
        if probes:
            keys = [key for key in probes[0] if key.startswith("probe")]
            rows = [[r["step"], f"{r['epoch']:.1f}", *(shown(r.get(k)) for k in keys)] for r in probes]
            text.append(table(["step", "epoch", *keys], rows))
        if (run / "results.json").exists():
            text.append("```json\n" + (run / "results.json").read_text() + "\n```")
    return "\n\n".join(text) or "No run."
