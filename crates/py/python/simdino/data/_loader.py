"""The training loader."""

from __future__ import annotations

import hashlib
import os
import warnings
import weakref
from typing import Any, Iterator, Mapping, Optional

from .. import _native
from ._batch import Batch, BrokenImage, as_tensor, torch_module
from ._image import Augment, augmentation
from ._masks import Masks
from ._process import group, place, refuse_workers, threads
from ._source import OpenData, Source, as_json, source_config

_STATE_VERSION = 1


class MultiCropLoader:
    """Batches of multi-crop views, made by threads of the loader.

    An iterable: each ``iter()`` is one epoch, in a new order. Use it directly where a DataLoader
    stands, with ``num_workers`` out of the picture; it is fast without processes.

    Args:
        source: folder, list file (.txt, .csv, .tsv, .jsonl), tar shards (WebDataset), parquet file,
            or a pattern of them; a mapping with ``path``, ``source``, ``weight``; or a sequence of
            either, which mixes them.
        batch_size: images per step **over all processes**. A process yields
            ``batch_size / world_size`` of them, so a step is the same on any number of processes.
        preset: ``"simdino"``, ``"simdinov2"``, ``"dino"``, or ``"dinov2"``.
        augment: keys that differ from the preset, such as ``{"local_crops_number": 6}``; the key
            ``preset`` among them replaces the argument.
        seed: of the order, the crops, and the masks.
        rank, world_size: by default, at each ``iter()``, those of torch.distributed if it is
            initialized, or else those that torchrun has set.
        patch_size: draws block-wise masks of patches of this many pixels for the global crops.
        masks: keys that differ from the defaults of :class:`MaskGenerator`.
        workers: threads; by default the share of this process in the cores, less one.
        prefetch: batches that are made ahead. ``prefetch + 1`` batches is all the memory that the
            loader takes, apart from what ``data`` caches.
        output: ``"numpy"`` or ``"torch"``; torch tensors share the memory of the arrays.
        pin_memory: torch tensors in page-locked memory, at the price of a copy.
        max_bad_fraction: largest fraction of broken images, from 50 images on. Broken images are
            replaced by others and listed in :attr:`broken`.
        channels: values per pixel; with 3, gray is replicated and alpha dropped.
        data: further keys of section ``data`` of a config file, such as ``{"cache": "encoded"}``.

    Processes: an iterator belongs to the process that called ``iter()``, because threads do not
    survive a fork. The loader itself can be forked and pickled (spawn); call ``iter()`` in the new
    process.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        preset: str = "simdino",
        augment: Optional[Augment] = None,
        seed: int = 0,
        rank: Optional[int] = None,
        world_size: Optional[int] = None,
        *,
        patch_size: Optional[int] = None,
        masks: Optional[Mapping[str, Any]] = None,
        workers: Optional[int] = None,
        prefetch: int = 4,
        output: str = "numpy",
        pin_memory: bool = False,
        max_bad_fraction: float = 0.1,
        channels: int = 3,
        data: Optional[Mapping[str, Any]] = None,
    ) -> None:
        if output not in ("numpy", "torch"):
            raise ValueError(f"output must be 'numpy' or 'torch' (got {output!r})")
        if masks is not None and patch_size is None:
            raise ValueError("masks need patch_size, the side of a patch in pixels")
        self._as_torch = output == "torch" or pin_memory
        self._pin = pin_memory and torch_module().cuda.is_available()
        if pin_memory and not self._pin:
            warnings.warn("pin_memory has no effect without a GPU", stacklevel=2)
        if self._as_torch:
            torch_module()
        self.batch_size, self.seed = int(batch_size), int(seed)
        self._given = (rank is not None, workers)
        self.rank, self.world_size = place(rank, world_size)
        self.augment = augmentation(preset, augment)
        self.broken: list[BrokenImage] = []
        """Broken images found so far, each once."""
        self._data = OpenData(source_config(source, data or {}), channels)
        self._options: dict[str, Any] = {
            "augment": as_json(self.augment, "augment"),
            "masks": None if patch_size is None else (as_json(masks or {}, "masks"), patch_size),
            "batch_size": self.batch_size,
            "rank": self.rank,
            "world_size": self.world_size,
            "seed": self.seed,
            "workers": threads(workers),
            "prefetch": prefetch,
            "max_bad_fraction": max_bad_fraction,
        }
        # After the last batch that was delivered; and whether the next iterator begins there, rather
        # than with the epoch after it.
        self._position, self._fresh = (0, 0), True
        self._running: Optional[weakref.ref[_Epoch]] = None
        # Threads that have reached the end of an epoch and are making the next one.
        self._idle: Optional[tuple[tuple[int, int], int, Any]] = None
        self._check()

    def _check(self) -> None:
        """Finds what is wrong with the options now rather than at the first batch."""
        images = len(self._data.get())
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 (got {self.batch_size})")
        self._check_split(self.world_size)
        if self.batch_size > images:
            raise ValueError(
                f"batch_size = {self.batch_size} is larger than the dataset ({images} images): "
                f"lower it to {images} or less, or add images"
            )
        self._keep(self._new(0, 0), (0, 0))

    def _check_split(self, world_size: int) -> None:
        if self.batch_size % world_size:
            raise ValueError(
                f"batch_size = {self.batch_size} counts the images of all processes: it must be a "
                f"multiple of world_size = {world_size}"
            )

    def _settle(self) -> None:
        """Takes the place of this process in a group that is younger than the loader. Lightning, for
        one, forms the group in ``fit``; with the old place, every process would get every image."""
        rank_is_given, workers = self._given
        # Without a group, as in a worker that was spawned, the place is that of the process before.
        here = None if rank_is_given else group()
        if here in (None, (self.rank, self.world_size)):
            return
        self._check_split(here[1])
        self.close()
        self.rank, self.world_size = here
        self._options.update(rank=here[0], world_size=here[1], workers=threads(workers))

    def __len__(self) -> int:
        """Steps in an epoch; the images that remain at its end wait for the next one."""
        return self._steps

    @property
    def dataset(self) -> "_native.Dataset":
        """The images: ``len``, ``name(index)``, ``label(index)``, ``class_names``, ``notices``."""
        return self._data.get()

    def __iter__(self) -> Iterator[Batch]:
        """Begins an epoch: the one that was set, or the one after that of the last iterator, even
        if that was left early. An iterator that has delivered nothing does not count."""
        refuse_workers("MultiCropLoader")
        self._stop()
        self._settle()
        if not self._fresh:
            self._position, self._fresh = (self._position[0] + 1, 0), True
        epoch = _Epoch(self)
        self._running = weakref.ref(epoch)
        return epoch

    def set_epoch(self, epoch: int) -> None:
        """The next ``iter()`` begins this epoch, or continues it after :meth:`load_state_dict`. So does
        an iterator that has delivered nothing yet."""
        if epoch < 0:
            raise ValueError(f"the epoch must not be negative (got {epoch})")
        if epoch != self._position[0] or not self._fresh:
            self._position, self._fresh = (int(epoch), 0), True
            running = self._running() if self._running is not None else None
            if running is not None:
                running.move(self._position)

    @property
    def sampler(self) -> "_Sampler":
        """Has :meth:`set_epoch` for loops that call it there, as those of DINO and Lightning do."""
        return _Sampler(self)

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that was delivered, for :meth:`load_state_dict`."""
        return {
            "version": _STATE_VERSION,
            "epoch": self._position[0],
            "step": self._position[1],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "data": self._mark(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next ``iter()`` begins at this position, at once and without replay, also with another
        number of processes or threads.

        Raises:
            ValueError: if seed, batch size, or images are not those of the state: the batches that
                follow would not be the ones that were left out.
        """
        if state.get("version") != _STATE_VERSION:
            raise ValueError(f"the state has version {state.get('version')}, not {_STATE_VERSION}")
        here = {"seed": self.seed, "batch_size": self.batch_size, "data": self._mark()}
        for key, value in here.items():
            if state[key] != value:
                what = "images are others than" if key == "data" else f"{key} is {value}, not"
                of_state = "those of the state" if key == "data" else f"{state[key]} as in the state"
                raise ValueError(f"the {what} {of_state}: give the loader the same, or start anew")
        self.close()
        epoch, step = int(state["epoch"]), int(state["step"])
        self._position, self._fresh = (epoch + step // len(self), step % len(self)), True

    def close(self) -> None:
        """Ends the threads; they also end with the loader and the iterator."""
        self._stop()
        if self._idle is not None:
            self._idle[2].close()
            self._idle = None

    def _stop(self) -> None:
        """Ends the iterator that is under way."""
        running = self._running() if self._running is not None else None
        if running is not None:
            running.close()
        self._running = None

    def _mark(self) -> str:
        """Differs if the images do: a digest of their number and of some of their names."""
        return hashlib.sha256(self.dataset.mark()).hexdigest()[:16]

    def _new(self, epoch: int, step: int) -> Any:
        native = _native.TrainLoader(self.dataset, epoch=epoch, step=step, **self._options)
        self._steps = native.steps_per_epoch
        return native

    def _keep(self, native: Any, position: tuple[int, int]) -> None:
        """Keeps threads whose next batch is at ``position``, for the iterator that begins there."""
        self._idle = (position, os.getpid(), native)

    def _take(self, position: tuple[int, int]) -> Any:
        """Threads whose next batch is at ``position``."""
        if self._idle is not None:
            (at, process, native), self._idle = self._idle, None
            if at == position and process == os.getpid():
                return native
            native.close()
        return self._new(*position)

    def _batch(self, made: tuple[Any, ...]) -> Batch:
        global_crops, local_crops, masks, samples, (epoch, step), broken = made
        found = [BrokenImage(*image) for image in broken]
        self.broken.extend(found)
        batch = Batch(
            global_crops,
            local_crops,
            None if masks is None else Masks(*masks),
            samples,
            epoch,
            step,
            found,
            self.augment["mean"],
            self.augment["std"],
        )
        if self._pin:
            return batch.pin_memory()
        return batch.map(as_tensor) if self._as_torch else batch

    def __getstate__(self) -> dict[str, Any]:
        # Threads stay in this process; the position goes along.
        return {**self.__dict__, "_running": None, "_idle": None}

    def __repr__(self) -> str:
        part = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        images = f"{len(self.dataset)} images"
        return f"MultiCropLoader({images}, batch_size={self.batch_size}, {len(self)} steps{part})"


class _Sampler:
    """What loops expect of a sampler of several processes."""

    def __init__(self, loader: MultiCropLoader) -> None:
        self.set_epoch = loader.set_epoch


class _Epoch:
    """An iterator over the rest of one epoch."""

    def __init__(self, loader: MultiCropLoader) -> None:
        self._loader = loader
        self._native: Any = None
        self._next = loader._position
        self._process = os.getpid()
        self._begun = self._done = False

    def __iter__(self) -> "_Epoch":
        return self

    def __next__(self) -> Batch:
        if self._process != os.getpid():
            raise RuntimeError(
                f"this iterator belongs to process {self._process}, and its threads do not exist in "
                f"process {os.getpid()}, which was forked from it: call iter() on the loader there"
            )
        if self._done:
            raise StopIteration
        loader = self._loader
        if self._native is None:
            self._native = loader._take(self._next)
        batch = loader._batch(self._native.next())
        epoch, step = self._next
        self._begun = True
        self._done = step + 1 == len(loader)
        self._next = (epoch + 1, 0) if self._done else (epoch, step + 1)
        loader._position, loader._fresh = self._next, self._done
        if self._done:
            loader._keep(self._native, self._next)
            self._native = None
        return batch

    def __len__(self) -> int:
        """Batches that are left."""
        return 0 if self._done else len(self._loader) - self._next[1]

    def move(self, position: tuple[int, int]) -> None:
        """Begins elsewhere, unless it has begun. Lightning sets the epoch after ``iter()``."""
        if not self._begun:
            self._next = position
            if self._native is not None:
                self._native.close()
                self._native = None

    def close(self) -> None:
        """Ends the threads."""
        self._done = True
        if self._native is not None:
            self._native.close()
            self._native = None
