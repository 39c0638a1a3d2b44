"""Forwards the metrics of a run to a tracker: ``python -m simdino.track TRACKER RUN [--follow]``.

TRACKER is wandb, mlflow, trackio, swanlab, or tensorboard, whose library must be installed. With
``--follow``, lines are forwarded as the training writes them, until it has written its weights, or
until Ctrl-C or SIGTERM. The training is not affected.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional

from ._metrics import metrics_file, parse_line

POLL_SECONDS = 2.0
# Maximum number of metrics in a request to mlflow.
MLFLOW_BATCH = 1000

Log = Callable[[dict[str, float], int], Any]


class Tracker(NamedTuple):
    """A tracker that metrics are forwarded to."""

    log: Log
    finish: Callable[[], Any]
    flush: Callable[[], Any] = lambda: None
    """Called when no more lines are there for now."""


def wandb(project: str, name: str, config: dict[str, Any]) -> Tracker:
    import wandb

    run = wandb.init(project=project, name=name, config=config)
    return Tracker(lambda values, step: run.log(values, step=step), run.finish)


def mlflow(project: str, name: str, config: dict[str, Any]) -> Tracker:
    import mlflow

    say(f"forwards to {mlflow.get_tracking_uri()}")
    mlflow.set_experiment(project)
    run = mlflow.start_run(run_name=name).info.run_id
    mlflow.log_dict(config, "config.json")
    client = mlflow.MlflowClient()
    waiting: list[Any] = []

    def flush() -> None:
        while waiting:
            client.log_batch(run, metrics=waiting[:MLFLOW_BATCH])
            del waiting[:MLFLOW_BATCH]

    def log(values: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        waiting.extend(mlflow.entities.Metric(k, v, now, step) for k, v in values.items())
        if len(waiting) >= MLFLOW_BATCH:
            flush()

    return Tracker(log, mlflow.end_run, flush)


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

    # Replaces what an earlier call has written there.
    writer = SummaryWriter(str(Path(project) / name), purge_step=0)
    writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```")

    def log(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    return Tracker(log, writer.close, writer.flush)


TRACKERS = {
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
    "swanlab": swanlab,
    "tensorboard": tensorboard,
}
# Packages to install, where they differ from the tracker's name, and advice if a tracker fails to
# start.
INSTALL = {"tensorboard": "tensorboard torch"}
ADVICE = {
    "wandb": "set WANDB_API_KEY, or WANDB_MODE=offline, which writes to ./wandb for `wandb sync`",
    "mlflow": "set MLFLOW_TRACKING_URI to a server that answers, or unset it to use ./mlflow.db",
    "swanlab": "set SWANLAB_API_KEY, or SWANLAB_MODE=offline, which writes to ./swanlog for "
    "`swanlab sync`",
}


def say(text: str) -> None:
    """Prints a line to stderr."""
    print(f"simdino.track: {text}", file=sys.stderr, flush=True)


def rows(
    path: Path, follow: bool, pause: Callable[[], Any] = lambda: None
) -> Iterator[dict[str, Any]]:
    """Yields the lines of the file, with each value of a step only once; with ``follow``, also
    future lines. Calls ``pause`` before each wait for them."""
    offset, number, last, identity = 0, 0, -1, None
    sent: set[str] = set()
    while True:
        # Checked before reading, so that all lines written before the weights are read.
        final = not follow or has_ended(path.parent)
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if identity != (status.st_dev, status.st_ino) or status.st_size < offset:
                # A run that was resumed from a checkpoint has replaced the file with one without
                # the lines that it will write again.
                identity, offset, number = (status.st_dev, status.st_ino), 0, 0
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                offset, number = offset + len(line), number + 1
                row = parse_line(line.decode("utf-8"), path, number)
                if row["step"] > last:
                    last, sent = row["step"], set()
                # Probes write a separate line for a step that training has written a line for.
                new = row.keys() - {"step"} - sent
                if row["step"] == last and new:
                    sent |= new
                    yield {name: row[name] for name in row if name == "step" or name in new}
        if final:
            return
        pause()
        time.sleep(POLL_SECONDS)


def has_ended(run: Path) -> bool:
    """Returns whether a training has written its weights. Those of an earlier training, which is
    being extended, are older than the lock that the present one has created."""
    weights, lock = run / "weights" / "teacher.safetensors", run / ".lock"
    if not weights.is_file():
        return False
    return not lock.is_file() or weights.stat().st_mtime_ns >= lock.stat().st_mtime_ns


def values_of(row: dict[str, Any]) -> dict[str, float]:
    """Returns the metrics of a line that are finite numbers."""
    numbers = {k: v for k, v in row.items() if k != "step" and isinstance(v, (int, float))}
    return {key: float(value) for key, value in numbers.items() if math.isfinite(value)}


def config_of(run: Path) -> dict[str, Any]:
    """Returns the config of a run, and the description of its machine if there is one."""
    config: dict[str, Any] = {}
    try:
        import yaml

        config = yaml.safe_load((run / "config.resolved.yaml").read_text(encoding="utf-8")) or {}
    except ImportError:
        say("the config is not sent: pip install pyyaml to include it")
    except OSError:
        pass  # a tracker without the config is better than none
    if (run / "env.json").is_file():
        config["env"] = json.loads((run / "env.json").read_text(encoding="utf-8"))
    return config


def file_of(run: Path, follow: bool) -> Path:
    """Returns the metrics file of a run; with ``follow``, waits until the training has created
    it."""
    said = False
    while True:
        try:
            return metrics_file(run)
        except FileNotFoundError:
            if not follow:
                raise
        if not said:
            said = True
            say(f"waiting for {run / 'metrics.jsonl'}")
        time.sleep(POLL_SECONDS)


def reason(error: BaseException) -> str:
    """Returns the message of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def start(tracker: str, options: argparse.Namespace, path: Path) -> Optional[Tracker]:
    """Starts the tracker; prints the reason and returns None if that fails."""
    name = options.name or path.parent.resolve().name
    try:
        return TRACKERS[tracker](options.project, name, config_of(path.parent))
    except ImportError as error:
        advice = f"pip install {INSTALL.get(tracker, tracker)}"
        say(f"{tracker} cannot be imported ({reason(error)}): {advice}")
    except Exception as error:  # each library has its own errors
        say(f"{tracker} did not start: {reason(error)}")
        if tracker in ADVICE:
            say(ADVICE[tracker])
    return None


