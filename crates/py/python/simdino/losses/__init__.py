"""The losses of SimDINO and SimDINOv2 in plain torch, for your own training loop.

- :func:`coding_rate`: the coding rate and its closed-form gradient.
- :class:`SimDINOLoss`, :class:`SimDINOv2Loss`: the losses, with the same options and results as in
  the program `simdino`. They do not depend on the number of processes.
- :class:`MCRLoss`: a replacement for the class of that name in the published code.

They run on every device of torch, under autocast, and in DistributedDataParallel. Nothing is
compiled, and only this module imports torch (torch >= 2.1).
"""

try:
    import torch
except ImportError as error:
    raise ImportError(
        "simdino.losses needs torch >= 2.1, which this Python cannot import: pip install torch"
    ) from error

if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 1):
    raise ImportError(f"simdino.losses needs torch >= 2.1 (found {torch.__version__})")

from ._mcr import MCRLoss
from ._patches import koleo, patch_loss
from ._rate import (
    FeatureError,
    coding_rate,
    rate_ceiling,
    rate_floor,
    rate_position,
)
from ._simdino import SimDINOLoss, SimDINOOutput, SimDINOv2Loss

__all__ = [
    "FeatureError",
    "MCRLoss",
    "SimDINOLoss",
    "SimDINOOutput",
    "SimDINOv2Loss",
    "coding_rate",
    "koleo",
    "patch_loss",
    "rate_ceiling",
    "rate_floor",
    "rate_position",
]
