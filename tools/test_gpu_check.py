"""Tests of gpu_check.py with fake programs: run `python3 -m unittest` in this folder."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
from pathlib import Path

import gpu_check
import gpu_parts
import gpu_summary
import gpu_trace

PRETENDER = """#!{python}
import json, os, sys, time
verb, words = sys.argv[1], dict(w.split("=", 1) for w in sys.argv if "=" in w)
name = words.get("run.name", verb)
if name == os.environ.get("SLOW"):
    time.sleep(60)
if name == os.environ.get("BROKEN"):
    sys.exit("CUDA error" + " at kernel 7" * (os.environ.get("CUDA_LAUNCH_BLOCKING") == "1"))
run = os.path.join(words.get("run.dir", "."), name)
result = {{"img_s": 10.0, "step_ms": 100.0, "peak_memory_bytes": 1 << 30, "batch_size": 16}}
if verb == "train":
    os.makedirs(run, exist_ok=True)
    open(run + "/w.safetensors", "w").write("x" * 1000)
    with open(run + "/metrics.jsonl", "a+") as file:
        file.seek(0)
        for step in range(len(file.readlines()) + 1, int(words.get("train.stop_after", 4)) + 1):
            loss = None if name == os.environ.get("NO_NUMBER") else 1 / step
            record = {{"step": step, "epoch": 0.5, "loss/total": loss, "probe/knn_top1": 0.25}}
            file.write(json.dumps({{**record, "speed/img_s": 8.0, "speed/data_wait": 0.5}}) + chr(10))
    open(run + "/results.json", "w").write('{{"top1": 0.3}}')
elif verb == "data":
    os.makedirs(sys.argv[3] + "/images")
elif sys.argv[1:3] == ["bench", "data"]:
    print(json.dumps({{"pipeline": [{{"threads": 0, "img_s": 12.0}}]}}))
elif verb == "bench":
    if "--trace" in sys.argv:
        event = {{"ph": "X", "ts": 0, "dur": 3000, "args": {{"External id": 1}}}}
        events = [event | {{"cat": "cpu_op", "name": "mm"}}, event | {{"cat": "kernel", "name": "gemm"}}]
        open(sys.argv[sys.argv.index("--trace") + 1], "w").write(
            json.dumps({{"traceEvents": events}})[: 40 if "CUT_OFF" in os.environ else None]
        )
    print(json.dumps(result))
else:
    print(json.dumps({{"passed": True, "self_check": [{{"what": "x", "error": 0.0}}]}}))
