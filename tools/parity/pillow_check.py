"""Helpers of the scripts for unusual image files: Pillow's pixels, ours, and their comparison.

Ours come from `target/debug/examples/pixels`, which
`cargo build -p simdino-decode --example pixels` builds.
"""

import io
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, features


def pillow(data: bytes):
    """Returns pixels [H, W, 3], or the reason why there are none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    except Exception as error:  # whatever Pillow says
        return str(error)


def ours(path: Path):
    """Returns the same as `pillow`, from the output of the program."""
    pixels = Path(f"{path}.rgb")
    if not pixels.exists():
        return Path(f"{path}.error").read_text()
    data = pixels.read_bytes()
    width, height = np.frombuffer(data[:8], "<u4")
    return np.frombuffer(data[8:], np.uint8).reshape(height, width, 3)


def compare(program: str, files: list) -> int:
    """Prints the outcomes for `files`, each given by its bytes, a description and, if Pillow is to
    read another file, the bytes of that one. Returns how many differ."""
    counts, wrong = Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.bin" for i in range(len(files))]
        for path, file in zip(paths, files):
            path.write_bytes(file[0])
        subprocess.run([program], input="\n".join(map(str, paths)), text=True, check=True)
        for path, (data, words, *reference) in zip(paths, files):
            theirs, mine = pillow(*(reference or [data])), ours(path)
            match isinstance(theirs, str), isinstance(mine, str):
                case True, True:
                    counts["refused by both"] += 1
                case True, False:
                    counts[f"refused by Pillow alone: {theirs.split(' <')[0].split(' (')[0]}"] += 1
                case False, True:
                    counts[f"refused by us alone: {mine}"] += 1
                case _ if theirs.shape == mine.shape and (theirs == mine).all():
                    counts["equal"] += 1
                case _:
                    wrong += 1
                    far = theirs.shape == mine.shape and np.abs(theirs.astype(int) - mine).max()
                    print(f"DIFFERENT {words}: by {far}, {theirs.shape} {mine.shape}")
    for words, count in counts.most_common():
        print(f"{count:6} {words}")
    print(f"{wrong:6} different")
    return wrong


def run(usage: str, library: str, seed: int, draw, save_fixtures, count: int = 1000) -> None:
    """Runs the command line of such a script: `check PROGRAM [COUNT [SEED]]` or `fixtures`."""
    version = features.version(library)
    print(f"pillow {PIL.__version__}, {library} {version}, numpy {np.__version__}")
    match sys.argv[1:]:
        case ["check", program, *more]:
            count, seed = [int(v) for v in more] + [count, seed][len(more) :]
            rng = np.random.default_rng(seed)
            sys.exit(int(compare(program, [draw(rng) for _ in range(count)]) > 0))
        case ["fixtures"]:
            save_fixtures()
        case _:
            sys.exit(usage)
