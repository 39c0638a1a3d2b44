"""All that is worth a GPU's time, in two calls, on a machine that has a GPU and Python with torch 2.11
and nothing else of ours: no cargo, no network. `cargo xtask gpu-bundle` makes the folder that travels;
this file lies in it beside what it runs.

    python3 gpu_check.py smoke OUT    at most 90 s: does everything run, and give the right numbers?
    python3 gpu_check.py times OUT    at most 330 s: how fast is it, beside PyTorch?

OUT/summary.md is what to read, OUT/all.tgz holds everything else that was written, but weights, and
OUT/trace_*.json.gz the traces of a step. All are whole after every part, so that a call that is stopped loses one part at most. Every part prints a
line, has a limit of its own, and leaves the others to run where it fails: it is then run once more with
what makes CUDA's errors name their place. Exit code: 0 all went well, 1 not, 2 it could not begin.
"""

import argparse
import contextlib
import ctypes
import glob
import gzip
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gpu_trace

HERE = Path(__file__).resolve().parent
SECONDS = {"smoke": 90, "times": 330}
RESERVE = 8  # seconds kept for the last summary, and for a part that has to be killed
TRACED_STEPS = 3  # as crates/cli/src/commands/bench/step.rs
PATIENCE = 5  # seconds that a part has to end by itself once it is asked to
TRACED = {"CUDA_LAUNCH_BLOCKING": "1", "TORCH_SHOW_CPP_STACKTRACES": "1"}
LARGEST_FILE, LARGEST_ARCHIVE = 2 << 20, 15 << 20  # bytes that go into all.tgz, and of it
H100_BF16 = 989e12  # dense FLOP/s, as the maker states them
# depth and width; as crates/model/src/config.rs
ARCHS = {"vit_nano": (4, 128), "vit_small": (12, 384), "vit_base": (12, 768), "vit_large": (24, 1024)}
SIZES = {"B": "ViT-B/16", "L": "ViT-L/16", "S": "ViT-S/16"}
METHODS = {
    "simdino": ["method=simdino"],
    "simdinov2": ["method=simdinov2"],
    "dino": ["method=dino", "head.prototypes=4096"],
    "dinov2": ["method=dinov2", "head.prototypes=4096"],
    "dinov2_sinkhorn": ["method=dinov2", "head.prototypes=4096", "dino.centering=sinkhorn_knopp"],
}
TESTS = ["nccl", "reducer", "runtime", "foreach", "fused", "attention", "transfer"]
CURVES = ["simdino", "dino"]
# Our step with a part of it computed in another way.
OTHERWISE = {
    "without_cudnn": "simdino, attention not by cuDNN",
    "unfused": "simdino, without fused kernels",
    "sdpa": "simdino, without own attention",
}
# For a try without a GPU: the same parts, of networks that a processor trains at once.
SMALL_STEP = {
    "model.arch": "vit_nano", "model.image_size": 32, "model.patch_size": 8,
    "augment.global_crops_size": 32, "augment.local_crops_size": 16, "augment.local_crops_number": 2,
    "head.hidden_dim": 64, "head.out_dim": 32, "simdino.rate_groups": 2, "train.batch_size": 16,
    "run.threads": 1,
}  # fmt: skip
SMALL_RUN = {
    "model.arch": "vit_nano", "augment.local_crops_number": 2, "head.hidden_dim": 64,
    "head.out_dim": 32, "simdino.rate_groups": 2, "train.batch_size": 32, "train.epochs": 2,
    "probe.max_train": 200, "probe.max_test": 100, "data.workers": 1, "run.threads": 1,
}  # fmt: skip


def flops_per_image(config):
    """Of a training step: the teacher forward on the global crops, the student three times that on
    all. 24 T D^2 + 4 T^2 D a block and 2 N D C P^2 for the patches; heads and losses are not counted.
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
    """The last line of a file as JSON, or None."""
    try:
        return json.loads(Path(path).read_text().strip().splitlines()[-1])
    except (OSError, IndexError, ValueError):
        return None


def json_lines(path):
    """Lines of a run's metrics; the last of a stopped one may be cut."""
    records = []
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
    return records


def tail_of(path, lines=25):
    with contextlib.suppress(OSError):
        return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])[-6000:]
    return ""


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows])


def words(settings):
    return [f"{key}={value}" for key, value in settings.items()]


