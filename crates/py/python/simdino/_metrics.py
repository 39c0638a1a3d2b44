"""The metrics of a run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Optional, Union


def read_metrics(
    run: Union[str, "os.PathLike[str]"], names: Optional[list[str]] = None
) -> list[dict[str, Any]]:
    """Reads the lines of a run's ``metrics.jsonl``.

    Args:
        run: folder of a run, or the file itself.
        names: keep only lines that have one of these metrics, and in each line only these
            metrics, ``step``, and ``epoch``.

    Returns:
        One dictionary per line, in the order of the file: ``step``, ``epoch``, and metrics by
        name. ``pandas.DataFrame(read_metrics("runs/demo"))`` makes a table of them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is damaged. An incomplete last line, which a training that is still
            running is about to finish, is left out.
    """
    path = metrics_file(run)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        rows.append(parse_line(line, path, number))
    if names is None:
        return rows
    kept = ({k: v for k, v in row.items() if k in names} for row in rows)
    return [
        {**{key: row[key] for key in ("step", "epoch") if key in row}, **values}
        for row, values in zip(rows, kept)
        if values
    ]


def metrics_file(run: Union[str, "os.PathLike[str]"]) -> Path:
    """Returns the path of the metrics of a run."""
    path = Path(run)
    if path.is_dir():
        path = path / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no metrics found; pass the folder of a simdino run")
    return path


def parse_line(line: str, path: Path, number: int) -> dict[str, Any]:
    """Parses a line of the file."""
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise ValueError("no step in it")
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not a line of metrics ({error})") from None
    return row