"""
PEER = "import json, sys; print(json.dumps(%s | {'peer': 'torch'}))" % (
    {"img_s": 5.0, "step_ms": 200.0, "peak_memory_bytes": 1, "batch_size": 16}
)
CONFIG = {
    "model": {"arch": "vit_small", "image_size": 224, "patch_size": 16},
    "augment": {"global_crops_size": 224, "local_crops_size": 96, "local_crops_number": 10},
    "head": {}, "simdino": {}, "run": {}, "train": {"batch_size": 128, "precision": "bf16"},
}  # fmt: skip


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Calls(unittest.TestCase):
    def setUp(self):
        self.dir = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.out = self.dir / "out"
        bundle = self.dir / "bundle"
        program(bundle / "simdino", PRETENDER.format(python=sys.executable))
        for name in gpu_summary.TESTS:
            program(bundle / "tests" / name, "#!/bin/sh\necho 'test result: ok. 2 passed'\n")
        for module in [gpu_check, gpu_parts, gpu_summary, gpu_trace]:
            shutil.copy(module.__file__, bundle)
        (bundle / "step.py").write_text(PEER)
        (bundle / "peers").mkdir()
        for size in gpu_summary.SIZES:
            (bundle / f"peers/{size}.json").write_text(json.dumps(CONFIG))
        # A torch that the script finds, but that its own part cannot compute with.
        program(self.dir / "python/torch/__init__.py", "")
        program(self.dir / "scratch/.keep", "")

    def start(self, call, *more, **env):
        command = [sys.executable, self.dir / "bundle/gpu_check.py", call, self.out, *more]
        env = {**os.environ, "PYTHONPATH": str(self.dir / "python"), **env}
        env["TMPDIR"] = str(self.dir / "scratch")
        pipe = subprocess.PIPE
        return subprocess.Popen(map(str, command), env=env, stdout=pipe, stderr=pipe, text=True)

    def call(self, call, *more, **env):
        child = self.start(call, *(more or ["--device", "cpu", "--small"]), **env)
        said, errors = child.communicate(timeout=120)
        self.assertNotIn("Traceback", errors)
        return child.returncode, said, errors

    def looked_at(self):
        """Checks that the output is complete and allowed; returns the summary and the names in the
        archive."""
        files = [file for file in self.out.rglob("*") if not file.is_dir()]
        self.assertLessEqual(len(files), 8)
        for file in files:
            self.assertRegex(file.name, re.compile(r"^[A-Za-z0-9._-]+$"))
            self.assertLess(file.stat().st_size, 16 << 20)
        with tarfile.open(self.out / "all.tgz") as tar:
            names = tar.getnames()
            self.assertIn("summary.md", names)
            self.assertFalse([name for name in names if name.endswith(".safetensors")])
            for member in tar:
                if member.isfile():
                    tar.extractfile(member).read()
        summary = (self.out / "summary.md").read_text()
        self.assertTrue(summary.startswith("# GPU check") and "## Parts" in summary)
        return summary, names

    def test_smoke(self):
        code, said, _ = self.call("smoke")
        summary, names = self.looked_at()
        for method in gpu_summary.METHODS:
            self.assertIn(f"{method}_continued: ok", said)
            self.assertIn(f"run_{method}/metrics.jsonl", names)
        self.assertIn("repeat_dinov2_fp32_2: ok", said)
        self.assertIn("1.0000 0.5000 0.3333 0.2500 0.2000 0.1667", summary)
        # The only part that computes with torch fails and is reported with the reason; all others
        # ran.
        self.assertEqual(code, 1)
        self.assertIn("### attention: exit status 1", summary)
        self.assertEqual(summary.count("### "), 1, summary)
        self.assertFalse(list(self.dir.glob("scratch/gpu_check_*")), "the scratch folder stays")

    def test_times(self):
        code, said, _ = self.call("times")
        summary, _ = self.looked_at()
        self.assertEqual(code, 0, summary)
        self.assertIn("B_compile: ok", said)
        self.assertIn("dinov3_dinov2: ok", said)
        self.assertIn("| dinov2 | 100.0 | 10 | - | 0.06 to 0.09 |", summary)
        self.assertIn("| ViT-B/16, 16 | torch compile | 200.0 | 5 |", summary)
        self.assertIn("| training, data and step | 8 |", summary)
        self.assertIn("| 4 | 0.5 | 0.2500 |", summary)
        self.assertIn("| mm | 1.000 | 0.3 |", summary)
        self.assertTrue((self.out / "B_trace.json.gz").exists())

    def test_a_part_that_fails_is_run_again_with_traces_and_the_others_run(self):
        code, said, _ = self.call("smoke", BROKEN="run_dino")
        summary, _ = self.looked_at()
        self.assertEqual(code, 1)
        self.assertIn("### dino_3_steps: exit status 1\n\n```text\nCUDA error at kernel 7\n", summary)
        self.assertIn("dinov2_continued: ok", said)
        self.assertNotIn(" dino_continued", said)

    def test_a_trace_that_is_cut_off_costs_only_its_tables(self):
        code, said, _ = self.call("times", CUT_OFF="1")
        summary, _ = self.looked_at()
        self.assertEqual(code, 1)
        self.assertIn("B_trace_tables: the trace cannot be read: JSONDecodeError", said)
        self.assertIn("| dinov3_dinov2 | ok |", summary)
        self.assertIn("No trace.", summary)

    def test_a_loss_that_is_no_number_is_a_failure(self):
        code, _, _ = self.call("smoke", NO_NUMBER="run_simdino")
        self.assertEqual(code, 1)
        summary, _ = self.looked_at()
        self.assertIn("the loss of steps [1, 2, 3] is not a number", summary)
        self.assertIn("| simdino | - - - |", summary)

    def test_a_deterministic_run_that_differs_is_a_failure(self):
        code, said, _ = self.call("smoke", NO_NUMBER="repeat_dinov2_bf16_2")
        self.assertEqual(code, 1)
        self.assertIn("repeat_dinov2_bf16_2: step 1: loss/total is 1.0, and then None", said)

    def test_time_is_kept(self):
        start = time.monotonic()
        code, said, _ = self.call(
            "smoke", "--device", "cpu", "--small", "--seconds", "16", SLOW="run_simdinov2"
        )
        self.assertLess(time.monotonic() - start, 25)
        self.assertEqual(code, 1)
        self.assertIn("simdinov2_3_steps: stopped after its limit", said)
        self.looked_at()

    def test_a_call_that_is_killed_leaves_what_was_done(self):
        child = self.start("smoke", "--device", "cpu", "--small", SLOW="run_simdinov2")
        seen = ""
        while "simdino_continued: ok" not in seen:
            seen += child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        child.stderr.close()
        summary, names = self.looked_at()
        self.assertIn("| simdino_continued | ok |", summary)
        self.assertIn("run_simdino/metrics.jsonl", names)

    def test_what_is_missing_is_said(self):
        if gpu_check.gpus() == 0:
            code, _, errors = self.call("smoke", "--device", "cuda")
            self.assertEqual(code, 2)
            self.assertRegex(errors, "^gpu_check: this machine has no GPU that its driver sees")
        (self.dir / "bundle/simdino").unlink()
        code, _, errors = self.call("smoke")
        self.assertEqual(code, 2)
        self.assertIn("cargo xtask gpu-bundle", errors)


class Numbers(unittest.TestCase):
    def test_flops_by_hand(self):
        for arch, expected in [("vit_small", 122.1e9), ("vit_base", 472.4e9), ("vit_large", 1661e9)]:
            config = {**CONFIG, "model": {**CONFIG["model"], "arch": arch}}
            self.assertAlmostEqual(gpu_summary.flops_per_image(config) / expected, 1, delta=2e-3)
        one = {
            "model": {"arch": "vit_nano", "patch_size": 8, "in_channels": 1},
            "augment": {"global_crops_size": 8, "local_crops_size": 8, "local_crops_number": 1},
        }
        forward = 4 * (24 * 2 * 128**2 + 4 * 4 * 128) + 2 * 128 * 64  # two tokens
        self.assertEqual(gpu_summary.flops_per_image(one), (2 + 3 * 3) * forward)
        self.assertEqual(gpu_summary.crops_of(one), "2 x 8 + 1 x 8")

    def test_a_trace_is_added_up(self):
        def event(cat, name, start, length, launcher):
            args = {"External id": launcher}
            return {"cat": cat, "name": name, "ts": start, "dur": length, "args": args}

        events = [event("cpu_op", "mm", 0, 5, 1), event("cpu_op", "add", 5, 5, 2)]
        events += [event("kernel", "void at::native::gemm", 10, 4000, 1)]
        events += [event("kernel", "sum", 3010, 2000, 2), event("gpu_memcpy", "copy", 9010, 1000, 3)]
        events += [event("cuda_runtime", "cudaStreamSynchronize", 0, 500, 3)]
        self.assertEqual(gpu_trace.busy(events[2:5]), (6000, 10000))
        text = gpu_trace.tables(events, 2)
        self.assertIn("5.00 ms per step, of which the GPU was busy 60.0%; 2 kernels and copies", text)
        for row in ["| mm | 2.000 | 0.5 |", "| ? | 0.500 | 0.5 |", "| gemm | 2.000 | 0.5 |"]:
            self.assertIn(row, text)
        self.assertIn("| cudaStreamSynchronize | 0.250 | 0.5 |", text)
        self.assertIn("| 2 others | 1.500 | 1.0 |", gpu_trace.tables(events, 2, most=1))
        self.assertIn("no event of a GPU", gpu_trace.tables(events[:2], 2))
        del events[1]["args"]["External id"]
        self.assertIn("| ? | 1.500 | 1.0 |", gpu_trace.tables(events, 2))

    def test_cut_lines_are_passed_over(self):
        with tempfile.TemporaryDirectory() as dir:
            path = Path(dir) / "m.jsonl"
            path.write_text('{"step": 1}\n{"st')
            self.assertEqual(gpu_summary.json_lines(path), [{"step": 1}])
            self.assertIsNone(gpu_summary.last_json(path))
        self.assertEqual(gpu_summary.json_lines("/nowhere"), [])


if __name__ == "__main__":
    unittest.main()
