"""Turns what tools/gpu_check.sh left in a folder into one page of Markdown, on stdout.

    python gpu_check.py OUT

Every section says so when its part is missing; nothing here is computed again.
"""

import json
import sys
from pathlib import Path

SIZES = {"vits16": "ViT-S/16", "vitb16": "ViT-B/16"}
PROGRAMS = ["simdino", "eager", "compile"]
METHODS = {"simdino": "SimDINO", "simdinov2": "SimDINOv2", "dino": "DINO", "dinov2": "DINOv2"}


def last_json(path):
    """The last line of a file as JSON, or None."""
    try:
        lines = path.read_text().strip().splitlines()
        return json.loads(lines[-1])
    except (OSError, IndexError, ValueError):
        return None


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def self_check(out):
    found = last_json(out / "self_check.out")
    if found is None:
        return "No result: see self_check.err."
    verdict = {True: "passed", False: "FAILED"}.get(found.get("passed"), "no verdict")
    lines = [f"Verdict: **{verdict}**."]
    checks = found.get("self_check")
    if isinstance(checks, list) and checks and all(isinstance(c, dict) for c in checks):
        header = list(dict.fromkeys(key for check in checks for key in check))
        lines += ["", table(header, [[check.get(key, "") for key in header] for check in checks])]
    environment = {k: v for k, v in found.items() if k not in ("self_check", "passed")}
    lines += ["", "```json", json.dumps(environment, indent=1), "```"]
    return "\n".join(lines)


def steps(out):
    rows = []
    for size, name in SIZES.items():
        results = {p: last_json(out / f"step_{size}_{p}.out") for p in PROGRAMS}
        ours = results["simdino"]
        for program, result in results.items():
            if result is None:
                rows.append([name, program, "-", "no result", "-", "-", "-"])
                continue
            label = program if program == "simdino" else f"{result['peer']} {program}"
            ratio = f"{ours['img_s'] / result['img_s']:.2f}" if ours else "-"
            rows.append(
                [
                    name,
                    label,
                    result["device"],
                    f"{result['img_s']:.1f}",
                    f"{result['step_ms']:.1f}",
                    ratio,
                    f"{result['peak_memory_bytes'] / 2**30:.2f}",
                ]
            )
    for method, name in list(METHODS.items())[1:]:
        result = last_json(out / f"step_vits16_{method}.out")
        row = ["no result", "-", "-", "-"]
        if result is not None:
            peak = result["peak_memory_bytes"] / 2**30
            row = [f"{result['img_s']:.1f}", f"{result['step_ms']:.1f}", "-", f"{peak:.2f}"]
        rows.append([f"ViT-S/16, {name}", "simdino", result["device"] if result else "-", *row])
    header = ["model", "program", "device", "img/s", "step ms", "simdino / it", "peak GiB"]
    first = next((r for s in SIZES if (r := last_json(out / f"step_{s}_simdino.out"))), {})
    note = f"Batch {first.get('batch_size', '?')}, {first.get('precision', '?')}, random input."
    return f"{note}\n\n{table(header, rows)}"


def records_of(run):
    """Lines of a run's metrics; the last of a stopped one may be cut."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def methods(out):
    rows = []
    for method, name in METHODS.items():
        steps = [r for r in records_of(out / f"steps_{method}") if "loss/total" in r]
        if not steps:
            rows.append([name, "no result", "-", "-", "-", "-"])
            continue
        first, last = steps[0], steps[-1]
        fell = "yes" if last["loss/total"] < first["loss/total"] else "NO"
        skipped = sum(r.get("train/skipped", 0) for r in steps)
        losses = [f"{r['loss/total']:.4f}" for r in (first, last)]
        rows.append([name, last["step"], *losses, fell, int(skipped)])
    return table(["method", "steps", "first loss", "last loss", "fell", "skipped"], rows)


def curves(out):
    return "\n\n".join(curve(out, method) for method in ["simdino", "dino"])


def curve(out, method):
    name = f"cifar10_{method}"
    records = records_of(out / name)
    if not records:
        return f"**{METHODS[method]}**: no metrics, see {name}.err."
    last = records[-1]
    text = [f"**{METHODS[method]}**: last step {last.get('step')}, epoch {last.get('epoch', 0):.2f}."]
    if (out / f"{name}_stopped.out").exists():
        text.append("Stopped at the end of its time, not at the end of its schedule.")
    probes = [r for r in records if any(key.startswith("probe") for key in r)]
    if probes:
        keys = [k for k in probes[0] if k.startswith("probe")]
        rows = [
            [r.get("step"), f"{r.get('epoch', 0):.2f}", *[f"{r.get(k, 0):.4f}" for k in keys]]
            for r in probes
        ]
        text += ["", table(["step", "epoch", *keys], rows)]
    else:
        text.append("No k-NN probe was reached.")
    results = last_json_file(out / name / "results.json") or last_json(out / f"{name}_knn.out")
    if results is not None:
        text += ["", "At the end, beside its baselines:", "", "```json"]
        text += [json.dumps(results, indent=1), "```"]
    return "\n".join(text)


def last_json_file(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: gpu_check.py OUT")
    out = Path(sys.argv[1])
    print("# GPU check\n")
    failures = out / "failures.txt"
    if failures.exists():
        print("Failed parts:\n")
        for line in failures.read_text().splitlines():
            print(f"- {line}")
        print()
    for title, section in [
        ("Numbers: device against CPU", self_check),
        ("Training step", steps),
        ("Each method on CIFAR-10", methods),
        ("k-NN on CIFAR-10 at equal budget", curves),
    ]:
        print(f"## {title}\n\n{section(out)}\n")


if __name__ == "__main__":
    main()
