"""Runs the program as ``python -m simdino_cli``, for when the folder of scripts is not on PATH."""

from . import main

main()
