"""The coding rate ``R(Z) = 1/2 logdet(I + alpha Z^T Z)`` and its gradient in closed form.

For ``n`` rows of width ``d``, both follow from the smaller of two Gram matrices, because
``I + alpha Z Z^T`` has the same determinant as ``I + alpha Z^T Z``, and

    dR/dZ = alpha Z (I + alpha Z^T Z)^-1 = alpha (I + alpha Z Z^T)^-1 Z

so no backward pass through a factorization is needed.
"""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple, Optional

import torch
from torch import Tensor

# Matrices up to this size are factorized in double precision. It takes no longer, and is more
# accurate near a collapse, where the identity is added to far larger numbers.
_SMALL = 128
_DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
# Added to the diagonal after a failure, in units of its mean.
_JITTERS = (1e-6, 1e-4)


class FeatureError(ArithmeticError):
    """The features are not finite, or their covariance cannot be factorized."""


class Rates(NamedTuple):
    """Values ``[G]``, gradients ``[G, n, d]``, and the number of retries; values are 0-dimensional
    and gradients ``[n, d]`` for rows without groups."""

    value: Tensor
    gradient: Tensor
    retries: int


def rate_floor(alpha: float, n: int) -> float:
    """Returns the coding rate of ``n`` equal rows of norm 1: ``1/2 log(1 + alpha n)``."""
    return 0.5 * math.log1p(alpha * n)


def rate_ceiling(alpha: float, n: int, d: int) -> float:
    """Returns the coding rate of ``n`` rows of norm 1, spread evenly over ``min(n, d)``
    directions."""
    return spread_over(min(n, d), alpha, n)


def spread_over(directions: int, alpha: float, n: int) -> float:
    """Returns the coding rate of ``n`` rows of norm 1, spread evenly over ``directions``
    directions."""
    if directions == 0:
        return 0.0
    return 0.5 * directions * math.log1p(alpha * n / directions)


def rate_position(rate: Tensor | float, alpha: float, n: int, d: int) -> Tensor | float:
    """Returns the position of ``rate`` between its floor (0, collapsed) and ceiling (1, evenly
    spread)."""
    floor, ceiling = rate_floor(alpha, n), rate_ceiling(alpha, n, d)
    return (rate - floor) / max(ceiling - floor, 1e-6 * ceiling)


def coding_rate(
    z: Tensor,
    eps: Optional[float] = None,
    *,
    alpha: Optional[float] = None,
    center: bool = False,
    precision: str = "fp32",
    process_group: Optional[torch.distributed.ProcessGroup] = None,
) -> Tensor:
    """Computes the coding rate of each group of rows, with a closed-form backward pass.

    Args:
        z: features ``[n, d]`` or ``[G, n, d]``, of any floating-point type.
        eps: as in the published code, where it stands for the square of the paper's epsilon:
            ``alpha = d / (n eps)``. Give either this or ``alpha``.
        alpha: the factor of the covariance.
        center: whether to subtract the mean of each group first.
        precision: ``"fp32"`` or ``"fp64"``, for the Gram matrix and the factorization; autocast
            has no effect.
        process_group: the processes whose rows together form each group. ``n`` remains the number
            of rows of this process, so give ``alpha``. The gradient is multiplied by the number of
            processes, because DistributedDataParallel averages it.

    Returns:
        ``[G]``, or a 0-dimensional tensor for ``[n, d]``, in ``precision``.

    Raises:
        FeatureError: if features are not finite, or a factorization fails after all retries.
        ValueError: if a shape or option is invalid.
    """
    if z.dim() not in (2, 3) or z.numel() == 0 or not z.is_floating_point():
        raise ValueError(
            f"z must be floating point of shape [n, d] or [G, n, d] (got {z.dtype} {list(z.shape)})"
        )
    if (eps is None) == (alpha is None):
        raise ValueError("pass either eps or alpha")
    if eps is not None:
        if not eps > 0:
            raise ValueError(f"eps must be greater than 0 (got {eps})")
        alpha = z.shape[-1] / (z.shape[-2] * float(eps))
    if alpha is None or not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha must be greater than 0 (got {alpha})")
    working_dtype(precision)
    return _CodingRate.apply(z, alpha, center, precision, process_group)


