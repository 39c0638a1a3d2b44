"""``MCRLoss``, as the published code calls the loss of SimDINO."""

from __future__ import annotations

import warnings
from typing import Optional

import torch
from torch import Tensor, nn

from ._simdino import SimDINOLoss, _processes


class MCRLoss(nn.Module):
    """Takes the place of ``MCRLoss`` in the published code of SimDINO: the same arguments, inputs,
    and results, and on one process the same numbers.

    What is different: the coding rate is computed in single precision even under autocast, on the
    smaller side, with a gradient in closed form, and a factorization that fails is retried and is
    then an error rather than NaN.

    And one thing can be, which you should know: in the published code, the covariance is that of
    the images of one process but is divided by the number of all, so the loss, and what training
    makes of it, depends on the number of GPUs. ``rate_groups`` says into how many groups the whole
    batch is split, on any number of processes: 8 with a batch of 512 is the paper's run on 8 GPUs.
    By default, each process is one group, as published, and a warning says so.

    Args:
        ncrops: number of views of the student.
        reduce_cov: 1 for one covariance of the whole batch, as ``rate_groups=1``.
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
            raise ValueError("reduce_cov=1 means rate_groups=1: give one of them")
        self.ncrops, self.reduce_cov, self.expa_type = ncrops, reduce_cov, expa_type
        self.eps, self.coeff = eps, coeff
        self.rate_groups = 1 if reduce_cov == 1 else rate_groups

    def forward(self, student_feat: Tensor, teacher_feat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[ncrops * B, d]`` and ``[2 * B, d]``, view by view, to the loss, and the detached terms
        of compression and expansion, all 0-dimensional."""
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
