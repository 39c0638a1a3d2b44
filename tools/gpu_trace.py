"""Summarizes where a training step spends its time on a GPU.

Prints tables of a trace that `simdino bench step --trace` or torch.profiler wrote.

    python3 tools/gpu_trace.py TRACE.json --steps 3
"""

import argparse
import collections
import gzip
import json
import re
import sys
from pathlib import Path

DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
# Exceptions of reading a trace that is truncated or has another form.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
WAITS = ("Synchronize", "cudaMemcpy", "cudaMalloc", "cudaFree")


def load(path):
    opened = gzip.open if str(path).endswith(".gz") else open
    with opened(path, "rt") as file:
        return [e for e in json.load(file)["traceEvents"] if e.get("ph") == "X" and e.get("cat")]


def busy(events):
    """Returns the microseconds in which at least one event ran, and those from the first to the
    last."""
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events)
    total, until = 0.0, spans[0][0]
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total, until - spans[0][0]


def short(name):
    """Returns a kernel's name without namespaces and most template arguments."""
    name = re.sub(r"^void ", "", name)
    name = re.sub(r"\b(at::native|at|c10|std|cutlass|cudnn|\(anonymous namespace\))::", "", name)
    return name if len(name) <= 110 else name[:107] + "..."


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def grouped(events, name, steps, most):
    """Returns rows of name, milliseconds, and launches per step, the longest first."""
    groups = collections.defaultdict(lambda: [0.0, 0])
    for event in events:
        group = groups[name(event)]
        group[0] += event["dur"]
        group[1] += 1
    ordered = sorted(groups.items(), key=lambda item: -item[1][0])
    rows = [(n, f"{t / 1e3 / steps:.3f}", f"{count / steps:.1f}") for n, (t, count) in ordered[:most]]
    rest = ordered[most:]
    if rest:
        rows.append((
            f"{len(rest)} others",
            f"{sum(t for _, (t, _) in rest) / 1e3 / steps:.3f}",
            f"{sum(count for _, (_, count) in rest) / steps:.1f}",
        ))  # fmt: skip
    return rows


def tables(events, steps, most=40):
    """Returns Markdown: how busy the device was, its time by operator and by kernel, and what the
    host waited for."""
    device = [e for e in events if e["cat"] in DEVICE]
    if not device:
        return "The trace has no event of a GPU."
    identity = lambda e: e.get("args", {}).get("External id")  # noqa: E731
    launchers = [e for e in events if e["cat"] == "cpu_op" and identity(e) is not None]
    operators = {identity(e): e["name"] for e in launchers}
    total, wall = busy(device)
    text = [
        f"{wall / 1e3 / steps:.2f} ms per step, of which the GPU was busy {100 * total / wall:.1f}%; "
        f"{len(device) / steps:.0f} kernels and copies per step."
    ]
    launcher = lambda e: operators.get(identity(e), "?")  # noqa: E731
    header = ["operator that launched it", "ms", "launches"]
    text.append(table(header, grouped(device, launcher, steps, most)))
    text.append(table(["kernel", "ms", "launches"], grouped(device, lambda e: short(e["name"]), steps, most)))
    host = [e for e in events if e["cat"] == "cuda_runtime" and any(w in e["name"] for w in WAITS)]
    text.append(table(["the host in", "ms", "calls"], grouped(host, lambda e: e["name"], steps, most)))
    return "\n\n".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path, metavar="TRACE")
    parser.add_argument("--steps", type=int, default=3, help="steps in the trace (3)")
    parser.add_argument("--most", type=int, default=40, help="rows of a table (40)")
    arguments = parser.parse_args()
    try:
        print(tables(load(arguments.trace), arguments.steps, arguments.most))
    except UNREADABLE as error:
        sys.exit(f"gpu_trace: cannot read {arguments.trace}: {error!r}")


if __name__ == "__main__":
    main()