def forward(tracker: Tracker, path: Path, follow: bool) -> tuple[int, bool]:
    """Forwards the lines; returns their number, and whether there was no error."""
    sent = 0
    try:
        try:
            for row in rows(path, follow, tracker.flush):
                tracker.log(values_of(row), row["step"])
                sent += 1
        except KeyboardInterrupt:
            pass
        tracker.flush()
        return sent, True
    except Exception as error:  # from the file or a library
        say(reason(error))
        return sent, False
    finally:
        tracker.finish()


def main(arguments: Optional[list[str]] = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m simdino.track", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("tracker", choices=sorted(TRACKERS))
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--follow", action="store_true", help="wait for new lines until it ends")
    parser.add_argument("--project", default="simdino", help="project, experiment, or folder")
    parser.add_argument("--name", help="name of the run; by default that of its folder")
    options = parser.parse_args(arguments)
    try:
        path = file_of(options.run, options.follow)
        tracker = start(options.tracker, options, path)
    except KeyboardInterrupt:
        return 1
    except (OSError, ValueError) as error:
        say(reason(error))
        return 1
    if tracker is None:
        return 1
    sent, good = forward(tracker, path, options.follow)
    print(f"sent {sent} lines of {path} to {options.tracker}")
    return 0 if good else 1


if __name__ == "__main__":
    # Shells start background jobs with SIGINT ignored, so SIGTERM must finish cleanly, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
