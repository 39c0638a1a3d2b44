"""Compares our decoding of many unusual JPEG files with Pillow's: every pixel must be equal, or the
file be refused. Also writes a few as fixtures.

Usage:
    python tools/parity/jpeg_kinds.py check target/debug/examples/pixels [COUNT [SEED]]
    python tools/parity/jpeg_kinds.py fixtures

`check` draws COUNT files (1000) of all kinds into a temporary folder, and prints how many were
equal, refused by which decoder, and different; the exit code is 1 if any differ. `fixtures` writes
crates/jpeg/tests/fixtures/kinds. Needs pillow and numpy.
"""

import io
from pathlib import Path

import numpy as np
from jpeg_writer import JFIF, Component, Scan, adobe, draw_blocks, jpeg, quantization, segment
from PIL import Image
from pillow_check import pillow, run

OUT = Path(__file__).resolve().parents[2] / "crates/jpeg/tests/fixtures/kinds"
SEED = 20264


def grouped(rng, numbers: list) -> list:
    """Returns the numbers in groups, in any order; within a group, they keep their order."""
    numbers, groups = list(rng.permutation(numbers)), []
    while numbers:
        count = int(rng.integers(1, len(numbers) + 1))
        groups.append(sorted(int(n) for n in numbers[:count]))
        numbers = numbers[count:]
    return groups


def fitting(group: list, components: list) -> list:
    """Returns a group, or its single components if an MCU would have too many blocks."""
    blocks = sum(components[i].across * components[i].down for i in group)
    return [group] if len(group) == 1 or blocks <= 10 else [[i] for i in group]


def sequential_scans(rng, components: list) -> list:
    numbers = list(range(len(components)))
    groups = [numbers] if rng.random() < 0.3 else grouped(rng, numbers)
    return [Scan(part) for group in groups for part in fitting(group, components)]


def progressive_scans(rng, components: list) -> list:
    low = int(rng.integers(0, 3))
    groups = [part for g in grouped(rng, list(range(len(components)))) for part in fitting(g, components)]
    scans = [Scan(group, 0, 0, 0, low) for group in groups]
    later = [Scan(group, 0, 0, bit + 1, bit) for bit in range(low - 1, -1, -1) for group in groups]
    chains = [later]
    for i in range(len(components)):
        edges = sorted({1, 64, *(int(e) for e in rng.integers(2, 64, rng.integers(0, 3)))})
        for first, end in zip(edges, edges[1:]):
            low = int(rng.integers(0, 4))
            chain = [Scan([i], first, end - 1, 0, low)]
            chain += [Scan([i], first, end - 1, bit + 1, bit) for bit in range(low - 1, -1, -1)]
            chains.append(chain)
    # The chains are interleaved; each keeps its own order.
    while chains := [chain for chain in chains if chain]:
        scans.append(chains[int(rng.integers(0, len(chains)))].pop(0))
    return scans


def draw(rng) -> tuple:
    """Returns a file of any kind and its description."""
    count = int(rng.choice([1, 3, 3, 3, 4]))
    width, height = (int(v) for v in rng.integers(1, 41, 2))
    most = int(rng.choice([2, 2, 2, 3, 4]))
    names = [1, 2, 3, 4][:count]
    head = b""
    marker = rng.choice(["none", "jfif", "adobe0", "adobe1", "adobe2", "rgb", "both"])
    if marker in ("jfif", "both"):
        head += JFIF
    if marker.startswith("adobe"):
        head += adobe(int(marker[-1]))
    if marker == "both":
        head += adobe(int(rng.integers(0, 3)))
    if marker == "rgb":
        names = list(b"RGBK")[:count]
    tables = {n: rng.integers(1, 9, 64).tolist() for n in range(4)}
    components = [
        Component(*(int(v) for v in rng.integers(1, most + 1, 2)), name, int(rng.integers(0, 4)))
        for name in names
    ]
    if rng.random() < 0.3:
        (components[0].across, components[0].down) = (int(v) for v in rng.integers(1, 3, 2))
        for c in components[1:]:
            c.across = c.down = 1
    largest = max(c.across for c in components), max(c.down for c in components)
    for c in components:
        c.blocks = draw_blocks(rng, width, height, c, largest, float(rng.choice([0.3, 1, 2])))
    progressive = bool(rng.random() < 0.45)
    scans = (progressive_scans if progressive else sequential_scans)(rng, components)
    extras = [segment(0xE5, b"anything \xff\xd9"), segment(0xFE, b"a comment"), b"\xff\xff\xff", b""]
    # Bytes that are not a marker stop Pillow only where it searches for markers itself.
    for i, scan in enumerate(scans):
        if rng.random() < 0.3:
            scan.interval = int(rng.integers(1, 6))
        if rng.random() < 0.3:
            scan.before = extras[int(rng.integers(0, len(extras)))]
        if i and rng.random() < 0.1:
            scan.before += quantization(int(rng.integers(0, 4)), rng.integers(1, 9, 64).tolist())
    tail = extras[int(rng.integers(0, len(extras)))] if rng.random() < 0.3 else b""
    if rng.random() < 0.05:
        tail += b"\xff\xd0"
    data = jpeg(width, height, components, scans, progressive, head, tail, tables)
    factors = " ".join(f"{c.across}x{c.down}" for c in components)
    order = "progressive" if progressive else str([s.components for s in scans])
    return data, f"{width}x{height} {factors} {marker} {order}"


