"""The numbers that follow from the options of the SimDINO loss, the sizes, and the progress."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Union

from ._rate import rate_ceiling, rate_floor, spread_over, working_dtype


@dataclass(frozen=True)
class Options:
    """The validated options of :class:`simdino.losses.SimDINOLoss`, named as in a config file."""

    eps: float
    eps_end: Optional[float]
    eps_semantics: str
    coeff: float
    coeff_end: Optional[float]
    coeff_rule: str
    position_start: float
    position_end: float
    position_by: float
    gamma: Union[str, float]
    gamma_ceiling: float
    expa_source: str
    rate_groups: int
    group_rows: Optional[int]
    center_cov: bool
    loss_form: str
    precision: str

    def __post_init__(self) -> None:
        positive = {"eps": self.eps, "eps_end": self.eps_end, "gamma_ceiling": self.gamma_ceiling}
        if not isinstance(self.gamma, str):
            positive["gamma"] = self.gamma
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be greater than 0 (got {value})")
        for name in ("coeff", "coeff_end"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative (got {value})")
        for name, most in (("position_start", 0.99), ("position_end", 0.99), ("position_by", 1.0)):
            if not 0.01 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be in [0.01, {most}] (got {getattr(self, name)})")
        if int(self.rate_groups) != self.rate_groups or self.rate_groups < 1:
            raise ValueError(f"rate_groups must be an integer >= 1 (got {self.rate_groups})")
        rows = self.group_rows
        if rows is not None and (int(rows) != rows or rows < 2):
            raise ValueError(f"group_rows must be an integer >= 2 (got {rows})")
        _one_of("eps_semantics", self.eps_semantics, ("code", "paper", "relative"))
        _one_of("coeff_rule", self.coeff_rule, ("scheduled", "held"))
        _one_of("expa_source", self.expa_source, ("student", "mean_student_teacher"))
        _one_of("loss_form", self.loss_form, ("neg_cos", "half_sq_l2"))
        if isinstance(self.gamma, str):
            # "balanced" needs the gradients of both terms, which only the program computes.
            _one_of("gamma", self.gamma, ("code", "theorem", "ceiling"))
        working_dtype(self.precision)

    def groups(self, batch_size: int) -> int:
        """Returns the number of groups of a batch."""
        rows = self.group_rows
        if rows is None:
            return int(self.rate_groups)
        if batch_size > rows and batch_size % rows:
            raise ValueError(
                f"the batch of {batch_size} images is not a multiple of group_rows = {rows}: choose a "
                "divisor of it"
            )
        return max(batch_size // int(rows), 1)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)} (got {value!r})")


@dataclass(frozen=True)
class Sizes:
    """Images per step of the whole run (with ``group_rows``, those of a group), rows per rate
    group, and width of a feature."""

    batch_size: int
    rows: int
    width: int


@dataclass(frozen=True)
class Weights:
    """The numbers of one step."""

    eps: float
    coeff: float
    gamma: float
    alpha: float
    floor: float
    ceiling: float


def weights_at(options: Options, progress: float, sizes: Sizes) -> Weights:
    """Returns the numbers at a fraction of the training."""
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress must be between 0 and 1 (got {progress})")
    eps = _cosine(options.eps, options.eps_end, progress)
    coeff = _cosine(options.coeff, options.coeff_end, progress)
    n, d = sizes.batch_size, sizes.width
    # `eps` is squared in the rate, as in the formulas of the paper.
    squared = {
        "code": eps,
        "paper": eps * eps,
        "relative": eps * (d * sizes.rows) / (n * min(sizes.rows, d)),
    }[options.eps_semantics]
    alpha = d / (n * squared)
    floor, ceiling = rate_range(alpha, sizes, options.center_cov)
    if options.gamma == "code":
        gamma = 1 / n + 1 / d
    elif options.gamma == "theorem":
        gamma = math.sqrt(squared) * math.sqrt(n / (d * min(d, n)))
    elif options.gamma == "ceiling":
        if ceiling <= 0:
            raise ValueError("the ceiling of the coding rate is 0: a group needs more rows")
        gamma = options.gamma_ceiling / ceiling
    else:
        gamma = float(options.gamma)
    return Weights(eps, coeff, gamma, alpha, floor, ceiling)


def rate_range(alpha: float, sizes: Sizes, centered: bool) -> tuple[float, float]:
    """Returns the coding rate at collapse and at its maximum. Subtracting the mean turns equal rows
    into zeros, and leaves one direction fewer to spread over."""
    if centered:
        return 0.0, spread_over(min(sizes.width, sizes.rows - 1), alpha, sizes.rows)
    return rate_floor(alpha, sizes.rows), rate_ceiling(alpha, sizes.rows, sizes.width)


def _cosine(start: float, end: Optional[float], progress: float) -> float:
    end = start if end is None else end
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * progress))
