"""The part of a batch that this process makes, and the number of threads that make it."""

from __future__ import annotations

import os
import sys
from typing import Optional


def place(rank: Optional[int], world_size: Optional[int]) -> tuple[int, int]:
    """Returns rank and number of processes: as given, or else those of the group, or a single
    process."""
    if (rank is None) != (world_size is None):
        raise ValueError("pass rank and world_size together, or neither")
    if rank is not None and world_size is not None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is out of range for a world size of {world_size}")
        return rank, world_size
    return group() or (0, 1)


def group() -> Optional[tuple[int, int]]:
    """Returns rank and number of processes of torch.distributed, or those that torchrun has set;
    None without either."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return None


def threads(workers: Optional[int]) -> int:
    """Returns the number of threads: as given, or else this process's share of the machine's cores,
    minus one for the training loop."""
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = (cores or 1) // max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)
    return max(share - 1, 1)


def refuse_workers(what: str) -> None:
    """Raises an error in a worker of a DataLoader: with several, each would make every batch."""
    utils = sys.modules.get("torch.utils.data")
    info = utils.get_worker_info() if utils is not None else None
    if info is not None and info.num_workers > 1:
        raise RuntimeError(
            f"{what} has threads of its own, and each of {info.num_workers} DataLoader workers would "
            "make every batch: iterate over it directly, or use num_workers=0"
        )
