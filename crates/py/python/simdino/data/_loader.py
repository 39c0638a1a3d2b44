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
    """Yields batches of multi-crop views, made by threads of the loader.

    Each ``iter()`` is one epoch, in a new order. Use the loader directly, in place of a DataLoader;
    it needs no worker processes.

    Args:
        source: folder, list file (.txt, .csv, .tsv, .jsonl), tar shards (WebDataset), parquet file,
            or a pattern of them; a mapping with ``path``, ``source``, ``weight``; or a sequence of
            either, which mixes them.
        batch_size: images per step **over all processes**. A process yields
            ``batch_size / world_size`` of them, so a step is the same on any number of processes.
        preset: ``"simdino"``, ``"simdinov2"``, ``"dino"``, or ``"dinov2"``.
        augment: keys to change in the preset, such as ``{"local_crops_number": 6}``. A key
            ``preset`` among them overrides the argument.
        seed: seed of the order, the crops, and the masks.
        rank, world_size: by default, at each ``iter()``, those of torch.distributed if it is
            initialized, or else those that torchrun has set.
        patch_size: side of a patch in pixels; if given, block-wise masks of patches are drawn for
            the global crops.
        masks: keys that differ from the defaults of :class:`MaskGenerator`.
        workers: number of threads; by default this process's share of the cores, minus one.
        prefetch: number of batches that are made ahead. The loader uses the memory of
            ``prefetch + 1`` batches, plus that of caches requested in ``data``.
        output: ``"numpy"`` or ``"torch"``; torch tensors share the memory of the arrays.
        pin_memory: whether to return torch tensors in page-locked memory, which takes a copy.
        max_bad_fraction: largest fraction of broken images, checked from 50 images on. Broken
            images are replaced by others and listed in :attr:`broken`.
        channels: channels per pixel; with 3, gray is replicated and alpha dropped.
        data: further keys of section ``data`` of a config file, such as ``{"cache": "encoded"}``.

    An iterator belongs to the process that called ``iter()``, because threads do not survive a
    fork. The loader itself can be forked and pickled (for spawned processes); call ``iter()`` in
    the new process.
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
        # The position after the last batch that was delivered, and whether the next iterator starts
        # there rather than at the next epoch.
        self._position, self._fresh = (0, 0), True
        self._running: Optional[weakref.ref[_Epoch]] = None
        # A native loader whose threads are already preparing the next epoch.
        self._idle: Optional[tuple[tuple[int, int], int, Any]] = None
        self._check()

    def _check(self) -> None:
        """Reports invalid options now rather than at the first batch."""
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
        """Updates rank and world size if the process group was formed after the loader was created.
        Lightning, for example, forms it in ``fit``; otherwise, every process would get every
        image."""
        rank_is_given, workers = self._given
        # Without a group, as in a spawned worker, the rank of the pickled loader is kept.
        here = None if rank_is_given else group()
        if here in (None, (self.rank, self.world_size)):
            return
        self._check_split(here[1])
        self.close()
        self.rank, self.world_size = here
        self._options.update(rank=here[0], world_size=here[1], workers=threads(workers))

    def __len__(self) -> int:
        """Returns the number of steps in an epoch. Images that remain at its end are left for the
        next one."""
        return self._steps

    @property
    def dataset(self) -> "_native.Dataset":
        """The images: ``len``, ``name(index)``, ``label(index)``, ``class_names``, ``notices``."""
        return self._data.get()

    def __iter__(self) -> Iterator[Batch]:
        """Starts an epoch: the one that was set, or the one after that of the last iterator, even
        if it was left early. An iterator that has delivered nothing does not count."""
        refuse_workers("MultiCropLoader")
        self._stop()
        self._settle()
        if not self._fresh:
            self._position, self._fresh = (self._position[0] + 1, 0), True
        epoch = _Epoch(self)
        self._running = weakref.ref(epoch)
        return epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes the next ``iter()`` start this epoch, or continue it after :meth:`load_state_dict`.
        The same holds for an iterator that has not delivered anything yet."""
        if epoch < 0:
            raise ValueError(f"the epoch must not be negative (got {epoch})")
        if epoch != self._position[0] or not self._fresh:
            self._position, self._fresh = (int(epoch), 0), True
            running = self._running() if self._running is not None else None
            if running is not None:
                running.move(self._position)

    @property
    def sampler(self) -> "_Sampler":
        """An object with :meth:`set_epoch`, for loops that call it on a sampler, as those of DINO
        and Lightning do."""
        return _Sampler(self)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position after the last batch that was delivered, for
        :meth:`load_state_dict`."""
        return {
            "version": _STATE_VERSION,
            "epoch": self._position[0],
            "step": self._position[1],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "data": self._mark(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next ``iter()`` start at this position, without replaying batches. The number
        of processes or threads may differ.

        Raises:
            ValueError: if seed, batch size, or images are not those of the state, because the
                following batches would not be the ones that were left.
        """
        if state.get("version") != _STATE_VERSION:
            raise ValueError(f"the state has version {state.get('version')}, not {_STATE_VERSION}")
        here = {"seed": self.seed, "batch_size": self.batch_size, "data": self._mark()}
        for key, value in here.items():
            if state[key] != value:
                what = "images differ from" if key == "data" else f"{key} is {value}, not"
                of_state = "those of the state" if key == "data" else f"{state[key]} as in the state"
                raise ValueError(f"the {what} {of_state}: use the same, or start over")
        self.close()
        epoch, step = int(state["epoch"]), int(state["step"])
        self._position, self._fresh = (epoch + step // len(self), step % len(self)), True

    def close(self) -> None:
        """Stops the threads, which otherwise stop with the loader and the iterator."""
        self._stop()
        if self._idle is not None:
            self._idle[2].close()
            self._idle = None

    def _stop(self) -> None:
        """Closes the current iterator."""
        running = self._running() if self._running is not None else None
        if running is not None:
            running.close()
        self._running = None

    def _mark(self) -> str:
        """Returns a digest of the number of images and some of their names, to detect changes."""
        return hashlib.sha256(self.dataset.mark()).hexdigest()[:16]

    def _new(self, epoch: int, step: int) -> Any:
        native = _native.TrainLoader(self.dataset, epoch=epoch, step=step, **self._options)
        self._steps = native.steps_per_epoch
        return native

    def _keep(self, native: Any, position: tuple[int, int]) -> None:
        """Keeps a native loader whose next batch is at ``position``, for an iterator that starts
        there."""
        self._idle = (position, os.getpid(), native)

    def _take(self, position: tuple[int, int]) -> Any:
        """Returns a native loader whose next batch is at ``position``."""
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
        # Threads cannot be pickled; the position is kept.
        return {**self.__dict__, "_running": None, "_idle": None}

    def __repr__(self) -> str:
        part = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        images = f"{len(self.dataset)} images"
        return f"MultiCropLoader({images}, batch_size={self.batch_size}, {len(self)} steps{part})"


class _Sampler:
    """The part of a distributed sampler's interface that training loops use."""

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
        """Returns the number of batches that are left."""
        return 0 if self._done else len(self._loader) - self._next[1]

    def move(self, position: tuple[int, int]) -> None:
        """Changes the start, unless a batch was delivered. Lightning sets the epoch after
        ``iter()``."""
        if not self._begun:
            self._next = position
            if self._native is not None:
                self._native.close()
                self._native = None

    def close(self) -> None:
        """Stops the threads."""
        self._done = True
        if self._native is not None:
            self._native.close()
            self._native = None
