"""The evaluation loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Optional, Sequence

from .. import _native
from ._batch import MEAN, STD, BrokenImage, as_tensor, torch_module
from ._process import refuse_workers, threads
from ._source import OpenData, Source, source_config

if TYPE_CHECKING:
    import torch


@dataclass
class EvalBatch:
    """B images in the order of the dataset, without broken ones."""

    images: Any
    """uint8 ``[B, S, S, C]``."""
    indices: Any
    """int64 ``[B]``: index of each image in the dataset."""
    labels: Any
    """int64 ``[B]``: class of each image, or -1."""
    broken: list[BrokenImage]
    """Images that were left out."""

    def __len__(self) -> int:
        return len(self.indices)

    def to_float(
        self, device: Any = None, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
    ) -> "torch.Tensor":
        """Returns the normalized images, float32 ``[B, C, S, S]``."""
        torch = torch_module()
        pixels = as_tensor(self.images)
        if device is not None:
            pixels = pixels.to(device)
        scale = torch.tensor([1 / (255 * s) for s in std], device=pixels.device)
        shift = torch.tensor([-m / s for m, s in zip(mean, std)], device=pixels.device)
        return torch.addcmul(shift, pixels.float(), scale).permute(0, 3, 1, 2).contiguous()


class EvalLoader:
    """Yields every image once, in order. The shorter side is resized (bicubic, antialiased), and
    the central square is cropped.

    Args:
        source: as for :class:`MultiCropLoader`.
        batch_size: images per batch; broken images and the end of the dataset make it smaller.
        resize: length of the shorter side in pixels.
        crop: side of the square in pixels.
        workers: number of threads; by default this process's share of the cores, minus one.
        channels: channels per pixel.
        data: further keys of section ``data`` of a config file.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 64,
        resize: int = 256,
        crop: int = 224,
        *,
        workers: Optional[int] = None,
        channels: int = 3,
        data: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self._data = OpenData(source_config(source, data or {}), channels)
        self._options = (resize, crop, batch_size, threads(workers))
        self.broken: list[BrokenImage] = []
        """Broken images found in the last pass."""
        _native.EvalLoader(self._data.get(), *self._options)  # reports invalid options now

    def __len__(self) -> int:
        """Returns the number of batches."""
        return -(-len(self.dataset) // self._options[2])

    @property
    def dataset(self) -> "_native.Dataset":
        """The images: ``len``, ``name(index)``, ``label(index)``, ``class_names``, ``notices``."""
        return self._data.get()

    def __iter__(self) -> Iterator[EvalBatch]:
        refuse_workers("EvalLoader")
        self.broken.clear()
        native = _native.EvalLoader(self.dataset, *self._options)
        while (made := native.next()) is not None:
            images, indices, labels, broken = made
            found = [BrokenImage(*image) for image in broken]
            self.broken.extend(found)
            yield EvalBatch(images, indices, labels, found)
