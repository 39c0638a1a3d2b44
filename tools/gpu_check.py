"""Runs all checks and measurements that need a GPU, in two calls.

The machine needs a GPU and Python with torch 2.11, but neither cargo nor a network.
`cargo xtask gpu-bundle` creates the folder to copy there, which contains this file and everything
that it runs.

    python3 gpu_check.py smoke OUT    at most 120 s: does everything run, with the right numbers?
    python3 gpu_check.py times OUT    at most 330 s: how fast is it, compared with PyTorch?

OUT/summary.md is the report, OUT/all.tgz has all other output except weights, and OUT/*_trace.json.gz
are the traces of a step. All are complete after every part, so a call that is stopped loses at most
one part. Every part prints a line and has its own time limit. If a part fails, it runs once more with
settings that make CUDA's errors name their place, and the others still run. Exit code: 0 everything
succeeded, 1 something failed, 2 the check could not start.
"""

import argparse
import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time

from gpu_parts import HERE, SMALL_STEP, Check, words
from gpu_summary import DINOV3, METHODS, SIZES, TESTS, is_number, json_lines

CURVES = ["simdino", "dino"]
# In bf16 with the project's own attention kernels, and in fp32 with libtorch's.
REPEATED = [("dinov2", "bf16"), ("dinov2", "fp32")]


# Does everything run?


def smoke(check):
    if check.device == "cuda":
        check.part("card", 10, ["nvidia-smi", "-q", "-d", "CLOCK,POWER,MEMORY,PERFORMANCE"])
    attention = [check.python, __file__, "attention", str(check.out), "--device", check.device]
    check.part("attention", 40, attention)
    check.part("self_check", 40, [check.simdino, "inspect", "env", "--self-check", "--json"])
    images = check.shards("train")
    jobs = [lambda n=name: check.part(n, 70, [str(HERE / "tests" / n), "--nocapture"]) for name in TESTS]
    jobs += [lambda n=name: saved_and_continued(check, n, images) for name in METHODS]
    check.together(jobs)
    jobs = [lambda m=method, p=precision: repeated(check, m, p, images) for method, precision in REPEATED]
    check.together(jobs)


def saved_and_continued(check, method, images):
    """Runs three steps, writes a checkpoint, and runs three more in a process that resumes from it."""
    settings = [*METHODS[method], f"data.path={images}", f"run.name=run_{method}", "train.log_every=1"]
    settings += ["train.checkpoint_every=3", "probe.every_epochs=null"]
    # Five of these run at the same time. If each had as many threads as the machine has cores, they
    # would wait for one another most of the time.
    settings += ["run.threads=2", "data.workers=2"]

    def went_on(steps):
        records = [r for r in json_lines(check.file(f"run_{method}/metrics.jsonl")) if "loss/total" in r]
        if [r["step"] for r in records] != list(range(1, steps + 1)):
            return f"steps {[r['step'] for r in records]} are logged, not 1 to {steps}"
        wrong = [r["step"] for r in records if not is_number(r["loss/total"], 1e6)]
        return f"the loss of steps {wrong} is not a number" if wrong else None

    def run(name, steps, resume):
        judge = lambda: went_on(steps)  # noqa: E731
        return check.train(name, 40, [*settings, f"train.stop_after={steps}"], resume, judge=judge)

    if run(f"{method}_3_steps", 3, "never"):
        run(f"{method}_continued", 6, "auto")


def repeated(check, method, precision, images):
    """Trains twice with run.deterministic; all metrics of both runs must have the same bits."""
    name = f"repeat_{method}_{precision}"
    settings = [*METHODS[method], f"train.precision={precision}", f"data.path={images}"]
    settings += ["run.deterministic=true", "train.stop_after=6", "train.log_every=1", "run.threads=2"]
    settings += ["probe.every_epochs=null", "data.workers=2"]

    def metrics(turn):
        records = json_lines(check.file(f"{name}_{turn}/metrics.jsonl"))
        timed = ("speed/", "time/", "memory/")
        return [{k: v for k, v in r.items() if not k.startswith(timed)} for r in records]

    def differs():
        first, second = metrics(1), metrics(2)
        if not first or len(first) != len(second):
            return f"{len(first)} and {len(second)} lines are logged"
        for one, other in zip(first, second, strict=True):
            for key in sorted(one | other):
                if one.get(key) != other.get(key):
                    return f"step {one['step']}: {key} is {one.get(key)}, and then {other.get(key)}"
        return None

    for turn in (1, 2):
        judge = differs if turn == 2 else None
        check.train(f"{name}_{turn}", 40, [*settings, f"run.name={name}_{turn}"], judge=judge)


def attention(device):
    """Prints the largest errors of PyTorch's attention of one query in bf16, forward and backward,
    relative to fp64, as one line of JSON. The self-check covers our own step."""
    import torch
    import torch.nn.functional as functional

    found = {}
    for tokens in (17, 37, 65, 197):
        torch.manual_seed(0)
        exact = [torch.randn(8, 6, n, 64, dtype=torch.double) for n in (1, tokens, tokens)]
        results = []
        for dtype, place in [(torch.double, "cpu"), (torch.bfloat16, device)]:
            inputs = [x.detach().to(place, dtype).requires_grad_() for x in exact]
            output = functional.scaled_dot_product_attention(*inputs)
            output.double().sin().sum().backward()
            results.append([x.detach().cpu().double() for x in [output, *(i.grad for i in inputs)]])
        pairs = zip(results[1], results[0], strict=True)
        errors = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
        found[f"T={tokens}"] = dict(zip(["out", "dq", "dk", "dv"], errors, strict=True))
    print(json.dumps(found))
    if not all(error < 0.05 for errors in found.values() for error in errors.values()):
        sys.exit("gpu_check: attention of one query is wrong in this torch; ours does not use it")


