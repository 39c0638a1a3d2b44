"""The location of images, in the form that the native module reads."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping, Sequence, Union

from .. import _native

Path = Union[str, "os.PathLike[str]"]
Source = Union[Path, Mapping[str, Any], Sequence[Union[Path, Mapping[str, Any]]]]


def source_config(source: Source, options: Mapping[str, Any]) -> str:
    """Returns the options of a dataset as JSON.

    ``source`` is a path; a mapping with ``path`` and, optionally, ``source`` (the format) and
    ``weight``; or a sequence of either, for a mix.
    """
    config = dict(options)
    if isinstance(source, (str, os.PathLike)):
        config["path"] = os.fspath(source)
    elif isinstance(source, Mapping):
        config.update(source)
    elif isinstance(source, Sequence):
        config["mix"] = [_entry(part) for part in source]
    else:
        raise TypeError(
            "source must be a path, a mapping, or a sequence of them (got "
            f"{type(source).__name__})"
        )
    for part in (config, *config.get("mix", ())):
        if "://" in str(part.get("path", "")):
            raise ValueError(
                f"{part['path']}: this package reads files, not URLs: mount the bucket or copy "
                "the shards, or train with the program simdino built with `--features remote`"
            )
    return as_json(config, "source")


def _entry(part: Union[Path, Mapping[str, Any]]) -> dict[str, Any]:
    return dict(part) if isinstance(part, Mapping) else {"path": os.fspath(part)}


def as_json(options: Any, what: str) -> str:
    """Returns options as JSON; ``what`` is their name in error messages."""
    try:
        return json.dumps(options, default=os.fspath)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what}: {error}") from None


class OpenData:
    """A dataset that is opened once in each process, because an open one does not survive a
    fork."""

    def __init__(self, config: str, channels: int) -> None:
        self.config, self.channels = config, channels
        self._open: Any = None
        self._process = -1

    def get(self) -> "_native.Dataset":
        """Returns the dataset of this process, which is opened if necessary."""
        if self._process != os.getpid():
            self._open = _native.Dataset(self.config, self.channels)
            self._process = os.getpid()
        return self._open

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "channels": self.channels, "_open": None, "_process": -1}