def working_dtype(precision: str) -> torch.dtype:
    """Returns the type for a precision."""
    try:
        return _DTYPES[precision]
    except KeyError:
        raise ValueError(f"precision must be 'fp32' or 'fp64' (got {precision!r})") from None


def _autocasts_on_cpu() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # before torch 2.4
        return torch.is_autocast_cpu_enabled()


def without_autocast(device: torch.device):
    """Returns a context in which autocast is off for this device."""
    kind = device.type
    if kind not in ("cpu", "cuda", "xpu"):
        return contextlib.nullcontext()  # not all versions of torch have autocast for others
    if kind == "cpu" and not _autocasts_on_cpu():
        return contextlib.nullcontext()  # cheaper
    return torch.autocast(device_type=kind, enabled=False)


class _CodingRate(torch.autograd.Function):
    """The coding rate of ``[n, d]`` or ``[G, n, d]`` with a closed-form backward pass."""

    @staticmethod
    def forward(ctx, z, alpha, center, precision, process_group):
        rates = rates_of_groups(z, alpha, center, precision, process_group)
        ctx.save_for_backward(rates.gradient, z)
        return rates.value

    @staticmethod
    def backward(ctx, grad):
        return _scaled(grad, *ctx.saved_tensors), None, None, None, None


def _scaled(grad: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
    """Returns the gradient of the loss with respect to ``z``, given that with respect to the rates,
    ``grad``, and the gradient of the rates."""
    scale = grad if grad.dim() == 0 else grad.view(-1, 1, 1)
    scaled = gradient * scale.to(gradient.dtype)
    # Autograd treats the closed form as a constant, so create_graph would be silently wrong.
    return _DifferentiableOnce.apply(scaled, z) if torch.is_grad_enabled() else scaled


class _DifferentiableOnce(torch.autograd.Function):
    """Marks a gradient as dependent on ``z``, and raises an error if it is differentiated."""

    @staticmethod
    def forward(ctx, gradient, z):
        return gradient.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("the coding rate has no second derivative: its gradient is a closed form")


class _Attached(torch.autograd.Function):
    """Precomputed rates, with their closed-form gradient as the backward pass."""

    @staticmethod
    def forward(ctx, z, value, gradient):
        ctx.save_for_backward(gradient, z)
        return value.clone()

    @staticmethod
    def backward(ctx, grad):
        return _scaled(grad, *ctx.saved_tensors), None, None


def attached(z: Tensor, rates: Rates) -> Tensor:
    """Returns the values ``[G]`` as a differentiable function of ``z``, ``[G, n, d]``."""
    return _Attached.apply(z, rates.value, rates.gradient)


def rates_of_groups(
    z: Tensor,
    alpha: float,
    center: bool = False,
    precision: str = "fp32",
    process_group=None,
    other: Optional[Tensor] = None,
) -> Rates:
    """Returns values and gradients of all groups ``[G, n, d]``, or of one, ``[n, d]``. Synchronizes
    with the device once, to check them and ``other``, which must be finite, too. Must be called
    without autograd."""
    with without_autocast(z.device):
        work = z.to(working_dtype(precision))
        if center:
            work = _centered(work, process_group)
        across = process_group is not None
        samples = not across and work.shape[-2] <= work.shape[-1]
        matrix = _matrix(work, alpha, samples, process_group)
        lower, value, info = _factorize(matrix)
        retries = 0
        if _is_bad(info, value, other):  # the only synchronization with the device
            if other is not None and not bool(other.isfinite().all()):
                raise FeatureError("the similarity of the views is not finite")
            factors = (work, matrix, lower, value, info)
            if work.dim() == 2:
                factors = tuple(tensor.unsqueeze(0) for tensor in factors)
            lower, value, retries = _recover(*factors, alpha, samples, across)
            lower, value = lower.view_as(matrix), value.view_as(info)
        gradient = _gradient(lower, work, samples, alpha)
        if across:
            gradient = gradient * torch.distributed.get_world_size(process_group)
        return Rates(value, gradient.to(z.dtype), retries)


def _is_bad(info: Tensor, value: Tensor, other: Optional[Tensor]) -> bool:
    if other is None and info.dim() == 0 and info.device.type == "cpu":
        return info.item() != 0 or not math.isfinite(value.item())  # faster than torch's operators
    bad = _failed(info, value).any()
    if other is not None:
        bad = bad | ~other.detach().isfinite().all()
    return bool(bad)


def _failed(info: Tensor, value: Tensor) -> Tensor:
    """Returns a tensor that is nonzero where the factorization failed, and NaN where the value is
    not finite."""
    return torch.sub(info, value, alpha=0)


def _centered(z: Tensor, process_group) -> Tensor:
    total = z.sum(-2, keepdim=True)  # [G, 1, d]
    rows = torch.full((), z.shape[-2], dtype=torch.float64, device=z.device)
    if process_group is not None:
        torch.distributed.all_reduce(total, group=process_group)
        torch.distributed.all_reduce(rows, group=process_group)
    return z - total / rows.to(z.dtype)


def _matrix(z: Tensor, alpha: float, samples: bool, process_group=None) -> Tensor:
    """Returns ``I + alpha K``, ``[G, p, p]``, where ``K`` is the Gram matrix of the samples or of
    the features."""
    left, right = (z, z.mT) if samples else (z.mT, z)
    eye = torch.eye(left.shape[-2], dtype=z.dtype, device=z.device)
    if process_group is None:
        product = torch.addmm if z.dim() == 2 else torch.baddbmm
        return product(eye, left, right, alpha=alpha)
    gram = left @ right
    torch.distributed.all_reduce(gram, group=process_group)
    return gram.mul_(alpha).add_(eye)


def _factorize(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the lower factor, half the log-determinant ``[G]``, and ``[G]`` that is nonzero where
    the factorization failed."""
    small = matrix.shape[-1] <= _SMALL and matrix.device.type != "mps"  # no doubles on MPS
    lower, info = torch.linalg.cholesky_ex(matrix.double() if small else matrix)
    half = lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return lower, half.to(matrix.dtype), info


def _gradient(lower: Tensor, z: Tensor, samples: bool, alpha: float) -> Tensor:
    if lower.shape[-1] <= _SMALL and lower.device.type == "cpu":
        inverse = torch.cholesky_inverse(lower)  # on other devices, this would synchronize
    else:
        eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
        inverse = torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
        inverse = inverse.mT @ inverse
    inverse = inverse.to(z.dtype)
    left, right = (inverse, z) if samples else (z, inverse)
    product = torch.addmm if z.dim() == 2 else torch.baddbmm
    return product(z, left, right, beta=0, alpha=alpha)  # beta=0 ignores z, except for its shape


def _recover(z, matrix, lower, value, info, alpha, samples, across):
    """Retries failed groups: first with jitter, and then in double precision."""
    lower, value, retries = lower.double(), value.clone(), 0
    for group in _failed(info, value).nonzero().flatten().tolist():
        if not bool(z[group].isfinite().all()):
            raise FeatureError(f"the features of group {group} of the coding rate are not finite")
        own = matrix[group : group + 1]
        eye = torch.eye(own.shape[1], dtype=own.dtype, device=own.device)
        mean = own.diagonal(dim1=-2, dim2=-1).mean()
        tries = [lambda jitter=jitter: own + eye * mean * jitter for jitter in _JITTERS]
        if matrix.dtype != torch.float64:
            # With several processes, the summed matrix is only converted: others may not have
            # failed, so they would not take part in a new sum.
            rows = z[group : group + 1].double()
            tries.append(lambda: own.double() if across else _matrix(rows, alpha, samples))
        for attempt in tries:
            retries += 1
            factor, half, still = _factorize(attempt())
            if not _is_bad(still, half, None):
                lower[group], value[group] = factor[0].double(), half[0]
                break
        else:
            raise FeatureError(
                f"the covariance of group {group} of the coding rate cannot be factorized: its "
                "features are too large or too close to each other"
            )
    return lower, value, retries
