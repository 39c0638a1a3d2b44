"""Writes archives of all kinds with GNU tar and Python, for the shard reader of crates/data.

    python tools/parity/tars.py

Writes crates/data/tests/fixtures/tars/NAME.tar.gz, with variants of one drawn picture, of a few
hundred bytes to a few KB each. Made with GNU tar 1.34 and Python 3.11; nothing is random.
"""

import gzip
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path

OUT = Path(__file__).parents[2] / "crates/data/tests/fixtures/tars"
WIDTH, HEIGHT = 171, 120
LONG = "d" * 90 + "/" + "e" * 90 + "/" + "n" * 120


def pixel(x: int, y: int, number: int) -> tuple[int, int, int]:
    """Returns the color of a pixel: stripes of two rows, every other one black, below a black part.
    Black becomes holes in the file."""
    if y < 20 or y // 2 % 2 == 1:
        return 0, 0, 0
    return 16 * (x % 8) + number + 1, 32 * (y % 8) + 1, 200


def bmp(number: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    padding = bytes(-3 * width % 4)
    rows = [
        b"".join(bytes(reversed(pixel(x, y, number))) for x in range(width)) + padding
        for y in reversed(range(height))
    ]
    body = b"".join(rows)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(body), 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + len(body), 0, 0, 54) + info + body


def keep(name: str, archive: bytes) -> None:
    (OUT / f"{name}.tar.gz").write_bytes(gzip.compress(archive, 9, mtime=0))


def gnu(folder: Path, names: list[str], *options: str) -> bytes:
    common = ["--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-b1", "--sort=name"]
    command = ["tar", *common, *options, "-cf", "-", *names]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout


def write_with_holes(path: Path, content: bytes) -> None:
    """Writes a file with holes on disk, without which GNU tar does not look for any."""
    with path.open("wb") as file:
        for start in range(0, len(content), 4096):
            block = content[start : start + 4096]
            if any(block):
                file.seek(start)
                file.write(block)
        file.truncate(len(content))


def sparse(folder: Path) -> None:
    """Writes a sparse picture of 26 pieces, followed by another one."""
    names = ["0.bmp", "1.bmp", "1.cls"]
    write_with_holes(folder / "0.bmp", bmp(0))
    (folder / "1.bmp").write_bytes(bmp(1, 16, 32))
    (folder / "1.cls").write_text("7")
    for name, options in {
        "sparse-gnu": ["--format=gnu"],
        "sparse-pax-0.0": ["--format=posix", "--sparse-version=0.0"],
        "sparse-pax-0.1": ["--format=posix", "--sparse-version=0.1"],
        "sparse-pax-1.0": ["--format=posix", "--sparse-version=1.0"],
    }.items():
        pax = [] if name == "sparse-gnu" else ["--pax-option=delete=atime,delete=ctime"]
        keep(name, gnu(folder, names, "-S", "--hole-detection=raw", *options, *pax))


def links(folder: Path) -> None:
    """Writes hard and symbolic links to pictures, labels, and missing files, a pipe, and a
    folder."""
    (folder / "sub").mkdir()
    (folder / "0.bmp").write_bytes(bmp(0, 16, 32))
    (folder / "0.cls").write_text("4")
    os.link(folder / "0.bmp", folder / "1.bmp")
    os.link(folder / "0.cls", folder / "1.cls")
    os.symlink("../0.bmp", folder / "sub/2.bmp")
    os.symlink("2.bmp", folder / "sub/3.bmp")
    os.symlink("gone.bmp", folder / "sub/4.bmp")
    os.symlink("/etc/5.bmp", folder / "sub/5.bmp")
    os.mkfifo(folder / "sub/6.bmp")
    names = ["0.bmp", "0.cls", "1.bmp", "1.cls", "sub"]
    for form in ["gnu", "posix", "ustar", "v7"]:
        extra = ["--pax-option=delete=atime,delete=ctime"] if form == "posix" else []
        listed = [name for name in names if form != "v7" or name != "sub"]
        keep(f"links-{form}", gnu(folder, listed, f"--format={form}", *extra))


def names(folder: Path) -> None:
    """Writes names that are too long for a header, and one that is not ASCII."""
    listed = [f"{LONG}.bmp", f"{LONG}.cls", "ü.bmp"]
    (folder / LONG).parent.mkdir(parents=True)
    (folder / listed[0]).write_bytes(bmp(0, 16, 32))
    (folder / listed[1]).write_text("5")
    (folder / listed[2]).write_bytes(bmp(1, 16, 32))
    keep("names-gnu", gnu(folder, listed, "--format=gnu"))
    pax = "--pax-option=delete=atime,delete=ctime"
    keep("names-posix", gnu(folder, listed, "--format=posix", pax))


def joined(folder: Path) -> None:
    """Concatenates two archives of Python's tarfile; the second ends with text."""
    parts = []
    for number in range(2):
        (folder / f"{number}.bmp").write_bytes(bmp(number, 16, 32))
        path = folder / f"{number}.tar"
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo(f"{number}.bmp")
            info.size = (folder / f"{number}.bmp").stat().st_size
            archive.addfile(info, (folder / f"{number}.bmp").open("rb"))
        parts.append(path.read_bytes())
    keep("joined", b"".join(parts) + b"what stands behind an archive is nothing".ljust(600, b"."))


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for make in [sparse, links, names, joined]:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
    for path in sorted(OUT.iterdir()):
        print(path.stat().st_size, path.name)


if __name__ == "__main__":
    main()
