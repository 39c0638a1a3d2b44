"""Batches, and their transfer to a device."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence

if TYPE_CHECKING:
    import torch

    from ._masks import Masks

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BrokenImage:
    """An image that could not be used."""

    index: int
    """Index in the dataset."""
    name: str
    """Name in its source."""
    reason: str
    """The reason, in one line."""


@dataclass
class Batch:
    """The crops of the B images of one process. Arrays are from NumPy or torch, depending on the
    ``output`` of the loader."""

    global_crops: Any
    """uint8 ``[2 * B, S, S, C]``: all B of the first view, then all B of the second."""
    local_crops: Optional[Any]
    """uint8 ``[V * B, s, s, C]``, view by view; None without local views."""
    masks: Optional["Masks"]
    """Masks of the global crops, if the loader was given a patch size."""
    samples: Any
    """int64 ``[B]``: index of each image in the dataset. A broken image is replaced by another."""
    epoch: int
    """Epoch, from 0."""
    step: int
    """Step in the epoch, from 0."""
    broken: list[BrokenImage] = field(default_factory=list)
    """Images that were found to be broken for the first time."""
    mean: Sequence[float] = MEAN
    """Mean of each channel, for :func:`to_float`."""
    std: Sequence[float] = STD
    """Standard deviation of each channel."""

    def __len__(self) -> int:
        """Returns the number of images, B."""
        return len(self.samples)

    def map(self, change: Callable[[Any], Any]) -> "Batch":
        """Returns the same batch with ``change`` applied to every array."""
        masks = self.masks
        if masks is not None:
            arrays = (change(masks.masks), change(masks.indices), change(masks.weights))
            masks = type(masks)(*arrays, masks.upper_bound)
        return replace(
            self,
            global_crops=change(self.global_crops),
            local_crops=None if self.local_crops is None else change(self.local_crops),
            masks=masks,
            samples=change(self.samples),
        )

    def to(self, device: Any, non_blocking: bool = False) -> "Batch":
        """Returns the batch as torch tensors on a device."""
        return self.map(lambda array: as_tensor(array).to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Returns the batch as torch tensors in page-locked memory, which takes one copy."""
        return self.map(lambda array: as_tensor(array).pin_memory())


def torch_module():
    """Returns the module torch, or raises an ImportError with advice."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "this needs torch, which this Python cannot import: pip install torch, or leave the "
            "arrays in NumPy"
        ) from error
    return torch


def as_tensor(array: Any) -> "torch.Tensor":
    """Returns a tensor that shares the memory of an array."""
    torch = torch_module()
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)


def to_float(
    batch: Batch,
    device: Any = None,
    dtype: Optional["torch.dtype"] = None,
    channels_last: bool = False,
    mean: Optional[Sequence[float]] = None,
    std: Optional[Sequence[float]] = None,
) -> list["torch.Tensor"]:
    """Returns the normalized views of a batch, in the form that DINO's training loop expects.

    The bytes are copied to the device and converted to floats there, which transfers a quarter of
    the memory.

    Args:
        batch: a batch of the loader.
        device: device of the views; by default that of the batch.
        dtype: data type of the views; float32 by default.
        channels_last: whether tensors keep the memory format of the batch, which saves a copy.
        mean, std: for each channel on the scale [0, 1]; by default those of the loader.

    Returns:
        ``2 + V`` tensors: the two global views ``[B, C, S, S]``, then the local views
        ``[B, C, s, s]``.
    """
    torch = torch_module()
    dtype = torch.float32 if dtype is None else dtype
    mean, std = batch.mean if mean is None else mean, batch.std if std is None else std
    views: list[Any] = []
    for crops in (batch.global_crops, batch.local_crops):
        if crops is None:
            continue
        pixels = as_tensor(crops)
        channels = pixels.shape[-1]
        if len(mean) != channels or len(std) != channels:
            raise ValueError(
                f"mean and std need one value per channel, that is {channels} (got {len(mean)} and "
                f"{len(std)})"
            )
        if device is not None:
            pixels = pixels.to(device, non_blocking=pixels.is_pinned())
        scale = torch.tensor([1 / (255 * s) for s in std], device=pixels.device)
        shift = torch.tensor([-m / s for m, s in zip(mean, std)], device=pixels.device)
        values = torch.addcmul(shift, pixels.float(), scale).permute(0, 3, 1, 2)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        values = values.to(dtype).contiguous(memory_format=layout)
        views.extend(values.split(len(batch)))
    return views
