"""The losses of SimDINO and SimDINOv2.

There are ``V`` views, the first 2 of which are global, ``B`` images of this process and
micro-batch, and features of width ``d``. With the batch size ``n`` of all processes and
micro-batches together, and ``N`` rate groups:

    compression = mean cosine of each teacher view with every other student view
    alpha = d / (n eps)        gamma = 1/n + 1/d, or as configured
    expansion = gamma * mean over 2 views and the groups of 1/2 logdet(I + alpha F^T F)
    loss = -coeff * compression - expansion

``F`` holds the ``n / N`` rows of a group. A group stands for one process of the published run.
Here, the groups are part of the loss, so that it is the same on any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from ._held import Held, path_at
from ._patches import in_working_precision, koleo, patch_loss, unit_rows
from ._rate import FeatureError, attached, rates_of_groups, without_autocast
from ._weights import Options, Sizes, Weights, weights_at

GLOBAL_VIEWS = 2


@dataclass
class SimDINOOutput:
    """The loss and its parts. All tensors are 0-dimensional; only ``loss`` has a gradient."""

    loss: Tensor
    """The loss, to be minimized."""
    compression: Tensor
    """Mean similarity of different views, at most 1."""
    expansion: Tensor
    """Weighted coding rate."""
    position: Tensor
    """Where the coding rate is between its floor (0, collapsed) and its ceiling (1, evenly spread)."""
    floor: float
    """The weighted coding rate of equal features."""
    ceiling: float
    """The weighted coding rate of evenly spread features of norm 1."""
    coeff: Union[float, Tensor]
    """Weight of the similarity in this step."""
    gamma: float
    """Weight of the coding rate in this step."""
    retries: int
    """Number of repeated factorizations; above 0, the matrices are nearly singular."""
    path: Optional[float] = None
    """With ``coeff_rule="held"``, the position that the rule aims at."""
    patches: Optional[Tensor] = None
    """The loss of masked patches, without its weight."""
    koleo: Optional[Tensor] = None
    """KoLeo, without its weight."""


class SimDINOLoss(nn.Module):
    """The loss of SimDINO, which makes views of an image agree and spreads the features of a batch.

    It has no parameters. The arguments are the keys of section ``simdino`` of a config file of the
    program, with the same meaning and defaults; docs/OBJECTIVES.md explains them. The only
    exception is ``gamma="balanced"`` with ``gamma_balance``, which only the program supports,
    because it needs the gradients of both terms after each step.

    Args:
        eps, eps_end, eps_semantics: quantization error of the coding rate; its value at the end
            of the training, if it changes along a cosine; and its meaning: that of the published
            code (``"code"``), the square root of that (``"paper"``), or the variance of the noise
            relative to that of evenly spread features in each direction (``"relative"``), with
            which the rate does not depend on the width of wide features.
        coeff, coeff_end: weight of the similarity, and its value at the end of the training.
        coeff_rule: ``"scheduled"``, or ``"held"``, which adapts the weight so that the position
            of the coding rate follows a path, without tuning. With ``"held"``, call :meth:`update`
            after each optimizer step. ``position_start``, ``position_end``, and ``position_by``
            define the path.
        gamma: weight of the coding rate: ``"code"``, ``"theorem"``, ``"ceiling"`` (with
            ``gamma_ceiling``), or a number; ``"balanced"`` is not supported.
        expa_source: the features that are spread: ``"mean_student_teacher"`` or ``"student"``.
        rate_groups: number of groups that the batch of all processes is split into. 8 with a
            batch of 512 is the paper's run.
        group_rows: images per group, which replaces ``rate_groups``. A group then stands for the
            whole batch in the formulas, so that the loss does not depend on the batch size. A
            batch that is not larger is one group.
        center_cov: whether to subtract the mean of each group.
        loss_form: ``"neg_cos"`` or ``"half_sq_l2"``.
        precision: ``"fp32"`` or ``"fp64"``, for the coding rate.
        process_group: the processes of the run; all of torch.distributed by default.
    """

    def __init__(
        self,
        eps: float = 0.05,
        eps_end: Optional[float] = None,
        eps_semantics: str = "code",
        coeff: float = 1.0,
        coeff_end: Optional[float] = None,
        coeff_rule: str = "scheduled",
        position_start: float = 0.85,
        position_end: float = 0.5,
        position_by: float = 0.4,
        gamma: Union[str, float] = "code",
        gamma_ceiling: float = 0.45,
        expa_source: str = "mean_student_teacher",
        rate_groups: int = 8,
        group_rows: Optional[int] = None,
        center_cov: bool = False,
        loss_form: str = "neg_cos",
        precision: str = "fp32",
        process_group: Any = None,
    ) -> None:
        super().__init__()
        self.options = Options(
            eps=eps,
            eps_end=eps_end,
            eps_semantics=eps_semantics,
            coeff=coeff,
            coeff_end=coeff_end,
            coeff_rule=coeff_rule,
            position_start=position_start,
            position_end=position_end,
            position_by=position_by,
            gamma=gamma,
            gamma_ceiling=gamma_ceiling,
            expa_source=expa_source,
            rate_groups=rate_groups,
            group_rows=group_rows,
            center_cov=center_cov,
            loss_form=loss_form,
            precision=precision,
        )
        self.process_group = process_group
        self._held = Held() if coeff_rule == "held" else None

    def extra_repr(self) -> str:
        options = self.options
        rows = options.group_rows
        groups = f"rate_groups={options.rate_groups}" if rows is None else f"group_rows={rows}"
        return f"{groups}, eps={options.eps}"

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        progress: float = 0.0,
        batch_size: Optional[int] = None,
    ) -> SimDINOOutput:
        """Computes the loss of a (micro-)batch of this process, in single precision, or in double
        precision if the features are. Autocast has no effect. Averaged by DistributedDataParallel,
        the gradients are those of the whole batch.

        Args:
            student: unit rows ``[V, B, d]``, global views first, with gradients.
            teacher: unit rows ``[2, B, d]``; no gradient flows through it.
            progress: fraction of the training that is done, 0 to 1, for schedules and ``held``.
            batch_size: images per optimizer step over all processes and micro-batches. By default
                ``B`` times the number of processes; give it when you accumulate gradients.

        Raises:
            ValueError: if shapes are invalid, or the batch cannot be split into the rate groups.
            FeatureError: if features are not finite; the message names the network and view.
        """
        _check_features(student, teacher)
        with without_autocast(student.device):
            student = in_working_precision(student)
            teacher = in_working_precision(teacher.detach())
            return self._terms(student, teacher, progress, batch_size)

    def _terms(self, student, teacher, progress, batch_size) -> SimDINOOutput:
        options = self.options
        batch_size, groups, across = self._groups(student.shape[1], batch_size)
        rows = batch_size // options.groups(batch_size)
        # Groups of a fixed size take the place of the batch in the formulas, which then do not
        # depend on the number of groups.
        sizes = Sizes(rows if options.group_rows else batch_size, rows, student.shape[2])
        weights = weights_at(options, progress, sizes)
        similarity = _compression(student, teacher, options.loss_form)
        features = student[:GLOBAL_VIEWS]
        if options.expa_source == "mean_student_teacher":
            features = (features + teacher[: len(features)]) * 0.5
        rows = features.reshape(len(features) * groups, -1, student.shape[2])
        try:
            with torch.no_grad():
                rates = rates_of_groups(
                    rows, weights.alpha, options.center_cov, options.precision, across, similarity
                )
        except FeatureError as error:
            raise FeatureError(f"{error}{_which_view(student, teacher)}") from None
        rate = attached(rows, rates).to(student.dtype).mean()
        expansion = rate * weights.gamma
        apart = max(weights.ceiling - weights.floor, 1e-6 * weights.ceiling)
        position = (rate.detach() - weights.floor) / apart
        coeff, path = self._coeff(weights, sizes, progress, position, similarity)
        distance = 1.0 - similarity if options.loss_form == "half_sq_l2" else -similarity
        return SimDINOOutput(
            loss=distance * coeff - expansion,
            compression=similarity.detach(),
            expansion=expansion.detach(),
            position=position,
            floor=weights.gamma * weights.floor,
            ceiling=weights.gamma * weights.ceiling,
            coeff=coeff,
            gamma=weights.gamma,
            retries=rates.retries,
            path=path,
        )

    def _coeff(self, weights: Weights, sizes: Sizes, progress, position, similarity):
        """Returns the weight of the similarity, and the target position if there is one."""
        if self._held is None:
            return weights.coeff, None
        if self._held.recorded not in (None, progress):
            raise RuntimeError(
                'coeff_rule="held" adapts from step to step: call update() on the loss after each '
                "optimizer step"
            )
        path = path_at(self.options, progress, weights, sizes)
        if self.training:
            self._held.record(position, path)
        return self._held.coeff(path, similarity), path.position

    def _groups(self, batch: int, batch_size: Optional[int]):
        """Returns the size of the whole batch, the number of groups in this part of it, and the
        processes that a group spans, if it spans several."""
        processes, group = _processes(self.process_group)
        whole = batch * processes if batch_size is None else batch_size
        groups = self.options.groups(whole)
        if groups == 1 and processes > 1 and batch * processes == whole:
            return whole, 1, group
        if whole % groups:
            raise ValueError(
                f"the batch of {whole} images is not divisible by rate_groups = {groups}: choose a "
                "divisor of it"
            )
        rows = whole // groups
        if batch % rows:
            ways = f"rate_groups as a multiple of {max(whole // max(batch, 1), 1)}, or 1"
            if self.options.group_rows is not None:
                ways = f"group_rows as a divisor of {batch}"
            raise ValueError(
                f"each process needs full rate groups of {rows} images (got {batch}): choose {ways}"
            )
        return whole, batch // rows, None

    def update(self) -> None:
        """Advances ``coeff_rule="held"`` by a step. Call it after each optimizer step, in every
        process. It does not synchronize with the device. With ``"scheduled"``, it does nothing."""
        if self._held is not None:
            self._held.update(self.process_group)

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the state of ``held`` for ``state_dict``: a tensor of 4 doubles, or None."""
        return {"held": None if self._held is None else self._held.state}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if self._held is not None:
            held = state.get("held")
            self._held.state = None if held is None else held.double()


