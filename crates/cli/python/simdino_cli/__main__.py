"""``python -m simdino_cli``, where the folder of scripts is not on PATH."""

from . import main

main()
