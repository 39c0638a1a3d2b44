"""Compares our decoding of many kinds of TIFF files with Pillow's; also writes a few as fixtures.

Usage:
    python tools/parity/tiff_kinds.py check target/debug/examples/pixels [COUNT [SEED]]
    python tools/parity/tiff_kinds.py fixtures

`check` draws COUNT files (1000), and compares them as jpeg_kinds.py does. `fixtures` writes
crates/decode/tests/fixtures/tiff. Needs pillow, numpy, and imagecodecs.

Pillow does not use libtiff for uncompressed files: it assumes 4:4:4 for YCbCr, whatever the file
says, and does not reverse the bits of planes. For such files, it reads the same file with Deflate
instead.
"""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image
from pillow_check import pillow, run

OUT = Path(__file__).resolve().parents[2] / "crates/decode/tests/fixtures/tiff"
SEED = 20265
GRAY_WHITE, GRAY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
NONE, GROUP4, LZW, JPEG, DEFLATE, PACKBITS = 1, 4, 5, 7, 8, 32773
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def write(width, height, tags: dict, chunks: list, big_endian=False) -> bytes:
    """Returns a file of one page, given tags as {number: (type, values)}, and the bytes of each
    strip or tile."""
    order = ">" if big_endian else "<"
    out = bytearray((b"MM" if big_endian else b"II") + struct.pack(order + "HI", 42, 0))
    places = []
    for chunk in chunks:
        places.append(len(out))
        out += chunk + b"\0" * (len(chunk) % 2)
    tiled = 322 in tags
    tags = {256: (3, [width]), 257: (3, [height]), **tags}
    tags[324 if tiled else 273] = (4, places)
    tags[325 if tiled else 279] = (4, [len(chunk) for chunk in chunks])
    entries = b""
    for tag, (kind, values) in sorted(tags.items()):
        form = {1: "B", 3: "H", 4: "I", 5: "I", 7: "B"}[kind]
        content = struct.pack(f"{order}{len(values)}{form}", *values)
        count = len(values) // (2 if kind == 5 else 1)
        if len(content) > 4:
            place = len(out)
            out += content + b"\0" * (len(content) % 2)
            content = struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", tag, kind, count) + content.ljust(4, b"\0")
    out[4:8] = struct.pack(order + "I", len(out))
    return bytes(out + struct.pack(order + "H", len(tags)) + entries + bytes(4))


def pack(values: np.ndarray, bits: int, big_endian: bool) -> bytes:
    """Packs [rows, columns, channels] to bytes; each row starts with a new byte."""
    rows = values.reshape(len(values), -1)
    if bits == 16:
        return rows.astype(">u2" if big_endian else "<u2").tobytes()
    if bits == 8:
        return rows.astype(np.uint8).tobytes()
    digits = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def units(values: np.ndarray, across: int, down: int) -> bytes:
    """Returns subsampled YCbCr, with the color of the first of `across` times `down` pixels."""
    height, width, _ = values.shape
    values = np.pad(values, ((0, -height % down), (0, -width % across), (0, 0)), "edge")
    rows = []
    for y in range(0, len(values), down):
        for x in range(0, values.shape[1], across):
            block = values[y : y + down, x : x + across]
            rows.append(np.concatenate([block[..., 0].ravel(), block[0, 0, 1:]]))
    return np.concatenate(rows).astype(np.uint8).tobytes()