class SimDINOv2Loss(SimDINOLoss):
    """The loss of SimDINOv2: :class:`SimDINOLoss`, masked patches, and optionally KoLeo.

    Args:
        ibot_loss_weight: weight of the loss of masked patches.
        koleo_loss_weight: weight of KoLeo on the student's backbone; 0 leaves it out.
        koleo_groups: number of parts of the whole batch within which neighbors are searched.
        **options: options of :class:`SimDINOLoss`.
    """

    def __init__(
        self,
        ibot_loss_weight: float = 1.0,
        koleo_loss_weight: float = 0.0,
        koleo_groups: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if ibot_loss_weight < 0 or koleo_loss_weight < 0 or koleo_groups < 1:
            raise ValueError("weights must not be negative, and koleo_groups at least 1")
        self.ibot_loss_weight = ibot_loss_weight
        self.koleo_loss_weight = koleo_loss_weight
        self.koleo_groups = koleo_groups

    def forward(  # type: ignore[override]
        self,
        student: Tensor,
        teacher: Tensor,
        student_patches: Optional[Tensor] = None,
        teacher_patches: Optional[Tensor] = None,
        mask_weights: Optional[Tensor] = None,
        backbone: Optional[Tensor] = None,
        progress: float = 0.0,
        batch_size: Optional[int] = None,
    ) -> SimDINOOutput:
        """Computes the loss; see :meth:`SimDINOLoss.forward` for the other arguments.

        Args:
            student_patches, teacher_patches: outputs of the heads for the masked patches of the
                global crops, ``[m, k]``, in the order of ``mask_weights``.
            mask_weights: one over the number of masked patches in the same crop, ``[m]``.
            backbone: class tokens of the student before the head, global views, ``[2, B, D]``;
                needed for KoLeo.
        """
        output = super().forward(student, teacher, progress, batch_size)
        with without_autocast(student.device):
            if self.ibot_loss_weight > 0:
                if student_patches is None or teacher_patches is None or mask_weights is None:
                    raise ValueError(
                        "the loss of masked patches needs student_patches, teacher_patches, and "
                        "mask_weights; to leave it out, set ibot_loss_weight=0"
                    )
                crops = GLOBAL_VIEWS * student.shape[1]
                term = patch_loss(student_patches, teacher_patches, mask_weights, crops)
                _add(output, "patches", term, self.ibot_loss_weight)
            if self.koleo_loss_weight > 0:
                if backbone is None:
                    raise ValueError("KoLeo needs the student's class tokens: pass backbone")
                processes, _ = _processes(self.process_group)
                whole = student.shape[1] * processes if batch_size is None else batch_size
                share = whole // student.shape[1]
                if self.koleo_groups % share:
                    raise ValueError(
                        f"koleo_groups must be a multiple of the {share} parts of the batch (got "
                        f"{self.koleo_groups})"
                    )
                term = koleo(backbone, self.koleo_groups // share)
                _add(output, "koleo", term, self.koleo_loss_weight)
        return output


def _add(output: SimDINOOutput, name: str, term: Tensor, weight: float) -> None:
    output.loss = output.loss + term * weight
    setattr(output, name, term.detach())


def _processes(process_group):
    """Returns the number of processes and their group; 1 and None outside torch.distributed."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1, None
    group = distributed.group.WORLD if process_group is None else process_group
    return distributed.get_world_size(group), group


def _compression(student: Tensor, teacher: Tensor, form: str) -> Tensor:
    """Returns the mean similarity of each teacher view with every other student view, without
    storing all pairs of rows."""
    if form == "neg_cos":
        student, teacher = unit_rows(student), unit_rows(teacher)
    products = (teacher.transpose(0, 1) @ student.permute(1, 2, 0)).permute(1, 2, 0)  # [2, V, B]
    if form == "half_sq_l2":
        half = 0.5 * (teacher.square().sum(-1).unsqueeze(1) + student.square().sum(-1).unsqueeze(0))
        products = products - half + 1.0
    views, batch = student.shape[:2]
    other = 1.0 - torch.eye(GLOBAL_VIEWS, views, dtype=student.dtype, device=student.device)
    pairs = GLOBAL_VIEWS * views - min(views, GLOBAL_VIEWS)
    return (products * other.unsqueeze(-1)).sum() / (pairs * batch)


def _check_features(student: Tensor, teacher: Tensor) -> None:
    shape = list(student.shape)
    if student.dim() != 3 or student.numel() == 0:
        raise ValueError(f"student features must be [V, B, d], each at least 1 (got {shape})")
    expected = [GLOBAL_VIEWS, *shape[1:]]
    if list(teacher.shape) != expected:
        got = list(teacher.shape)
        raise ValueError(f"teacher features must be {expected}, to match the student's (got {got})")
    for name, x in (("student", student), ("teacher", teacher)):
        if not x.is_floating_point():
            raise ValueError(f"{name} features must be floating point (got {x.dtype})")


def _which_view(student: Tensor, teacher: Tensor) -> str:
    for name, features in (("student", student), ("teacher", teacher)):
        for view, rows in enumerate(features):
            if not bool(rows.isfinite().all()):
                return f" (view {view} of the {name})"
    return ""
