"""Compares the loader with that of the crate `data`, and tests its guarantees."""

import hashlib
import itertools
import os
import pickle
import shutil
import tempfile
import threading

import unittest
from pathlib import Path
from unittest import mock

from support import REFERENCE, loader_threads, needs, reference

SMALL = {"global_crops_size": 32, "local_crops_size": 16, "local_crops_number": 3}


def sha256(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def hashes(batch):
    """Returns the hashes of a batch in the form of the reference."""
    return {
        "epoch": batch.epoch,
        "step": batch.step,
        "samples": batch.samples.tolist(),
        "global": sha256(batch.global_crops),
        "local": sha256(batch.local_crops),
        "masks": sha256(batch.masks.masks),
        "weights": sha256(batch.masks.weights),
        "broken": [image.name for image in batch.broken],
    }


def loader_of(case, **changes):
    from simdino.data import MultiCropLoader

    data = dict(case["data"])
    source = data.pop("path") or data.pop("mix")
    data.pop("mix", None)
    options = {
        key: case[key]
        for key in ("batch_size", "preset", "augment", "seed", "rank", "world_size", "patch_size")
    }
    options.update(max_bad_fraction=1.0, data=data, workers=2)
    return MultiCropLoader(source, **{**options, **changes})


def batches_of(loader, count):
    """Yields ``count`` batches, over as many epochs as necessary."""
    epochs = iter(lambda: iter(loader), None)
    return itertools.islice(itertools.chain.from_iterable(epochs), count)


@needs("numpy")
class Reference(unittest.TestCase):
    def test_every_batch_is_that_of_the_crate(self):
        for case in reference():
            with self.subTest(case["name"]):
                loader = loader_of(case)
                self.assertEqual(len(loader), case["steps_per_epoch"])
                got = [hashes(batch) for batch in batches_of(loader, len(case["batches"]))]
                self.assertEqual(got, case["batches"])
                broken = [name for batch in case["batches"] for name in batch["broken"]]
                self.assertEqual([image.name for image in loader.broken], broken)

    def test_a_position_is_reached_at_once_with_any_number_of_processes(self):
        case = reference()[0]
        whole = loader_of(case)
        states = []
        for batch in batches_of(whole, len(case["batches"])):
            states.append((whole.state_dict(), batch))
        for (state, _), (_, following) in zip(states, states[1:]):
            state = pickle.loads(pickle.dumps(state))
            for world_size in (1, 2, 3):
                parts = []
                for rank in range(world_size):
                    part = loader_of(case, rank=rank, world_size=world_size, workers=1)
                    part.load_state_dict(state)
                    part.set_epoch(state["epoch"])  # as Lightning does
                    parts.append(next(iter(part)))
                samples = [index for part in parts for index in part.samples.tolist()]
                self.assertEqual(samples, following.samples.tolist())
                self.assertEqual((parts[0].epoch, parts[0].step), (following.epoch, following.step))
                # Each rank has its own rows of each view.
                rows = [part.global_crops.reshape(2, -1, 32, 32, 3) for part in parts]
                whole_rows = following.global_crops.reshape(2, -1, 32, 32, 3)
                for view in range(2):
                    joined = b"".join(part[view].tobytes() for part in rows)
                    self.assertEqual(joined, whole_rows[view].tobytes())

    def test_a_group_that_is_younger_than_the_loader_counts(self):
        case = reference()[0]
        whole = next(iter(loader_of(case))).samples.tolist()
        loader = loader_of(case, rank=None, world_size=None)
        samples = []
        for rank in range(2):
            part = pickle.loads(pickle.dumps(loader))
            with mock.patch.dict(os.environ, {"RANK": str(rank), "WORLD_SIZE": "2"}):
                samples += next(iter(part)).samples.tolist()
            self.assertEqual((part.rank, part.world_size), (rank, 2))
            # The rank is kept in a process without a group, such as a spawned worker.
            self.assertEqual(len(next(iter(pickle.loads(pickle.dumps(part))))), len(whole) // 2)
        self.assertEqual(samples, whole)
        with mock.patch.dict(os.environ, {"RANK": "0", "WORLD_SIZE": "4"}):
            with self.assertRaisesRegex(ValueError, "multiple of world_size = 4"):
                iter(loader)
            # An explicit rank is kept.
            self.assertEqual(next(iter(loader_of(case))).samples.tolist(), whole)

    def test_masks_alone_are_those_of_the_loader(self):
        from simdino.data import MaskGenerator

        case = reference()[0]
        batch = next(iter(loader_of(case)))
        masks = MaskGenerator(4, seed=case["seed"])(case["batch_size"])
        self.assertEqual(masks.masks.tobytes(), batch.masks.masks.tobytes())
        flat = masks.masks.reshape(-1)
        self.assertTrue(flat[masks.indices].all())
        self.assertEqual(int(flat.sum()), len(masks.indices))
        self.assertLessEqual(len(masks.indices), masks.upper_bound)

    def test_a_preset_among_the_changes_is_loaded(self):
        from simdino.data import MultiCrop, MultiCropLoader

        source = str(REFERENCE / "images")
        loader = MultiCropLoader(source, 4, augment={"preset": "dinov2", "flip_prob": 0.25})
        self.assertEqual(loader.augment, MultiCrop("dinov2", flip_prob=0.25).config)
        with self.assertRaisesRegex(ValueError, "no preset 'x'"):
            MultiCropLoader(source, 4, augment={"preset": "x"})

    def test_crops_of_one_image_are_those_of_the_loader(self):
        from simdino.data import MultiCrop, decode

        case = reference()[0]
        loader = loader_of(case)
        *_, batch = batches_of(loader, 3)  # the third has no broken images
        crops = MultiCrop(case["preset"], **case["augment"])
        crops = pickle.loads(pickle.dumps(crops))
        for row, index in enumerate(batch.samples.tolist()):
            file = REFERENCE / "images" / loader.dataset.name(index)
            views = crops(decode(file.read_bytes()), seed=case["seed"], sample=index)
            for view in range(2):
                expected = batch.global_crops[view * len(batch) + row]
                self.assertEqual(views[view].tobytes(), expected.tobytes())
            for view in range(3):
                expected = batch.local_crops[view * len(batch) + row]
                self.assertEqual(views[2 + view].tobytes(), expected.tobytes())


@needs("numpy")
class Loader(unittest.TestCase):
    def setUp(self):
        self.case = reference()[0]

    def test_each_iterator_is_one_epoch(self):
        loader = loader_of(self.case)
        self.assertEqual(len(list(loader)), len(loader))
        self.assertEqual({batch.epoch for batch in loader}, {1})
        iter(loader)  # delivers nothing and does not count
        second = iter(loader)
        self.assertEqual(len(second), len(loader))
        self.assertEqual((next(second).epoch, len(second)), (2, len(loader) - 1))
        # After leaving an epoch early, the next one starts; the same images do not come again.
        self.assertEqual(loader.state_dict()["step"], 1)
        self.assertEqual(next(iter(loader)).epoch, 3)
        loader.set_epoch(7)
        self.assertEqual(next(iter(loader)).epoch, 7)
        loader.set_epoch(7)
        batch = next(iter(loader))
        self.assertEqual((batch.epoch, batch.step), (7, 0))

    def test_the_epoch_may_be_set_after_the_iterator_was_made(self):
        # As Lightning does when it resumes at the end of an epoch.
        loader = loader_of(self.case)
        iterator = iter(loader)
        loader.sampler.set_epoch(1)
        batch = next(iterator)
        self.assertEqual((batch.epoch, batch.step), (1, 0))
        self.assertEqual(hashes(batch)["global"], self.case["batches"][len(loader)]["global"])
        loader.sampler.set_epoch(4)  # changes nothing for an iterator that has begun
        self.assertEqual([batch.epoch for batch in iterator], [1] * (len(loader) - 1))
        # Resumes in the middle of an epoch.
        loader.load_state_dict({**loader.state_dict(), "epoch": 1, "step": 1})
        iterator = iter(loader)
        loader.sampler.set_epoch(1)
        batch = next(iterator)
        self.assertEqual((batch.epoch, batch.step), (1, 1))

    def test_the_position_outlives_the_iterator(self):
        loader = loader_of(self.case)
        for batch in loader:
            if batch.step == 1:
                break
        state = loader.state_dict()
        self.assertEqual((state["epoch"], state["step"]), (0, 2))
        copy = pickle.loads(pickle.dumps(loader))
        copy.load_state_dict(state)
        self.assertEqual(hashes(next(iter(copy)))["global"], self.case["batches"][2]["global"])

    def test_a_state_of_other_batches_is_refused(self):
        state = loader_of(self.case).state_dict()
        others = {
            "seed is 5": {"seed": 5},
            "batch_size is 3": {"batch_size": 3},
        }
        for text, change in others.items():
            with self.assertRaisesRegex(ValueError, text):
                loader_of(self.case, **change).load_state_dict(state)
        case = {**self.case, "data": {**self.case["data"], "path": str(REFERENCE / "shards")}}
        with self.assertRaisesRegex(ValueError, "images differ from"):
            loader_of(case).load_state_dict(state)

    def test_threads_end_with_the_iterator(self):
        before = loader_threads()
        loader = loader_of(self.case)
        for _ in loader:
            self.assertGreater(loader_threads(), before)
            break
        self.assertEqual(loader_threads(), before)
        list(loader)
        loader.close()
        self.assertEqual(loader_threads(), before)
        iterator = iter(loader)
        next(iterator)
        del iterator, loader
        self.assertEqual(loader_threads(), before)

    def test_the_gil_is_free_while_a_batch_is_awaited(self):
        large = {"global_crops_size": 512, "local_crops_size": 16, "local_crops_number": 1}
        loader = loader_of(self.case, augment=large, workers=1, patch_size=None)
        counted, stop = [0], threading.Event()

        def count():
            while not stop.wait(0.001):
                counted[0] += 1

        thread = threading.Thread(target=count)
        iterator = iter(loader)
        thread.start()
        next(iterator)
        stop.set()
        thread.join()
        self.assertGreater(counted[0], 3)

    def test_too_many_broken_images_end_it(self):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(60):
                Path(folder, f"{number}.jpg").write_text("no image")
            from simdino.data import MultiCropLoader

            loader = MultiCropLoader(folder, 4, augment=SMALL, workers=1)
            with self.assertRaisesRegex(RuntimeError, "no readable image"):
                next(iter(loader))
            good = next((REFERENCE / "images").rglob("0*.png"))
            for number in range(60):
                shutil.copy(good, Path(folder, f"good{number}.png"))
            loader = MultiCropLoader(folder, 40, augment=SMALL, workers=1, prefetch=1)
            with self.assertRaisesRegex(RuntimeError, "more than max_bad_fraction"):
                list(loader)

    def test_what_is_wrong_is_said_in_a_sentence(self):
        from simdino.data import MultiCropLoader, decode

        path = str(REFERENCE / "images")
        wrong = {
            "/nowhere: no such file": ("/nowhere", 2, {}),
            "larger than the dataset": (path, 400, {}),
            "at least 1": (path, 0, {}),
            "multiple of world_size = 4": (path, 6, {"rank": 0, "world_size": 4}),
            "rank 4 is out of range": (path, 8, {"rank": 4, "world_size": 4}),
            "no preset 'x'": (path, 2, {"preset": "x"}),
            "no key 'local_crops'": (path, 2, {"augment": {"local_crops": 2}}),
            "flip_prob: must be": (path, 2, {"augment": {"flip_prob": 2}}),
            "unknown field `cach`": (path, 2, {"data": {"cach": "none"}}),
            "patch_size must divide": (path, 2, {"patch_size": 15}),
            "masks need patch_size": (path, 2, {"masks": {}}),
            "prefetch": (path, 2, {"prefetch": 0}),
            "workers must be": (path, 2, {"workers": 0}),
            "needs RGB images": (path, 2, {"channels": 4}),
            "reads files, not URLs": ("s3://bucket/{000..9}.tar", 2, {}),
            "output must be": (path, 2, {"output": "jax"}),
        }
        for text, (source, batch, options) in wrong.items():
            with self.subTest(text):
                with self.assertRaisesRegex((ValueError, FileNotFoundError), text):
                    MultiCropLoader(source, batch, **options)
        for text, data in {"empty": b"", "not": b"GIF89a..", "trunc": None}.items():
            whole = next((REFERENCE / "images").rglob("0*.png")).read_bytes()
            with self.assertRaises(ValueError):
                decode(whole[:-40] if data is None else data)

    def test_the_evaluation_loader_gives_each_image_once(self):
        from simdino.data import EvalLoader

        loader = EvalLoader(REFERENCE / "images", batch_size=7, resize=40, crop=32, workers=2)
        for _ in range(2):
            batches = list(loader)
            indices = [index for batch in batches for index in batch.indices.tolist()]
            self.assertEqual(len(loader.broken), 3)
            missing = set(range(len(loader.dataset))) - set(indices)
            self.assertEqual(missing, {image.index for image in loader.broken})
            self.assertEqual(indices, sorted(indices))
            self.assertTrue(all(batch.images.shape[1:] == (32, 32, 3) for batch in batches))
            labels = [label for batch in batches for label in batch.labels.tolist()]
            known = [loader.dataset.label(index) for index in indices]
            self.assertEqual([-1 if label is None else label for label in known], labels)


@needs("numpy", "torch")
class Torch(unittest.TestCase):
    def test_views_are_normalized_as_in_torchvision(self):
        import torch

        from simdino.data import to_float

        loader = loader_of(reference()[0])
        batch = next(iter(loader))
        views = to_float(batch, "cpu")
        shapes = [tuple(view.shape) for view in views]
        self.assertEqual(shapes, [(6, 3, 32, 32)] * 2 + [(6, 3, 16, 16)] * 3)
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        for crops, got in ((batch.global_crops, views[:2]), (batch.local_crops, views[2:])):
            pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).double() / 255
            expected = ((pixels - mean) / std).split(6)
            for view, want in zip(got, expected):
                self.assertLess((view - want).abs().max().item(), 1e-6)
        half = to_float(batch, dtype=torch.bfloat16, channels_last=True)
        self.assertTrue(half[0].is_contiguous(memory_format=torch.channels_last))
        with self.assertRaisesRegex(ValueError, "one value per channel, that is 3"):
            to_float(batch, mean=[0.5], std=[0.5])

    def test_tensors_share_the_memory_of_the_arrays(self):
        import torch

        case = reference()[0]
        batch = next(iter(loader_of(case, output="torch")))
        self.assertEqual(batch.global_crops.dtype, torch.uint8)
        self.assertEqual(sha256(batch.global_crops.numpy()), case["batches"][0]["global"])
        plain = next(iter(loader_of(case)))
        moved = plain.map(torch.from_numpy)
        self.assertEqual(moved.global_crops.data_ptr(), plain.global_crops.ctypes.data)
        self.assertIsInstance(plain.to("cpu").masks.masks, torch.Tensor)

    def test_pinned_memory_without_a_gpu_is_said(self):
        import torch

        if torch.cuda.is_available():
            batch = next(iter(loader_of(reference()[0], pin_memory=True)))
            self.assertTrue(batch.global_crops.is_pinned())
            return
        with self.assertWarnsRegex(UserWarning, "without a GPU"):
            loader = loader_of(reference()[0], pin_memory=True)
        self.assertIsInstance(next(iter(loader)).global_crops, torch.Tensor)

    def test_a_data_loader_with_workers_is_refused(self):
        from torch.utils.data import DataLoader, IterableDataset

        loader = loader_of(reference()[0])

        class Wrapped(IterableDataset):
            def __iter__(self):
                return iter(loader)

        with self.assertRaisesRegex(RuntimeError, "num_workers=0"):
            next(iter(DataLoader(Wrapped(), batch_size=None, num_workers=2)))
        got = next(iter(DataLoader(Wrapped(), batch_size=None, num_workers=0)))
        self.assertEqual(got.step, 0)