# How fast is it?


def times(check):
    check.warming = True
    warm = threading.Thread(target=warm_up, args=[check])
    warm.start()
    until = check.passed() + min(120, check.left() / 3)
    for method in CURVES:
        curve(check, method, until - check.passed())
    while warm.is_alive() and check.passed() < until:
        time.sleep(0.2)
    check.warming = False  # ends the warm-up, done or not, because what follows is timed
    warm.join()
    for size in SIZES:
        check.step(size, "simdino", 40)
        check.peer(size, "eager", 50)
        if size == "B":
            check.peer(size, "compile", 75)
            check.trace(size, 40)
    dinov3(check)
    throughput(check)
    for size in "SL":  # without a warm cache if the warm-up did not reach this size
        check.peer(size, "compile", 90)
    check.step("B", "without_cudnn", 40, {"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"})
    check.step("B", "unfused", 40, {"SIMDINO_FUSED_KERNELS": "0"})
    check.step("B", "sdpa", 40, {"SIMDINO_FUSED_ATTENTION": "0"})
    check.step("B", "libtorch_linear", 40, {"SIMDINO_FUSED_LINEAR": "0"})
    check.step("S", "no_graph", 40, keys={"train.cuda_graph": "false"})
    for method in CURVES:
        curve(check, method, check.left())


def dinov3(check):
    """Times our step with the network, crops, and batch of DINOv3's."""
    for method, recipe in DINOV3.items():
        command = [check.simdino, "bench", "step", recipe, "--shape", "dinov3_vitl16", "--json"]
        command += ["train.precision=bf16", f"run.device={check.device}", *check.counts()]
        if check.small:
            command += words(SMALL_STEP) + ["koleo.groups=2"]
            command += ["head.prototypes=64"] if method == "dinov2" else []
        check.part(f"dinov3_{method}", 45, command)


def warm_up(check):
    """Fills the cache of torch.compile, one size after the other, while nothing is timed."""

    def quietly(name, _limit, command, env):
        start = time.monotonic()
        with check.file(f"{name}.out").open("wb") as out:
            child = subprocess.Popen(
                ["nice", *command], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                env={**check.env, **env}, process_group=0,
            )  # fmt: skip
            while child.poll() is None and check.warming:
                time.sleep(0.1)
            if child.poll() is None:
                check.end(child)
        check.done(name, "ok" if child.returncode == 0 else "not done", start)

    for size in "BSL":
        if check.warming:
            counts = ["--warmup", "0", "--steps", "1"]
            check.peer(size, "compile", 0, f"{size}_warm_up", counts, quietly)


def curve(check, method, seconds):
    """Trains on CIFAR-10 with k-NN probes. When its time is over, the run writes a checkpoint and stops,
    and the next call resumes it."""
    run = check.file(f"curve_{method}")
    if (run / "results.json").exists() or seconds < 10:
        return
    settings = [*METHODS[method], f"run.name={run.name}"]
    train, test = check.shards("train"), check.shards("test")
    settings += [f"data.path={train}", f"probe.train_path={train}", f"probe.test_path={test}"]
    if check.small:
        settings.append("train.stop_after=8")
    name = f"curve_{method}" + ("_continued" if run.exists() else "")
    check.train(name, seconds, settings, "auto", fine=("ok", "late"))


def throughput(check):
    """Trains on JPEG files that are read from disk, decoded, and cropped."""
    count, side, seconds = (64, 64, 1) if check.small else (2048, 400, 6)
    images = check.drawn("photos", count, side)
    recipe = str(HERE / "configs/simdino_vits16_in1k.yaml")
    small = words(SMALL_STEP) + ["data.workers=1"] if check.small else []
    steps, log = (4, 2) if check.small else (60, 10)
    command = [check.simdino, "bench", "data", str(images), "--threads", "0", "--json"]
    check.part("data_alone", 30, [*command, "--seconds", str(seconds)])
    command = [check.simdino, "train", recipe, f"data.path={images}", "train.batch_size=128"]
    command += [f"run.device={check.device}", f"run.dir={check.work}", "run.name=trained_S", *small]
    command += [f"train.stop_after={steps}", f"train.log_every={log}", "probe.every_epochs=null"]
    check.part("trained_S", 60, command)


def gpus():
    """Returns the number of GPUs of the driver; 0 without a driver."""
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
    except OSError:
        return 0
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cannot_begin(arguments):
    """Returns a sentence about what is missing, or None."""
    if not os.access(HERE / "simdino", os.X_OK):
        return f"there is no simdino in {HERE}: make the folder with `cargo xtask gpu-bundle`"
    if importlib.util.find_spec("torch") is None:
        return f"{sys.executable} has no torch: start this with a Python that has torch 2.11"
    if arguments.device == "cuda" and gpus() == 0:
        return "this machine has no GPU that its driver sees; --device cpu --small tries all parts without"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("call", choices=["smoke", "times", "attention"])
    parser.add_argument("out", metavar="OUT", help="folder for summary.md and all.tgz")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks, to try this without a GPU")
    parser.add_argument("--seconds", type=float, help="instead of 120 and 330")
    arguments = parser.parse_args()
    if arguments.call == "attention":
        return attention(arguments.device)
    if sentence := cannot_begin(arguments):
        print(f"gpu_check: {sentence}", file=sys.stderr)
        return 2
    check = Check(arguments.call, arguments.out, arguments.device, arguments.small, arguments.seconds)
    check.publish()
    try:
        {"smoke": smoke, "times": times}[arguments.call](check)
    finally:
        check.publish()
        shutil.rmtree(check.work, ignore_errors=True)
    check.say(f"done: {check.out / 'summary.md'}")
    return 1 if check.failures or any(r == "no time left" for r, _ in check.parts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