def difference(values: np.ndarray, bits: int) -> np.ndarray:
    before = np.pad(values, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return (values.astype(int) - before) % (1 << bits)


def compressed(data: bytes, compression: int) -> bytes:
    match compression:
        case 5:
            return imagecodecs.lzw_encode(data)
        case 8:
            return zlib.compress(data)
        case 32773:
            return imagecodecs.packbits_encode(data)
    return data


def as_jpeg(values: np.ndarray, colors: int, subsampling: str) -> bytes:
    """Encodes a strip or tile as a JPEG file."""
    out = io.BytesIO()
    modes = {1: "L", 3: "YCbCr" if colors == YCBCR else "RGB", 4: "CMYK"}
    image = Image.frombytes(modes[values.shape[2]], values.shape[1::-1], values.astype(np.uint8).tobytes())
    if values.shape[2] == 3:
        options = {"subsampling": subsampling, "keep_rgb": colors == RGB}
        image.save(out, "JPEG", quality=85, **options)
    else:
        image.save(out, "JPEG", quality=85)
    return out.getvalue()


def picture(rng, width, height, channels, bits):
    """Returns smooth values with some noise."""
    y, x = np.mgrid[0:height, 0:width]
    most = (1 << bits) - 1
    phases = rng.random((channels, 3)) * 6
    waves = [np.sin(x / (3 + a) + b) * np.cos(y / (4 + b) + c) for a, b, c in phases]
    noise = rng.random((height, width, channels)) * 0.3
    return np.clip((np.stack(waves, -1) * 0.4 + 0.4 + noise) * most, 0, most).astype(int)


def draw(rng, **choice) -> tuple:
    """Returns a file and its description; `choice` fixes what must not be drawn."""

    def choose(name, options):
        return choice[name] if name in choice else options[int(rng.integers(0, len(options)))]

    width, height = (int(v) for v in choice.get("size", rng.integers(1, 41, 2)))
    colors = choose("colors", [GRAY_WHITE, GRAY, RGB, PALETTE, CMYK, YCBCR, YCBCR])
    compression = choose("compression", [NONE, LZW, DEFLATE, PACKBITS, JPEG])
    if compression == JPEG and colors == PALETTE:
        compression = LZW
    channels = {RGB: 3, CMYK: 4, YCBCR: 3}.get(colors, 1)
    bits = choose("bits", [1, 2, 4, 8, 8] if channels == 1 else [8])
    if compression == JPEG:
        bits = 8
    shared = choose("shared", [(1, 1), (2, 1), (2, 2), (1, 2), (4, 1), (4, 2)])
    if colors != YCBCR:
        shared = (1, 1)
    extra = choose("extra", [0, 0, 0, 1]) if colors in (RGB, CMYK) and compression != JPEG else 0
    big_endian, fill_order = choose("big_endian", [False, True]), choose("fill_order", [1, 1, 2])
    predicted = bits == 8 and shared == (1, 1) and compression in (LZW, DEFLATE) and rng.random() < 0.3
    tiled = choose("tiled", [False, False, True])
    planar = choose("planar", [False] * 5 + [True]) and channels > 1 and shared == (1, 1) and not tiled
    planar = planar and compression != JPEG and colors == RGB and not extra
    values = picture(rng, width, height, channels + extra, bits)
    subsampling = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}.get(shared, "4:2:0")
    if compression == JPEG and colors == YCBCR:
        shared = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}[subsampling]
    rows = height if rng.random() < 0.4 else int(rng.integers(1, 3)) * (16 if compression == JPEG else 4)
    across, down = (16 * int(rng.integers(1, 3)), 16) if tiled else (width, min(rows, height))
    tags = {
        258: (3, [bits] * (channels + extra)), 259: (3, [compression]), 262: (3, [colors]),
        277: (3, [channels + extra]), 284: (3, [2 if planar else 1]), 266: (3, [fill_order]),
        317: (3, [2 if predicted else 1]),
    }
    tags.update({322: (3, [across]), 323: (3, [down])} if tiled else {278: (3, [down])})
    if extra:
        tags[338] = (3, [0] * extra)
    if colors == PALETTE:
        tags[320] = (3, rng.integers(0, 65536, 3 << bits).tolist())
    if colors == YCBCR:
        tags[530] = (3, list(shared))
        if choose("factors", [False, False, True]) and compression != NONE:
            tags[529] = (5, [2126, 10000, 7152, 10000, 722, 10000])
            tags[532] = (5, [v for n in (16, 235, 128, 240, 128, 240) for v in (n, 1)])
    if choose("orientation", [1, 1, 1, 3, 6]) != 1 and "orientation" not in choice:
        tags[274] = (3, [int(rng.integers(2, 9))])
    if choose("short_tags", [False, True]) and tags[266] == (3, [1]):
        del tags[266]
    odd = compression == NONE and (colors == YCBCR or planar)
    # With these compressions, this tag (the predictor) has no effect.
    if compression in (NONE, PACKBITS) and not odd and choice.get("ignored", width % 4 == 0):
        tags[317] = (3, [2])
    files = []
    for form in (compression, DEFLATE) if odd else (compression,):
        tags[259] = (3, [form])
        chunks = []
        for plane in [values[..., i : i + 1] for i in range(channels)] if planar else [values]:
            for y in range(0, height, down):
                for x in range(0, width, across):
                    part = plane[y : y + down, x : x + across]
                    if tiled:
                        missing = ((0, down - part.shape[0]), (0, across - part.shape[1]), (0, 0))
                        part = np.pad(part, missing, "edge")
                    if form == JPEG:
                        chunks.append(as_jpeg(part, colors, subsampling))
                        continue
                    if predicted:
                        part = difference(part, bits)
                    data = units(part, *shared) if shared != (1, 1) else pack(part, bits, big_endian)
                    data = compressed(data, form)
                    chunks.append(data.translate(REVERSED) if fill_order == 2 else data)
        files.append(write(width, height, tags, chunks, big_endian))
    words = f"{width}x{height} colors {colors} compression {compression} bits {bits} shared {shared}"
    words += f" {'tiles' if tiled else 'strips'} {across}x{down} fill {fill_order} big {big_endian}"
    words += f" predicted {predicted} planar {planar} extra {extra} tags {sorted(tags)}"
    return files[0], words, files[-1]


