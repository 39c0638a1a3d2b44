"""Writes or reads event files of TensorBoard, for the writer in crates/trainer/src/metrics.

    python tools/parity/tensorboard_events.py fixture   writes crates/trainer/tests/fixtures/scalars.tfevents
    python tools/parity/tensorboard_events.py read DIR  prints the scalars that TensorBoard reads from DIR

Needs the package `tensorboard` (version 2.21.0 made the fixture). Nothing is random.
"""

import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

FIXTURE = Path(__file__).parents[2] / "crates/trainer/tests/fixtures/scalars.tfevents"


def scalars(wall_time, step, **values):
    """Returns an event with a summary value per name; `__` in a name stands for `/`."""
    summary = summary_pb2.Summary(
        value=[
            summary_pb2.Summary.Value(tag=name.replace("__", "/"), simple_value=value)
            for name, value in values.items()
        ]
    )
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary)


def write_fixture():
    """Writes the events of the test in event.rs with TensorBoard's own classes."""
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    events = [
        event_pb2.Event(wall_time=1000.5, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=1001.0, step=3, session_log=start),
        scalars(1002.25, 3, loss__total=-0.75, optim__lr=1e-3),
        scalars(1003.0, 300, loss__total=float("nan"), optim__lr=0.0),
    ]
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    with FIXTURE.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
    print(f"{FIXTURE}: {FIXTURE.stat().st_size} bytes")


def read(folder):
    """Prints every scalar that TensorBoard reads: the name, and then steps and values."""
    events = EventAccumulator(folder, size_guidance={"scalars": 0}).Reload()
    for name in sorted(events.Tags()["scalars"]):
        points = ", ".join(f"{e.step}: {e.value:.6g}" for e in events.Scalars(name))
        print(f"{name}  {points}")


if __name__ == "__main__":
    if sys.argv[1:] == ["fixture"]:
        write_fixture()
    elif len(sys.argv) == 3 and sys.argv[1] == "read":
        read(sys.argv[2])
    else:
        sys.exit(__doc__)
