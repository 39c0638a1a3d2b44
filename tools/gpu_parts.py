"""Runs the parts of a GPU check, each with its own time limit, and collects their output."""

import contextlib
import glob
import gzip
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gpu_trace
from gpu_summary import summary, tail_of

HERE = Path(__file__).resolve().parent
SECONDS = {"smoke": 120, "times": 330}
RESERVE = 8  # seconds reserved for the last summary, and for killing a part
TRACED_STEPS = 3  # as in crates/cli/src/commands/bench/step.rs
PATIENCE = 5  # seconds that a part has to exit after a request
TRACED = {"CUDA_LAUNCH_BLOCKING": "1", "TORCH_SHOW_CPP_STACKTRACES": "1"}
LARGEST_FILE, LARGEST_ARCHIVE = 2 << 20, 15 << 20  # bytes of a file in all.tgz, and of all.tgz
# For trial runs without a GPU: networks that a CPU trains in seconds.
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


def words(settings):
    return [f"{key}={value}" for key, value in settings.items()]


class Check:
    """One call of the check: runs its parts and keeps OUT up to date."""

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
        # Compiling for a CPU takes minutes, and says nothing about a GPU.
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
        """Runs a command until its end or its limit, with its output in files. Returns "ok", "late", or the
        exit status. The command has its own process group, so its children end with it."""
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
        """Runs one part, and once more with traces if it fails; reports the result. `judge` returns what is
        wrong with its output, or None. Returns whether the part succeeded."""
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
            # The files come first, because a reader of the line may shut the machine down.
            self.publish()
            self.say(f"{name}: {result}" + (f", {seconds:.1f} s" if seconds else ""))
        return well

    def together(self, jobs):
        with ThreadPoolExecutor(2 if self.small else len(jobs)) as pool:
            for job in [pool.submit(job) for job in jobs]:
                job.result()

    # Output

    def publish(self):
        """Rewrites both files of OUT atomically."""
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
                # Another part may delete this file or write to it at the same time.
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

    # Building blocks of parts

    def shards(self, which):
        """Returns CIFAR-10 of the bundle (one shard if that is enough), or drawn images if it has none."""
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

    def step(self, size, name, limit, env=None, counts=None, keys=None):
        """Times our step with the config of the peers, which differs from the recipe in a few keys."""
        config, _ = self.config(size)
        recipe = HERE / f"configs/simdino_vit{size.lower()}16_in1k.yaml"
        keys = {**(keys or {}), "train.batch_size": config["train"]["batch_size"], "train.accumulate": 1}
        keys |= {"train.precision": config["train"]["precision"], "run.device": self.device}
        command = [self.simdino, "bench", "step", str(recipe), *words(keys)]
        command += words(SMALL_STEP) if self.small else []
        self.part(f"{size}_{name}", limit, [*command, "--json", *(counts or self.counts())], env)

    def trace(self, size, limit):
        """Records where the time of our step goes, and stores the trace in OUT."""
        name = f"{size}_trace"
        trace, counts = self.file("cache") / f"{name}.json", ["--warmup", "5", "--steps", "1"]
        trace.parent.mkdir(exist_ok=True)
        self.step(size, "trace", limit, counts=[*counts, "--trace", str(trace)])
        if not trace.exists():
            return
        (self.out / f"{name}.json.gz").write_bytes(gzip.compress(trace.read_bytes(), 6))
        try:
            tables = gpu_trace.tables(gpu_trace.load(trace), TRACED_STEPS)
        except gpu_trace.UNREADABLE as error:  # the step may have been stopped while it wrote
            self.done(f"{name}_tables", f"the trace cannot be read: {error!r}", 0.0, name)
        else:
            self.file(f"{name}.md").write_text(tables)

    def counts(self):
        return ["--warmup", "1", "--steps", "3"] if self.small else ["--warmup", "5", "--steps", "20"]

    def peer(self, size, mode, limit, name=None, counts=None, part=None):
        _, path = self.config(size)
        command = [self.python, str(HERE / "step.py"), "--config-json", f"@{path}"]
        command += ["--device", self.device, "--mode", mode, *(counts or self.counts())]
        env = {"TORCHINDUCTOR_CACHE_DIR": str(self.file("cache/inductor"))}
        return (part or self.part)(name or f"{size}_{mode}", limit, command, env)
