"""Tests loading the weights and metrics of a run."""

import io
import json
import math
import struct
import sys
import tempfile
import types
import unittest
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

from support import needs

MODEL = {
    "arch": "vit_nano",
    "patch_size": 4,
    "image_size": 16,
    "in_channels": 3,
    "num_register_tokens": 0,
    "mask_token": False,
    "layer_scale": None,
    "ffn": "mlp",
    "qk_norm": False,
    "num_heads": 4,
    "norm_eps": 1e-6,
}


def backbone(model, width=32, depth=2):
    """Returns random tensors of a small network, with simdino's names."""
    import torch

    make = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=make) * 0.3

    patches = (model["image_size"] // model["patch_size"]) ** 2
    tensors = {
        "cls_token": random(1, 1, width),
        "pos_embed": random(1, 1 + patches, width),
        "patch_embed.proj.weight": random(width, 3, model["patch_size"], model["patch_size"]),
        "patch_embed.proj.bias": random(width),
        "norm.weight": 1 + random(width),
        "norm.bias": random(width),
    }
    if model["mask_token"]:
        tensors["mask_token"] = random(1, width)
    if model["num_register_tokens"]:
        tensors["register_tokens"] = random(1, model["num_register_tokens"], width)
    # The hidden width of a gated MLP of ratio 4 in transformers.
    gated = (int(width * 4 * 2 / 3) + 7) // 8 * 8
    for block in range(depth):
        layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        if model["ffn"] == "swiglu":
            layers |= {"mlp.w12": (2 * gated, width), "mlp.w3": (width, gated)}
        else:
            layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in layers.items():
            tensors[f"blocks.{block}.{name}.weight"] = random(*shape)
            tensors[f"blocks.{block}.{name}.bias"] = random(shape[0])
        for number in (1, 2):
            tensors[f"blocks.{block}.norm{number}.weight"] = 1 + random(width)
            tensors[f"blocks.{block}.norm{number}.bias"] = random(width)
            if model["layer_scale"] is not None:
                tensors[f"blocks.{block}.ls{number}.gamma"] = random(width)
    return tensors


def write(path, tensors, metadata):
    """Returns tensors in the safetensors format."""
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_run(folder, model, where="weights"):
    tensors = {f"backbone.{name}": tensor for name, tensor in backbone(model).items()}
    numbers = {"mean": "[0.5,0.4,0.3]", "std": "[0.2,0.2,0.1]"}
    metadata = {"format": "simdino", "model": json.dumps(model), **numbers}
    write(Path(folder, where, "teacher.safetensors"), tensors, metadata)


class Metrics(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.run_folder = Path(self.folder.name, "a run")
        self.run_folder.mkdir()
        self.file = self.run_folder / "metrics.jsonl"
        rows = [{"step": step, "epoch": step / 4, "loss/total": -step / 2} for step in range(3)]
        rows[1]["probe/knn_top1"] = 0.5
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def test_lines_are_read_and_a_half_written_one_is_left_out(self):
        import simdino

        with self.file.open("a") as file:
            file.write('{"step": 3, "epo')
        rows = simdino.read_metrics(self.run_folder)
        self.assertEqual([row["step"] for row in rows], [0, 1, 2])
        probe = [{"step": 1, "epoch": 0.25, "probe/knn_top1": 0.5}]
        self.assertEqual(simdino.read_metrics(self.file, ["probe/knn_top1"]), probe)
        with self.file.open("a") as file:
            file.write("\n")
        with self.assertRaisesRegex(ValueError, "metrics.jsonl, line 4: not a line of metrics"):
            simdino.read_metrics(self.run_folder)
        with self.assertRaisesRegex(FileNotFoundError, "no metrics found"):
            simdino.read_metrics(Path(self.folder.name))

    def track(self, *arguments, **changes):
        """Forwards to a fake tracker; returns the exit code, what the tracker received, and the
        printed messages."""
        from simdino import track

        got = []
        fake = types.ModuleType("trackio")
        fake.init = lambda **options: got.append(options["name"])
        fake.log = lambda values, step: got.append((step, values))
        fake.finish = lambda: got.append("finished")
        vars(fake).update(changes)
        with mock.patch.dict(sys.modules, trackio=fake), redirect_stderr(io.StringIO()) as said:
            code = track.main(["trackio", str(self.run_folder), *arguments])
        return code, got, said.getvalue()

    def test_a_tracker_gets_every_line_once(self):
        with self.file.open("a") as file:
            file.write(json.dumps({"step": 3, "epoch": 0.75, "loss/total": math.nan}) + "\n")
        code, got, _ = self.track()
        self.assertEqual(code, 0)
        self.assertEqual(got[0], "a run")
        self.assertEqual([step for step, _ in got[1:-1]], [0, 1, 2, 3])
        self.assertEqual(got[2], (1, {"epoch": 0.25, "loss/total": -0.5, "probe/knn_top1": 0.5}))
        self.assertEqual(got[4], (3, {"epoch": 0.75}))  # values that are not numbers are dropped
        self.assertEqual(got[-1], "finished")

    def test_following_ends_with_the_weights_and_survives_a_cut(self):
        from simdino import track

        rows = track.rows(self.file, follow=True)
        self.assertEqual([next(rows)["step"] for _ in range(3)], [0, 1, 2])
        # Resumed from a checkpoint: the file is shorter, and some steps are written again.
        lines = [{"step": 1, "epoch": 0.25}, {"step": 3, "epoch": 0.75}]
        self.file.write_text("".join(json.dumps(row) + "\n" for row in lines))
        Path(self.run_folder, "weights").mkdir()
        Path(self.run_folder, "weights/teacher.safetensors").write_text("")
        self.assertEqual([row["step"] for row in rows], [3])

    def test_a_line_of_the_same_step_is_sent_once_after_a_cut(self):
        from simdino import track

        def write(*lines):
            new = self.file.with_suffix(".new")
            new.write_text("".join(json.dumps(row) + "\n" for row in lines))
            new.replace(self.file)  # as the training does

        step = {"step": 4, "epoch": 1.0, "loss": 2.0}
        probe = {"step": 4, "epoch": 1.0, "probe": 0.5}
        write(step, probe)
        rows = track.rows(self.file, follow=True)
        self.assertEqual([next(rows), next(rows)], [step, {"step": 4, "probe": 0.5}])
        # Before the training replaced the file, less of it was read than it holds now.
        next_step = {"step": 5, "epoch": 1.25, "loss": 1.0}
        write({"step": 3, "epoch": 0.75, "loss": 22.75}, step, probe, next_step)
        self.assertEqual(next(rows), next_step)

    def test_following_waits_for_the_file(self):
        from simdino import track

        lines, waited = self.file.read_text(), []
        self.file.unlink()
        Path(self.run_folder, "weights").mkdir()
        Path(self.run_folder, "weights/teacher.safetensors").write_text("")

        def sleep(seconds):
            waited.append(seconds)
            self.file.write_text(lines)

        with mock.patch.object(track.time, "sleep", sleep):
            code, got, said = self.track("--follow")
        self.assertEqual((code, len(got), len(waited)), (0, 5, 1))
        self.assertRegex(said, "^simdino.track: waiting for .*a run/metrics.jsonl\n")
        self.file.unlink()
        code, got, said = self.track()
        self.assertEqual((code, got), (1, []))
        self.assertIn("no metrics found", said)

    def test_a_tracker_that_fails_is_a_sentence(self):
        from simdino import track

        def fail(*_, **__):
            raise RuntimeError("no key:\n  log in")

        with mock.patch.dict(track.ADVICE, trackio="set A_KEY"):
            code, got, said = self.track(init=fail)
        self.assertEqual((code, got), (1, []))
        self.assertIn("simdino.track: trackio did not start: no key: log in\n", said)
        self.assertIn("simdino.track: set A_KEY\n", said)
        code, got, said = self.track(log=fail)
        self.assertEqual((code, got), (1, ["a run", "finished"]))
        self.assertIn("simdino.track: no key: log in\n", said)

    def test_mlflow_gets_what_it_takes_at_once(self):
        from simdino import track

        sizes, got = [], []

        def log_batch(run, metrics):
            sizes.append(len(metrics))
            got.extend(metrics)

        fake = mock.MagicMock()
        fake.entities.Metric = lambda key, value, timestamp, step: (key, value, step)
        fake.MlflowClient.return_value.log_batch = log_batch
        lines = [{"step": n} | {f"m{k}": n + k / 8 for k in range(7)} for n in range(400)]
        self.file.write_text("".join(json.dumps(row) + "\n" for row in lines))
        with mock.patch.dict(sys.modules, mlflow=fake), redirect_stderr(io.StringIO()):
            self.assertEqual(track.main(["mlflow", str(self.run_folder)]), 0)
        self.assertEqual((sum(sizes), max(sizes), len(sizes)), (2800, 1000, 5))
        self.assertEqual(got, [(f"m{k}", n + k / 8, n) for n in range(400) for k in range(7)])
        fake.end_run.assert_called_once()

    def test_a_tracker_that_is_missing_is_named(self):
        from simdino import track

        # As if swanlab were not installed.
        with mock.patch.dict(sys.modules, swanlab=None), redirect_stderr(io.StringIO()) as said:
            self.assertEqual(track.main(["swanlab", str(self.run_folder)]), 1)
        self.assertIn("swanlab cannot be imported", said.getvalue())
        self.assertIn("pip install swanlab", said.getvalue())


@needs("torch")
class Load(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_timm_and_transformers_compute_the_same(self):
        import torch

        import simdino

        needs("timm", "transformers")(lambda: None)  # fails if they are required but missing
        try:
            import timm  # noqa: F401
            import transformers  # noqa: F401
        except ImportError as error:
            self.skipTest(str(error))
        images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
        kinds = {
            "plain": {},
            "registers": {"num_register_tokens": 2, "layer_scale": 1e-5, "mask_token": True},
            "gated": {"ffn": "swiglu", "norm_eps": 1e-5, "layer_scale": 1.0},
        }
        for name, changes in kinds.items():
            with self.subTest(name), torch.no_grad():
                write_run(self.folder / name, MODEL | changes)
                one = simdino.load(self.folder / name)
                other = simdino.load(self.folder / name, "transformers")
                self.assertEqual(one.simdino["mean"], (0.5, 0.4, 0.3))
                a, b = one(images), other(pixel_values=images).last_hidden_state[:, 0]
                self.assertGreater(a.std().item(), 0.1)
                self.assertLess((a - b).abs().max().item(), 1e-5)

    def test_weights_are_found_in_runs_and_checkpoints(self):
        from simdino._weights import find_weights

        write_run(self.folder, MODEL, "checkpoints/step-00000009")
        Path(self.folder, "checkpoints/latest").write_text("step-00000009\n")
        found = find_weights(self.folder, "teacher")
        self.assertEqual(found.parent.name, "step-00000009")
        self.assertEqual(find_weights(found.parent, "teacher"), found)
        write_run(self.folder, MODEL)
        self.assertEqual(find_weights(self.folder, "teacher").parent.name, "weights")
        with self.assertRaisesRegex(FileNotFoundError, "no student.safetensors found"):
            find_weights(self.folder, "student")

    def test_what_cannot_be_loaded_is_said(self):
        import simdino

        damaged = self.folder / "damaged.safetensors"
        write_run(self.folder, MODEL | {"qk_norm": True})
        whole = (self.folder / "weights/teacher.safetensors").read_bytes()
        for length in (0, 7, 40, len(whole) - 1):
            damaged.write_bytes(whole[:length])
            with self.assertRaisesRegex(ValueError, "damaged, or not a safetensors file"):
                simdino.load(damaged)
        with self.assertRaisesRegex(ValueError, "model.qk_norm"):
            simdino.load(self.folder)
        write(damaged, {}, {"format": "pt"})
        with self.assertRaisesRegex(ValueError, "was not written by simdino"):
            simdino.load(damaged)
        with self.assertRaisesRegex(FileNotFoundError, "no such file"):
            simdino.load(self.folder / "nowhere")
        with self.assertRaisesRegex(ValueError, "library must be"):
            simdino.load(self.folder, "jax")
