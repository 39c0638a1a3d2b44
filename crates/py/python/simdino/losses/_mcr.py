"""``MCRLoss``, the loss of SimDINO under its name in the published code."""

from __future__ import annotations

import warnings
from typing import Optional

import torch
from torch import Tensor, nn

from ._simdino import SimDINOLoss, _processes


class MCRLoss(nn.Module):
    """A replacement for ``MCRLoss`` of the published code of SimDINO, with the same arguments,
    inputs, and outputs and, on one process, the same values.

    Unlike there, the coding rate is computed in single precision even under autocast, from the
    smaller Gram matrix, and with a closed-form gradient. A failed factorization is retried, and
    finally raises an error instead of returning NaN.

    In the published code, the covariance is computed from the images of one process, but divided
    by the number of all images, so the loss and the result of training depend on the number of
    GPUs. ``rate_groups`` sets the number of groups that the whole batch is split into, independent
    of the number of processes: 8 with a batch of 512 is the paper's run on 8 GPUs. By default, each
    process is one group, as published, and with several processes, a warning is issued.

    Args:
        ncrops: number of views of the student.
        reduce_cov: 1 for one covariance of the whole batch, like ``rate_groups=1``.
        expa_type: 0 to spread the student's features, 1 for the mean of student and teacher.
        eps: the square of the paper's epsilon.
        coeff: weight of the similarity.
        rate_groups: number of groups of the whole batch.
    """

    def __init__(
        self,
        ncrops: int,
        reduce_cov: int = 0,
        expa_type: int = 0,
        eps: float = 0.5,
        coeff: float = 1.0,
        *,
        rate_groups: Optional[int] = None,
    ) -> None:
        super().__init__()
        if reduce_cov not in (0, 1) or expa_type not in (0, 1):
            raise ValueError("reduce_cov and expa_type must be 0 or 1")
        if reduce_cov == 1 and rate_groups not in (None, 1):
            raise ValueError("reduce_cov=1 implies rate_groups=1: set only one of them")
        self.ncrops, self.reduce_cov, self.expa_type = ncrops, reduce_cov, expa_type
        self.eps, self.coeff = eps, coeff
        self.rate_groups = 1 if reduce_cov == 1 else rate_groups

    def forward(self, student_feat: Tensor, teacher_feat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes the loss, and the detached compression and expansion, all 0-dimensional, of
        features ``[ncrops * B, d]`` and ``[2 * B, d]``, view by view."""
        width = student_feat.shape[-1]
        student = student_feat.reshape(self.ncrops, -1, width)
        teacher = teacher_feat.reshape(2, -1, width)
        groups, processes = self.rate_groups, _processes(None)[0]
        if groups is None:
            groups = processes
            if processes > 1:
                warnings.warn(
                    f"MCRLoss without rate_groups depends on the number of processes, here "
                    f"{processes}, as in the published code: set rate_groups={processes} to keep "
                    "this loss on any other number",
                    stacklevel=2,
                )
        source = "mean_student_teacher" if self.expa_type == 1 else "student"
        loss = SimDINOLoss(
            eps=self.eps, coeff=self.coeff, expa_source=source, rate_groups=groups
        )
        output = loss(student, teacher)
        return output.loss, output.compression, output.expansion
