"""Additional terms of SimDINOv2: masked patches and KoLeo."""

from __future__ import annotations

import torch
from torch import Tensor

# Smallest norm used as a divisor; it bounds the gradient of a row that is close to zero.
_NORM = 1e-8
_KOLEO = 1e-8


def unit_rows(x: Tensor) -> Tensor:
    """Divides each row by its norm."""
    square = x.square().sum(-1, keepdim=True)
    return x / square.clamp_min(_NORM * _NORM).sqrt()


def in_working_precision(x: Tensor) -> Tensor:
    """Converts all types except double precision to single precision."""
    return x if x.dtype == torch.float64 else x.float()


def patch_loss(student: Tensor, teacher: Tensor, weights: Tensor, crops: int) -> Tensor:
    """Computes the negative mean cosine similarity of masked patches.

    Args:
        student: outputs for the patches that were masked for the student, ``[m, k]``.
        teacher: outputs for the same patches, which were visible to the teacher, ``[m, k]``.
        weights: one over the number of masked patches in the same crop, ``[m]``
            (``mask_weights`` of a batch).
        crops: number of global crops, masked or not: ``2 B``.

    Returns:
        A 0-dimensional tensor, in which every masked crop has the same weight; 0 without masked
        patches.
    """
    if student.dim() != 2 or student.shape != teacher.shape or weights.shape != student.shape[:1]:
        raise ValueError(
            "patches must be [m, k] for student and teacher, and weights [m] (got "
            f"{list(student.shape)}, {list(teacher.shape)}, {list(weights.shape)})"
        )
    if crops < 1:
        raise ValueError(f"crops must be at least 1 (got {crops})")
    student, teacher = in_working_precision(student), in_working_precision(teacher.detach())
    similarity = (unit_rows(student) * unit_rows(teacher)).sum(-1)
    return (similarity * weights.to(similarity)).sum() / -crops


def koleo(x: Tensor, groups: int = 1) -> Tensor:
    """Computes KoLeo, which pushes each feature away from the nearest neighbor in its group, summed
    over views.

    Args:
        x: class tokens of the student's backbone for the global views, ``[views, B, D]``.
        groups: number of parts of the batch within which neighbors are searched.
    """
    views, batch, width = x.shape
    if batch % groups or batch // groups < 2:
        raise ValueError(f"KoLeo needs groups of at least 2 images (got {batch} in {groups})")
    rows = unit_rows(in_working_precision(x).reshape(views * groups, batch // groups, width))
    with torch.no_grad():
        products = rows @ rows.mT
        own = torch.eye(rows.shape[1], dtype=torch.bool, device=x.device)
        nearest = products.masked_fill(own, -2.0).argmax(-1)
    other = rows.gather(1, nearest.unsqueeze(-1).expand_as(rows))
    distance = (rows - other + _KOLEO).square().sum(-1).sqrt()
    return (distance + _KOLEO).log().mean() * -views
