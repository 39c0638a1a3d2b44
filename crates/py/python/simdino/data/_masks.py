"""Block-wise masks of patches, as in iBOT, DINOv2, and SimDINOv2."""

from __future__ import annotations

from typing import Any, NamedTuple, Union

from .. import _native
from ._process import place
from ._source import as_json


class Masks(NamedTuple):
    """The masks of B images, each with two global crops of T patches, m of which are hidden in
    total."""

    masks: Any
    """bool ``[2 * B, T]``: True where a patch is hidden, in the order of the global crops."""
    indices: Any
    """int64 ``[m]``: places of the hidden patches in the flattened masks, ascending."""
    weights: Any
    """float32 ``[m]``: one over the number of hidden patches of the same crop."""
    upper_bound: int
    """Upper bound of ``m`` for this batch size, for allocating buffers."""


class MaskGenerator:
    """Draws masks for the global crops of a batch.

    A fraction of the crops is masked, with ratios that are spread evenly over a range. A mask is a
    union of rectangles.

    Args:
        grid: number of patches along a side of a crop, or (height, width).
        mask_probability: fraction of the global crops that are masked.
        mask_ratio: fraction of the patches that are hidden in a masked crop, (low, high).
        min_patches: smallest area of a block, in patches.
        min_aspect: smallest aspect ratio of a block; the largest is its inverse.
        seed: seed of the masks.
    """

    def __init__(
        self,
        grid: Union[int, tuple[int, int]],
        mask_probability: float = 0.5,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        min_patches: int = 4,
        min_aspect: float = 0.3,
        seed: int = 0,
    ) -> None:
        height, width = (grid, grid) if isinstance(grid, int) else grid
        self.seed = seed
        self._state = ((height, width), mask_probability, mask_ratio, min_patches, min_aspect, seed)
        config = {
            "mask_probability": mask_probability,
            "mask_ratio": list(mask_ratio),
            "min_patches": min_patches,
            "min_aspect": min_aspect,
        }
        self._masks = _native.MaskGenerator(as_json(config, "masks"), height, width)

    def __call__(
        self,
        batch_size: int,
        epoch: int = 0,
        step: int = 0,
        rank: Union[int, None] = None,
        world_size: Union[int, None] = None,
    ) -> Masks:
        """Returns the masks of one process in a step; ``batch_size`` counts the images of all
        processes.

        The masks are a function of (seed, epoch, step) and the batch size: all processes together
        draw the same masks as a single one.
        """
        rank, world_size = place(rank, world_size)
        key = (self.seed, epoch, step)
        return Masks(*self._masks.batch(key, batch_size, rank, world_size))

    def __reduce__(self) -> Any:
        return MaskGenerator, self._state