def save(name: str, data: bytes, reference: bytes) -> None:
    (OUT / f"{name}.tif").write_bytes(data)
    pixels = pillow(reference)
    assert not isinstance(pixels, str), f"{name}: {pixels}"
    Image.fromarray(pixels).save(OUT / f"{name}.expected.png", optimize=True)


def save_fixtures() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for old in [*OUT.glob("*.tif"), *OUT.glob("*.png")]:
        old.unlink()
    rng = np.random.default_rng(SEED)
    plain = {"planar": False, "extra": 0, "orientation": 1, "factors": False, "fill_order": 1,
             "big_endian": False, "tiled": False, "shared": (1, 1), "short_tags": False, "size": (21, 19)}
    packed = {"none": NONE, "lzw": LZW, "deflate": DEFLATE, "packbits": PACKBITS}

    def case(name, **choice):
        data, _, reference = draw(rng, **(plain | choice))
        save(name, data, reference)

    for i, (name, compression) in enumerate(packed.items()):
        bits = [1, 2, 4, 8][i]
        case(f"palette{bits}_{name}", colors=PALETTE, bits=bits, compression=compression, big_endian=i % 2 == 0)
        case(f"palette{bits}_tiles", colors=PALETTE, bits=bits, compression=LZW, tiled=True, fill_order=1 + i % 2)
        case(f"ycbcr_422_{name}", colors=YCBCR, compression=compression, shared=(2, 1), tiled=i % 2 == 1)
        case(f"ycbcr_420_{name}", colors=YCBCR, compression=compression, shared=(2, 2), tiled=i % 2 == 0)
        case(f"bilevel_reversed_{name}", colors=GRAY, bits=1, compression=compression, fill_order=2)
        # Pillow does not support the first of these with white as 0.
        gray = GRAY_WHITE if i else GRAY
        case(f"gray_reversed_{name}", colors=gray, bits=8, compression=compression, fill_order=2)
        case(f"rgb_reversed_{name}", colors=RGB, compression=compression, fill_order=2, planar=i % 2 == 0)
        case(f"cmyk_{name}", colors=CMYK, compression=compression, extra=i % 2)
    for bits in (1, 2, 4):
        case(f"white_is_zero_{bits}", colors=GRAY_WHITE, bits=bits, compression=LZW, tiled=True)
    case("ycbcr_444_lzw", colors=YCBCR, compression=LZW)
    case("ycbcr_440_deflate", colors=YCBCR, compression=DEFLATE, shared=(1, 2))
    case("ycbcr_411_packbits", colors=YCBCR, compression=PACKBITS, shared=(4, 1))
    case("ycbcr_420_factors", colors=YCBCR, compression=LZW, shared=(2, 2), factors=True)
    for name, shared in {"444": (1, 1), "422": (2, 1), "420": (2, 2)}.items():
        case(f"ycbcr_{name}_jpeg", colors=YCBCR, compression=JPEG, shared=shared)
        case(f"ycbcr_{name}_jpeg_tiles", colors=YCBCR, compression=JPEG, shared=shared, tiled=True)
    for name, colors in {"gray": GRAY, "white": GRAY_WHITE, "rgb": RGB, "cmyk": CMYK}.items():
        case(f"{name}_jpeg", colors=colors, compression=JPEG, tiled=True, big_endian=True)
    # Written by libtiff itself: JPEG tables in a tag, and fax compression.
    image = Image.fromarray(picture(rng, 21, 19, 3, 8).astype(np.uint8))
    for name, mode, compression, tags in [
        ("jpeg_tables", "YCbCr", "jpeg", {}),
        ("group4", "1", "group4", {}),
        ("group4_reversed", "1", "group4", {266: 2}),
        ("group4_predictor", "1", "group4", {317: 2}),
    ]:
        out = io.BytesIO()
        image.convert(mode).save(out, "TIFF", compression=compression, tiffinfo=tags)
        save(name, out.getvalue(), out.getvalue())
    for name, compression in {"none": NONE, "packbits": PACKBITS}.items():
        for kind, colors, bits in [("rgb", RGB, 8), ("gray", GRAY, 4), ("palette", PALETTE, 8)]:
            tiled = (kind == "gray") == (compression == NONE)
            case(f"{kind}_predictor_{name}", colors=colors, bits=bits, compression=compression, tiled=tiled, ignored=True)


if __name__ == "__main__":
    run(__doc__, "libtiff", SEED, draw, save_fixtures)
