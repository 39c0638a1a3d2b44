"""Starts the program simdino with the libraries of the torch that this Python would import."""

import importlib.util
import os
import re
import sys

from ._needs import LIBRARIES, TORCH

BINARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bin", "simdino")


def torch_lib():
    """Returns the folder of torch's libraries, without importing torch, which would take seconds."""
    install = f"{sys.executable} -m pip install"
    advice = f"{install} 'torch=={TORCH}.*'"
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise SystemExit(f"simdino: there is no torch {TORCH} beside it: {advice}")
    folder = os.path.dirname(os.path.abspath(spec.origin))
    try:
        with open(os.path.join(folder, "version.py"), encoding="utf-8") as file:
            found = re.search(r"^__version__ *= *['\"]([^'\"]*)", file.read(), re.MULTILINE)
    except OSError:
        found = None
    version = found.group(1) if found else "of an unknown version"
    if not version.startswith(f"{TORCH}."):
        raise SystemExit(f"simdino: torch is {version} in {folder}, and must be {TORCH}: {advice}")
    lib = os.path.join(folder, "lib")
    for name in LIBRARIES:
        if not os.path.exists(os.path.join(lib, name)):
            raise SystemExit(
                f"simdino: torch {version} in {folder} has no {name}: it is not the build that pip "
                # A CPU-only build satisfies the requirement, too, so pip alone would keep it.
                f"installs by default, which runs with and without a GPU: "
                f"{install} --force-reinstall 'torch=={TORCH}.*'"
            )
    return lib


def main():
    """Replaces this process with the program."""
    lib, environment = torch_lib(), dict(os.environ)
    beside = os.path.join(os.path.dirname(BINARY), "..", "..", "torch", "lib")
    if os.path.realpath(lib) != os.path.realpath(beside):
        # The program looks for torch next to this package, but it is elsewhere.
        others = environment.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = f"{lib}:{others}" if others else lib
    os.execve(BINARY, [BINARY, *sys.argv[1:]], environment)
