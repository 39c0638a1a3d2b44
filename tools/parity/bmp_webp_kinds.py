"""Compares our decoding of 16-bit and run-length BMP files, and of WebP animations, with Pillow's;
also writes fixtures.

Usage:
    python tools/parity/bmp_webp_kinds.py check target/debug/examples/pixels [COUNT [SEED]]
    python tools/parity/bmp_webp_kinds.py fixtures

`check` draws COUNT files (300), and compares them as jpeg_kinds.py does. `fixtures` writes
crates/decode/tests/fixtures/bmp_webp. Needs pillow and numpy.
"""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from pillow_check import pillow, run

OUT = Path(__file__).resolve().parents[2] / "crates/decode/tests/fixtures/bmp_webp"
SEED = 20266


def bmp(width, height, bits, compression, rest: bytes, data: bytes, head_size=40) -> bytes:
    """Returns a BMP file; `rest` holds masks or a palette."""
    colors = len(rest) // 4 if bits <= 8 else 0
    head = struct.pack("<IiiHHIIiiII", head_size, width, height, 1, bits, compression, len(data), 0, 0, colors, 0)
    if head_size > 40:
        head, rest = head + rest.ljust(head_size - 40, b"\0"), b""
    place = 14 + len(head) + len(rest)
    return b"BM" + struct.pack("<IHHI", place + len(data), 0, 0, place) + head + rest + data


def sixteen_bits(rng, kind: str, width: int, height: int) -> bytes:
    values = rng.integers(0, 1 << 16, (abs(height), width + width % 2)).astype("<u2")
    masks = {"565": (0xF800, 0x7E0, 0x1F), "555": (0x7C00, 0x3E0, 0x1F), "plain": ()}[kind[:5]]
    head_size = 40 if height % 2 or not masks else 56
    return bmp(width, height, 16, 3 if masks else 0, struct.pack(f"<{len(masks)}I", *masks), values.tobytes(), head_size)


def runs(rng, bits: int, width: int, height: int, colors: int) -> bytes:
    """Returns data that mixes runs, single colors, ends of rows, and deltas, as a writer may do."""
    draw = lambda low, high: int(rng.integers(low, high))  # noqa: E731
    out, x, y = bytearray(), 0, 0

    def color():
        return draw(0, colors) if bits == 8 else draw(0, colors) << 4 | draw(0, colors)

    while y < height:
        left = width - x
        match draw(0, 5):
            case 0 if x and x < width and y + 1 < height:
                # A delta must not reach the end of a row, which Pillow treats as the start of the
                # next.
                right, up = draw(0, left), draw(0, min(3, height - y))
                out += bytes([0, 2, right, up])
                x, y = x + right, y + up
            case 1 if left >= 3:
                count = draw(3, min(left, 20) + 1)
                part = bytes(color() for _ in range(count if bits == 8 else (count + 1) // 2))
                out += bytes([0, count]) + part + b"\0" * (len(part) % 2)
                x += count
            case 2 if x:
                # Pillow ignores the end of a row in which nothing was drawn.
                out += b"\0\0"
                x, y = 0, y + 1
            case _ if left:
                count = draw(1, min(left, 30) + 1)
                out += bytes([count + (5 if count == left else 0), color()])
                x += count
    palette = rng.integers(0, 256, (colors, 4), dtype=np.uint8)
    return bmp(width, height, bits, 1 if bits == 8 else 2, palette.tobytes(), bytes(out) + b"\0\1")


def animation(rng, blend: bool, lossless: bool, offset: bool, alpha: bool = True) -> bytes:
    """Returns an animation of two frames, the first of which starts at (4, 2) or fills the
    canvas."""
    y, x = np.mgrid[0:18, 0:22]
    chunks = []
    for _ in range(2):
        waves = [127 + 90 * np.sin(x / a + b) * np.cos(y / b) for a, b in rng.random((3, 2)) * 5 + 2]
        values = np.stack([*waves, x * 12 % 256], -1).astype(np.uint8)
        still = io.BytesIO()
        image = Image.fromarray(values) if alpha else Image.fromarray(values[..., :3])
        image.save(still, "WEBP", lossless=lossless, exact=True, quality=80)
        data = still.getvalue()[12:]
        if data.startswith(b"VP8X"):
            data = data[18:]
        place = (2, 1) if offset else (0, 0)
        frame = b"".join(v.to_bytes(3, "little") for v in (*place, 21, 17, 100)) + bytes([0 if blend else 2]) + data
        chunks.append(b"ANMF" + struct.pack("<I", len(frame)) + frame)
    size = (29, 21) if offset else (21, 17)
    head = bytes([0x12 if alpha else 0x02, 0, 0, 0]) + b"".join(v.to_bytes(3, "little") for v in size)
    # The background color is distinct, so that its use is visible.
    body = b"WEBPVP8X" + struct.pack("<I", 10) + head + b"ANIM" + struct.pack("<I4BH", 6, 9, 200, 90, 255, 0)
    body += b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def draw(rng) -> tuple:
    width, height = (int(v) for v in rng.integers(1, 60, 2))
    match int(rng.integers(0, 3)):
        case 0:
            kind = ["565", "555", "plain"][int(rng.integers(0, 3))]
            height = -height if rng.random() < 0.3 else height
            return sixteen_bits(rng, kind, width, height), f"16 bits {kind} {width}x{height}"
        case 1:
            bits = [4, 8][int(rng.integers(0, 2))]
            colors = int(rng.integers(3, (1 << bits) + 1))
            return runs(rng, bits, width, height, colors), f"runs of {bits} bits {width}x{height} {colors}"
    choice = dict(zip(("blend", "lossless", "offset", "alpha"), map(bool, rng.integers(0, 2, 4))))
    return animation(rng, **choice), f"animation {choice}"


def save_fixtures() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    rng = np.random.default_rng(SEED)
    files = {f"bits_{kind}.bmp": sixteen_bits(rng, kind, 21, 19) for kind in ("565", "555", "plain")}
    files["bits_565_long_head.bmp"] = sixteen_bits(rng, "565", 20, 20)
    files["bits_555_top_down.bmp"] = sixteen_bits(rng, "555", 21, -19)
    for bits in (4, 8):
        files[f"runs_{bits}.bmp"] = runs(rng, bits, 41, 30, 1 << bits)
        files[f"runs_{bits}_short_palette.bmp"] = runs(rng, bits, 40, 29, 11)
    for name, lossless in {"lossless": True, "lossy": False}.items():
        files[f"blend_{name}.webp"] = animation(rng, True, lossless, False)
        files[f"blend_{name}_offset.webp"] = animation(rng, True, lossless, True)
        files[f"no_blend_{name}_offset.webp"] = animation(rng, False, lossless, True)
    files["blend_opaque_offset.webp"] = animation(rng, True, False, True, alpha=False)
    for name, data in files.items():
        pixels = pillow(data)
        assert not isinstance(pixels, str), f"{name}: {pixels}"
        (OUT / name).write_bytes(data)
        Image.fromarray(pixels).save(OUT / f"{name}.expected.png", optimize=True)


if __name__ == "__main__":
    run(__doc__, "webp", SEED, draw, save_fixtures, count=300)