def case(name: str, factors: str, groups=None, size=(21, 19), head=JFIF, names=None, **options) -> None:
    """Returns a fixture. `factors` are given as "2x2 1x1 1x1"; `groups` lists the components of
    each scan, or is None for a progressive file. `before` precedes each scan but the first, and
    `interval` is the restart interval of every second one."""
    rng = np.random.default_rng(SEED + sum(name.encode()))
    pairs = [tuple(int(v) for v in pair.split("x")) for pair in factors.split()]
    names = names or [1, 2, 3, 4]
    components = [Component(*pair, names[i], min(i, 1)) for i, pair in enumerate(pairs)]
    largest = max(c.across for c in components), max(c.down for c in components)
    for c in components:
        c.blocks = draw_blocks(rng, *size, c, largest)
    scans = progressive_scans(rng, components) if groups is None else [Scan(list(g)) for g in groups]
    for i, scan in enumerate(scans):
        scan.before = options.get("before", b"") if i else b""
        scan.interval = options.get("interval", 0) if i % 2 == 0 else 0
    tables = {0: [2] * 64, 1: [3] * 64}
    data = jpeg(*size, components, scans, groups is None, head, options.get("tail", b""), tables)
    (OUT / f"{name}.jpg").write_bytes(data)
    image = Image.open(io.BytesIO(data))
    np.asarray(image if image.mode == "L" else image.convert("RGB")).tofile(OUT / f"{name}.pixels")


def save_fixtures() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for old in [*OUT.glob("*.jpg"), *OUT.glob("*.pixels")]:
        old.unlink()
    apart = [[0], [1], [2]]
    for name, y in {"444": "1x1", "422": "2x1", "440": "1x2", "420": "2x2", "411": "4x1", "441": "1x4"}.items():
        case(f"scans_{name}", f"{y} 1x1 1x1", apart)
        case(f"scans_{name}_progressive", f"{y} 1x1 1x1")
    for size in [(1, 1), (3, 2), (5, 17), (16, 16), (33, 3)]:
        case(f"scans_420_size_{size[0]}x{size[1]}", "2x2 1x1 1x1", apart, size)
        case(f"progressive_420_size_{size[0]}x{size[1]}", "2x2 1x1 1x1", None, size)
    case("scans_420_color_first", "2x2 1x1 1x1", [[2], [0], [1]])
    case("scans_420_colors_together", "2x2 1x1 1x1", [[1, 2], [0]])
    case("scans_440_restarts", "1x2 1x1 1x1", apart, interval=2)
    case("scans_420_segments_between", "2x2 1x1 1x1", apart, before=segment(0xE5, b"\xff\xd9 inside"))
    luma = {"11_21_11": "1x1 2x1 1x1", "11_22_22": "1x1 2x2 2x2", "11_12_21": "1x1 1x2 2x1",
            "11_11_22": "1x1 1x1 2x2", "21_12_11": "2x1 1x2 1x1", "12_22_22": "1x2 2x2 2x2"}
    for name, factors in luma.items():
        case(f"fine_color_{name}", factors, [[0, 1, 2]])
        case(f"fine_color_{name}_scans", factors, [[1], [0], [2]], interval=3)
        case(f"fine_color_{name}_progressive", factors)
    case("factors_22_22_22", "2x2 2x2 2x2", apart)
    case("factors_31_11_31", "3x1 1x1 3x1", [[0, 1, 2]])
    case("factors_42_21_21", "4x2 2x1 2x1", apart)
    case("gray_22", "2x2", [[0]])
    case("gray_progressive", "1x1")
    rgb = {"head": b"", "names": list(b"RGB")}
    case("rgb_444", "1x1 1x1 1x1", [[0, 1, 2]], **rgb)
    case("rgb_11_22_22", "1x1 2x2 2x2", [[0, 1, 2]], head=adobe(0))
    case("rgb_420_progressive", "2x2 1x1 1x1", **rgb)
    case("cmyk_444", "1x1 1x1 1x1 1x1", [[0, 1, 2, 3]], head=b"")
    case("cmyk_scans", "2x2 1x1 1x1 2x2", [[3], [0], [2], [1]], head=adobe(0))
    case("ycck_420", "2x2 1x1 1x1 2x2", [[0, 1, 2, 3]], head=adobe(2))
    case("ycck_420_scans", "2x2 1x1 1x1 2x2", [[0], [1, 2], [3]], head=adobe(2))
    case("ycck_420_progressive", "2x2 1x1 1x1 2x2", head=adobe(2))
    for name, tail in {"application": segment(0xE5, b"behind"), "comment": segment(0xFE, b"behind"),
                       "restart": b"\xff\xd0", "junk": b"\xff\xff"}.items():
        case(f"behind_{name}", "2x2 1x1 1x1", [[0, 1, 2]], tail=tail)
        case(f"behind_{name}_progressive", "2x2 1x1 1x1", tail=tail, before=tail)


if __name__ == "__main__":
    run(__doc__, "libjpeg_turbo", SEED, draw, save_fixtures)
