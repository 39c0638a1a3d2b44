"""Multi-crop data loading with native threads.

    from simdino.data import MultiCropLoader, to_float

    loader = MultiCropLoader("photos/", batch_size=64, preset="dino", seed=0)
    for batch in loader:                       # uint8, [2 * 64, 224, 224, 3] and [8 * 64, 96, 96, 3]
        views = to_float(batch, "cuda")        # 10 tensors [64, 3, S, S], as in DINO's loop

The contents of a batch depend only on the images, the options, the seed, and the position, and not
on the number of threads or processes, or on where a run was interrupted.
"""

try:
    import numpy as _numpy  # noqa: F401
except ImportError as error:
    raise ImportError(
        "simdino.data needs NumPy, which this Python cannot import: pip install numpy"
    ) from error

from ._batch import Batch, BrokenImage, to_float
from ._eval import EvalBatch, EvalLoader
from ._image import MultiCrop, decode
from ._loader import MultiCropLoader
from ._masks import MaskGenerator, Masks

__all__ = [
    "Batch",
    "BrokenImage",
    "EvalBatch",
    "EvalLoader",
    "MaskGenerator",
    "Masks",
    "MultiCrop",
    "MultiCropLoader",
    "decode",
    "to_float",
]
