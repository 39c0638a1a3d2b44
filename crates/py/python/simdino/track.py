"""Forwards the metrics of a run to a tracker: ``python -m simdino.track TRACKER RUN [--follow]``.

TRACKER is wandb, mlflow, trackio, swanlab, or tensorboard, whose library must be installed. With
``--follow``, lines are forwarded as the training writes them, until it has written its weights or
Ctrl-C. The training itself knows nothing of it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional

from ._metrics import metrics_file, parse_line

POLL_SECONDS = 2.0


class Tracker(NamedTuple):
    """Where metrics go."""

    log: Callable[[dict[str, float], int], Any]
    finish: Callable[[], Any]


def wandb(project: str, name: str, config: dict[str, Any]) -> Tracker:
    import wandb

    run = wandb.init(project=project, name=name, config=config)
    return Tracker(lambda values, step: run.log(values, step=step), run.finish)


def mlflow(project: str, name: str, config: dict[str, Any]) -> Tracker:
    import mlflow

    mlflow.set_experiment(project)
    mlflow.start_run(run_name=name)
    mlflow.log_dict(config, "config.json")
    return Tracker(lambda values, step: mlflow.log_metrics(values, step=step), mlflow.end_run)


def trackio(project: str, name: str, config: dict[str, Any]) -> Tracker:
    import trackio

    trackio.init(project=project, name=name, config=config)
    return Tracker(lambda values, step: trackio.log(values, step=step), trackio.finish)


def swanlab(project: str, name: str, config: dict[str, Any]) -> Tracker:
    import swanlab

    swanlab.init(project=project, experiment_name=name, config=config)
    return Tracker(lambda values, step: swanlab.log(values, step=step), swanlab.finish)


def tensorboard(project: str, name: str, config: dict[str, Any]) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(Path(project) / name))
    writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```")

    def log(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    return Tracker(log, writer.close)


TRACKERS = {
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
    "swanlab": swanlab,
    "tensorboard": tensorboard,
}


def rows(path: Path, follow: bool) -> Iterator[dict[str, Any]]:
    """The lines of the file, each step once; with ``follow``, also those to come."""
    offset, number, last = 0, 0, -1
    ended = path.parent / "weights" / "teacher.safetensors"
    while True:
        # Before reading: whatever was written before the weights is then read, too.
        final = not follow or ended.is_file()
        if path.stat().st_size < offset:
            # A run that was continued from a checkpoint has cut off what came after it.
            offset, number = 0, 0
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # about to be finished
                offset, number = offset + len(line), number + 1
                row = parse_line(line.decode("utf-8"), path, number)
                if row["step"] >= last:
                    last = row["step"]
                    yield row
        if final:
            return
        time.sleep(POLL_SECONDS)


def values_of(row: dict[str, Any]) -> dict[str, float]:
    """The metrics of a line that are finite numbers."""
    numbers = {k: v for k, v in row.items() if k != "step" and isinstance(v, (int, float))}
    return {key: float(value) for key, value in numbers.items() if math.isfinite(value)}


def config_of(run: Path) -> dict[str, Any]:
    """The config of a run, and what is known about its machine."""
    config: dict[str, Any] = {}
    try:
        import yaml

        config = yaml.safe_load((run / "config.resolved.yaml").read_text(encoding="utf-8")) or {}
    except (ImportError, OSError):
        pass  # a tracker without the config is better than none
    if (run / "env.json").is_file():
        config["env"] = json.loads((run / "env.json").read_text(encoding="utf-8"))
    return config


def main(arguments: Optional[list[str]] = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m simdino.track", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("tracker", choices=sorted(TRACKERS))
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--follow", action="store_true", help="wait for lines until the run ends")
    parser.add_argument("--project", default="simdino", help="project, experiment, or folder")
    parser.add_argument("--name", help="name of the run; by default that of its folder")
    options = parser.parse_args(arguments)
    try:
        path = metrics_file(options.run)
        name = options.name or path.parent.resolve().name
        tracker = TRACKERS[options.tracker](options.project, name, config_of(path.parent))
    except ImportError as error:
        print(f"simdino.track: {options.tracker} is not installed ({error})", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"simdino.track: {error}", file=sys.stderr)
        return 1
    sent = 0
    try:
        for row in rows(path, options.follow):
            tracker.log(values_of(row), row["step"])
            sent += 1
    except KeyboardInterrupt:
        pass
    except ValueError as error:
        print(f"simdino.track: {error}", file=sys.stderr)
        return 1
    finally:
        tracker.finish()
    print(f"{sent} lines of {path} are at {options.tracker}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