class Check:
    """One call: runs parts, and keeps OUT up to date."""

    def __init__(self, call, out, device="cuda", small=False, seconds=None):
        self.call, self.out, self.device, self.small = call, Path(out).resolve(), device, small
        self.began, self.seconds = time.monotonic(), seconds or SECONDS[call]
        self.work = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        self.parts, self.failures, self.lock = {}, [], threading.Lock()
        self.simdino, self.python = str(HERE / "simdino"), sys.executable
        torch = importlib.util.find_spec("torch")
        libraries = [str(Path(p) / "lib") for p in (torch.submodule_search_locations if torch else [])]
        libraries += [os.environ[v] for v in ["LD_LIBRARY_PATH"] if os.environ.get(v)]
        self.env = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries), "PYTHONUNBUFFERED": "1"}
        # Compiling for a processor takes minutes and shows nothing of a GPU.
        self.env |= {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"} if small else {}
        self.out.mkdir(parents=True, exist_ok=True)

    def passed(self):
        return time.monotonic() - self.began

    def left(self):
        return self.seconds - RESERVE - self.passed()

    def say(self, text):
        print(f"[{self.passed():5.1f} s] {text}", flush=True)

    def file(self, name):
        return self.work / name

    # Running

    def process(self, name, limit, command, env):
        """Runs a command to its end or its limit: "ok", "late" or its exit status. Output goes to
        files. In a group of its own, so that its children end with it."""
        with self.file(f"{name}.out").open("wb") as out, self.file(f"{name}.err").open("wb") as err:
            try:
                child = subprocess.Popen(
                    command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=self.work,
                    env={**self.env, **env}, process_group=0,
                )  # fmt: skip
            except OSError as error:
                err.write(f"cannot start {command[0]}: {error}".encode())
                return 127
            try:
                status = child.wait(limit)
            except subprocess.TimeoutExpired:
                self.end(child)
                return "late"
        return "ok" if status == 0 else status

    @staticmethod
    def end(child):
        for sign, patience in [(signal.SIGTERM, PATIENCE), (signal.SIGKILL, None)]:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(child.pid, sign)
                child.wait(patience)
                return

    def part(self, name, limit, command, env=None, fine=("ok",), judge=None):
        """Runs one part, once more with traces if it fails, and says how it went. `judge` gives what
        is wrong with what it left, or None. True if all is well."""
        if self.small and "late" not in fine:
            limit *= 5  # a small machine may take longer, within the whole
        limit, start = min(limit, self.left()), time.monotonic()
        if limit < 5:
            return self.done(name, "no time left", 0.0)
        status = self.process(name, limit, command, env or {})
        wrong = judge() if judge and status in fine else None
        if status in fine and not wrong:
            return self.done(name, "ok" if status == "ok" else f"ended as it should ({status})", start)
        if status == "late":
            return self.done(name, f"stopped after its limit of {limit:.0f} s", start, name)
        result = wrong or f"exit status {status}"
        if not wrong and self.left() > 8:
            again = f"{name}_again"
            self.process(again, min(limit, self.left()), command, {**(env or {}), **TRACED})
            return self.done(name, result, start, again)
        return self.done(name, result, start, name)

    def done(self, name, result, start, failed=None):
        seconds = time.monotonic() - start if start else 0.0
        with self.lock:
            self.parts[name] = (result, seconds)
            if failed:
                tail = tail_of(self.file(f"{failed}.err")) or tail_of(self.file(f"{failed}.out"))
                self.failures.append((name, result, tail))
            well = result.startswith(("ok", "ended as"))
            # First the files: who reads the line may end the machine.
            self.publish()
            self.say(f"{name}: {result}" + (f", {seconds:.1f} s" if seconds else ""))
        return well

    def together(self, jobs):
        with ThreadPoolExecutor(2 if self.small else len(jobs)) as pool:
            for job in [pool.submit(job) for job in jobs]:
                job.result()

    # What it leaves

    def publish(self):
        """Rewrites both files of OUT; each is the old or the new one at any moment."""
        fresh = self.out / "summary.md.tmp"
        fresh.write_text(summary(self))
        fresh.replace(self.out / "summary.md")
        fresh = self.out / "all.tgz.tmp"
        if self.archive(fresh, LARGEST_FILE) > LARGEST_ARCHIVE:
            self.archive(fresh, 64 << 10)
        fresh.replace(self.out / "all.tgz")

    def archive(self, path, largest):
        with tarfile.open(path, "w:gz", compresslevel=6) as tar:
            tar.add(self.out / "summary.md", "summary.md")
            for file in sorted(self.work.rglob("*")):
                # A part that runs beside this one may take a file away, or be writing it.
                with contextlib.suppress(OSError):
                    name = file.relative_to(self.work)
                    wanted = file.suffix != ".safetensors" and name.parts[0] != "cache"
                    if wanted and file.is_file() and file.stat().st_size <= largest:
                        info = tar.gettarinfo(file, str(name))
                        content = file.read_bytes()[: info.size]
                        info.size = len(content)
                        with tempfile.SpooledTemporaryFile() as held:
                            held.write(content)
                            held.seek(0)
                            tar.addfile(info, held)
        return path.stat().st_size

    # What parts are made of

    def shards(self, which):
        """CIFAR-10 of the bundle, one shard of it where one will do; drawn images where it has none."""
        found = sorted(glob.glob(str(HERE / f"shards/cifar10-{which}-*.tar.gz")))
        one = self.call == "smoke" or self.small or which == "test"
        if found:
            return found[0] if one else f"{HERE}/shards/cifar10-{which}-*.tar.gz"
        return str(self.drawn(which, 400, 32))

    def drawn(self, name, count, side):
        folder = self.file(f"cache/{name}")
        if not folder.exists():
            command = [self.simdino, "data", "synth", str(folder), "--count", count, "--size", side]
            self.part(f"draw_{name}", 40, [*map(str, command), "--seed", str(len(name))])
        return folder / "images"

    def train(self, name, limit, settings, resume="never", **more):
        small = words(SMALL_RUN) if self.small else []
        command = [self.simdino, "train", str(HERE / "configs/cifar10_gpu.yaml"), *settings, *small]
        command += [f"run.device={self.device}", f"run.dir={self.work}", "--resume", resume]
        return self.part(name, limit, command, **more)

    def config(self, size):
        config = json.loads((HERE / f"peers/{size}.json").read_text())
        for key, value in SMALL_STEP.items() if self.small else []:
            section, name = key.split(".")
            config[section][name] = value
        config["run"]["device"] = self.device
        path = self.file(f"{size}.json")
        path.write_text(json.dumps(config))
        return config, path

    def step(self, size, name, limit, env=None, counts=None):
        """Our step, on the config that the peers get: its few keys that are not the recipe's."""
        config, _ = self.config(size)
        recipe = HERE / f"configs/simdino_vit{size.lower()}16_in1k.yaml"
        keys = {"train.batch_size": config["train"]["batch_size"], "train.accumulate": 1}
        keys |= {"train.precision": config["train"]["precision"], "run.device": self.device}
        command = [self.simdino, "bench", "step", str(recipe), *words(keys)]
        command += words(SMALL_STEP) if self.small else []
        self.part(f"{size}_{name}", limit, [*command, "--json", *(counts or self.counts())], env)

    def trace(self, size, limit):
        """Where the time of our step goes; the trace itself lies in OUT."""
        name = f"{size}_trace"
        trace, counts = self.file("cache") / f"{name}.json", ["--warmup", "5", "--steps", "1"]
        trace.parent.mkdir(exist_ok=True)
        self.step(size, "trace", limit, counts=[*counts, "--trace", str(trace)])
        if trace.exists():
            (self.out / f"{name}.json.gz").write_bytes(gzip.compress(trace.read_bytes(), 6))
            self.file(f"{name}.md").write_text(gpu_trace.tables(gpu_trace.load(trace), TRACED_STEPS))

    def counts(self):
        return ["--warmup", "1", "--steps", "3"] if self.small else ["--warmup", "5", "--steps", "20"]

    def peer(self, size, mode, limit, name=None, counts=None, part=None):
        _, path = self.config(size)
        command = [self.python, str(HERE / "step.py"), "--config-json", f"@{path}"]
        command += ["--device", self.device, "--mode", mode, *(counts or self.counts())]
        env = {"TORCHINDUCTOR_CACHE_DIR": str(self.file("cache/inductor"))}
        return (part or self.part)(name or f"{size}_{mode}", limit, command, env)


# Does everything run?


def smoke(check):
    if check.device == "cuda":
        check.part("card", 10, ["nvidia-smi", "-q", "-d", "CLOCK,POWER,MEMORY,PERFORMANCE"])
    attention = [check.python, __file__, "attention", str(check.out), "--device", check.device]
    check.part("attention", 40, attention)
    check.part("self_check", 40, [check.simdino, "inspect", "env", "--self-check", "--json"])
    images = check.shards("train")
    jobs = [lambda n=name: check.part(n, 40, [str(HERE / "tests" / n), "--nocapture"]) for name in TESTS]
    jobs += [lambda n=name: saved_and_continued(check, n, images) for name in METHODS]
    check.together(jobs)


def saved_and_continued(check, method, images):
    """Three steps, a checkpoint, and three more by a process that starts from it."""
    settings = [*METHODS[method], f"data.path={images}", f"run.name=run_{method}", "train.log_every=1"]
    settings += ["train.checkpoint_every=3", "probe.every_epochs=null"]
    # Five run side by side: with as many threads each as the machine has cores they would wait for one
    # another most of the time.
    settings += ["run.threads=2", "data.workers=2"]

    def went_on(steps):
        records = [r for r in json_lines(check.file(f"run_{method}/metrics.jsonl")) if "loss/total" in r]
        if [r["step"] for r in records] != list(range(1, steps + 1)):
            return f"steps {[r['step'] for r in records]} are logged, not 1 to {steps}"
        wrong = [r["step"] for r in records if not abs(r["loss/total"]) < 1e6]
        return f"the loss of steps {wrong} is not a number" if wrong else None

    def run(name, steps, resume):
        judge = lambda: went_on(steps)  # noqa: E731
        return check.train(name, 40, [*settings, f"train.stop_after={steps}"], resume, judge=judge)

    if run(f"{method}_3_steps", 3, "never"):
        run(f"{method}_continued", 6, "auto")


def attention(device):
    """Attention of one query in bf16, there and back, as PyTorch dispatches it: largest errors
    relative to fp64, one line of JSON. What our own step does is in the self-check."""
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
    check.warming = False  # ends it, done or not: what follows is timed
    warm.join()
    for size in SIZES:
        check.step(size, "simdino", 40)
        check.peer(size, "eager", 50)
        if size == "B":
            check.peer(size, "compile", 75)
            check.trace(size, 40)
    throughput(check)
    for size in "SL":  # cold, where the warm-up did not come to it
        check.peer(size, "compile", 90)
    check.step("B", "without_cudnn", 40, {"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"})
    check.step("B", "unfused", 40, {"SIMDINO_FUSED_KERNELS": "0"})
    check.step("B", "sdpa", 40, {"SIMDINO_FUSED_ATTENTION": "0"})
    for method in CURVES:
        curve(check, method, check.left())


def warm_up(check):
    """Fills the cache of torch.compile, one size after the other, beside what is not timed."""

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
    """k-NN on CIFAR-10 while training. Where its time ends a run writes a checkpoint and stops, and the
    next call goes on from there."""
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
    """Training on JPEG files as they are taken from a disk, decoded and cropped."""
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


# The summary


def summary(check):
    text = [f"# GPU check: {check.call}", f"{check.passed():.0f} s of {check.seconds}, {check.device}."]
    sections = {
        "smoke": [("Card", card), ("Numbers", numbers), ("Tests", tests), ("Methods", methods)],
        "times": [
            ("Training step", steps), ("Training from files", trained), ("k-NN on CIFAR-10", curves),
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
        losses = " ".join(f"{r['loss/total']:.4f}" for r in records)
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


def traced(check):
    return tail_of(check.file("B_trace.md"), 400) or "No trace."


def trained(check):
    lines = [r for r in json_lines(check.file("trained_S/metrics.jsonl")) if "speed/img_s" in r][1:]
    if not lines:
        return "No result."
    middle = lambda key: statistics.median(r[key] for r in lines)  # noqa: E731
    alone = last_json(check.file("data_alone.out")) or {}
    step = last_json(check.file("S_simdino.out")) or {}
    rows = [
        ["training, data and step", f"{middle('speed/img_s'):.0f}"],
        ["the step alone", f"{step['img_s']:.0f}" if step else "no result"],
        ["the pipeline alone, all cores", f"{alone['pipeline'][0]['img_s']:.0f}" if alone else "no result"],
    ]
    wait = 100 * middle("speed/data_wait")
    return f"ViT-S/16; {wait:.0f} % of a step is waiting for data.\n\n" + table(["what", "img/s"], rows)


def curves(check):
    text = []
    for run in sorted(check.work.glob("curve_*/")):
        records = json_lines(run / "metrics.jsonl")
        probes = [r for r in records if any(key.startswith("probe") for key in r)]
        last = records[-1] if records else {}
        text.append(f"**{run.name}**: step {last.get('step', 0)}, epoch {last.get('epoch', 0):.2f}.")
        if probes:
            keys = [key for key in probes[0] if key.startswith("probe")]
            rows = [[r["step"], f"{r['epoch']:.1f}", *(f"{r.get(k, 0):.4f}" for k in keys)] for r in probes]
            text.append(table(["step", "epoch", *keys], rows))
        if (run / "results.json").exists():
            text.append("```json\n" + (run / "results.json").read_text() + "\n```")
    return "\n\n".join(text) or "No run."


def gpus():
    """How many GPUs the driver has; 0 without a driver."""
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
    except OSError:
        return 0
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cannot_begin(arguments):
    """What is missing, in a sentence, or None."""
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
    parser.add_argument("--seconds", type=float, help="instead of 90 and 330")
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
