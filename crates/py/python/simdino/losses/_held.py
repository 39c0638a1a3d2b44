"""The held trade-off: adapts the weight of the similarity so that the coding rate follows a path.

With ``p`` the path, ``e = position - p`` of the last step, and ``r = min(m, d)`` for groups of
``m`` rows:

    kappa = alpha m / r
    s     = (exp(2/r (floor + p (ceiling - floor))) - 1) / kappa
    log c = log(gamma r / (2 s)) + I + 6 e
    I    <- clamp(I + 90 e * progress made by the step (at most 1/50), -3, log(s kappa / 2) + 6 p)

``I`` stays 0 until the position has first reached the path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from ._weights import Options, Sizes, Weights

_PROPORTIONAL = 6.0  # change of log c per unit of position
_INTEGRAL = 90.0  # change of log c per unit of position over a whole training
_LONGEST_STEP = 0.02  # largest progress that a step counts for
_LEAST = -3.0  # lower bound of I


@dataclass(frozen=True)
class Path:
    """The position on the path, ``log(gamma r / (2 s))``, the upper bound of ``I``, and the
    fraction of the training that is done."""

    position: float
    log_rest: float
    most: float
    progress: float


def path_at(options: Options, progress: float, weights: Weights, sizes: Sizes) -> Path:
    """Returns the path at a fraction of the training."""
    done = min(progress / options.position_by, 1.0)
    position = options.position_start + done * (options.position_end - options.position_start)
    # Subtracting the mean of a group removes one direction.
    rows = sizes.rows - 1 if options.center_cov else sizes.rows
    directions = max(min(rows, sizes.width), 1)
    kappa = weights.alpha * sizes.rows / directions
    rate = weights.floor + position * (weights.ceiling - weights.floor)
    spread = math.expm1(2.0 / directions * rate)  # s kappa
    log_rest = math.log(weights.gamma * directions * kappa / (2.0 * spread))
    most = max(math.log(0.5 * spread) + _PROPORTIONAL * position, 0.0)
    return Path(position, log_rest, most, progress)


class Held:
    """The controller. Its state is ``[I, e, progress, reached]`` in double precision."""

    def __init__(self) -> None:
        self.state: Optional[Tensor] = None
        self.sums: Optional[Tensor] = None
        # Fraction of the training at which `sums` were recorded.
        self.recorded: Optional[float] = None

    def coeff(self, path: Path, like: Tensor) -> Tensor:
        """Returns the weight of this step, 0-dimensional."""
        if self.state is None:
            return torch.full_like(like.detach(), math.exp(path.log_rest))
        if self.state.device != like.device:
            self.state = self.state.to(like.device)
        log = self.state[0] + self.state[1] * _PROPORTIONAL + path.log_rest
        return log.exp().to(like.dtype)

    def record(self, position: Tensor, path: Path) -> None:
        """Adds the position of a (micro-)batch to the sums of the step."""
        position = position.detach().double()
        known = (path.position, path.most, path.progress, 1.0)
        sums = torch.stack([position, *(torch.full_like(position, value) for value in known)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.recorded = path.progress

    def update(self, process_group=None) -> None:
        """Updates the state with the recorded positions, averaged over micro-batches and
        processes."""
        if self.sums is None:
            return
        sums, self.sums, self.recorded = self.sums, None, None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums, group=process_group)
        mean = sums / sums[4]
        most, progress, error = mean[2], mean[3], mean[0] - mean[1]
        above = (error >= 0).double()
        if self.state is None:
            integral, reached = torch.zeros_like(error), above
        else:
            reached = torch.maximum(self.state[3], above)
            taken = (progress - self.state[2]).clamp(0, _LONGEST_STEP)
            step = taken * error * _INTEGRAL
            integral = (self.state[0] + step * reached).clamp_min(_LEAST).minimum(most)
        self.state = torch.stack([integral, error, progress, reached])
