"""Writes crates/decode/tests/fixtures/orientation: small images that state their orientation in all
possible places, each with the result of Pillow's `exif_transpose`.

Usage: python tools/parity/orientation.py   (needs pillow and numpy). Nothing is random.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import PIL.TiffImagePlugin
from jpeg_kinds import pillow
from jpeg_writer import segment
from PIL import Image

OUT = Path(__file__).resolve().parents[2] / "crates/decode/tests/fixtures/orientation"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def exif(kind: int, content: bytes, count: int = 1, order: str = "<") -> bytes:
    """Returns an EXIF block that contains only an orientation."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIHHHI", 42, 8, 1, 0x0112, kind, count)
    inline = content if len(content) <= 4 else struct.pack(order + "I", 26)
    return head + inline.ljust(4, b"\0") + bytes(4) + (content if len(content) > 4 else b"")


SHORT_6, SHORT_3, LONG_8 = exif(3, b"\6\0"), exif(3, b"\0\3", order=">"), exif(4, b"\x08\0\0\0")
RATIONAL_5, TWO_7 = exif(5, struct.pack("<II", 5, 1)), exif(3, b"\7\0\1\0", 2)
BYTE_6, NONE = exif(1, b"\6"), exif(3, b"\6\0").replace(b"\x12\x01", b"\x13\x01")


def picture() -> Image.Image:
    y, x = np.mgrid[0:8, 0:12]
    pixels = np.stack([x * 20, y * 30, (x + y) * 12], -1).astype(np.uint8)
    pixels[:3, :5] = (250, 20, 30)
    return Image.fromarray(pixels)


def encoded(form: str, **options) -> bytes:
    out = io.BytesIO()
    picture().save(out, form, **options)
    return out.getvalue()


def jpeg(*blocks: bytes, progressive=False) -> bytes:
    data = encoded("JPEG", quality=90, progressive=progressive)
    return data[:2] + b"".join(segment(0xE1, block) for block in blocks) + data[2:]


def png(*chunks: tuple, behind=False) -> bytes:
    """Adds chunks before the image data or after it."""
    data = encoded("PNG")
    more = b"".join(
        len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")
        for name, content in chunks
    )
    place = data.index(b"IEND" if behind else b"IDAT") - 4
    return data[:place] + more + data[place:]


def files() -> dict:
    block = b"Exif\0\0"
    packet = b"http://ns.adobe.com/xap/1.0/\0"
    profile = b"\nexif\n%8d\n%s\n" % (len(SHORT_6), SHORT_6.hex().encode())
    xmp_text = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 8
    frames = {"save_all": True, "append_images": [picture().rotate(180)], "duration": 100, "lossless": True}
    files = {}
    for progressive in (False, True):
        name = "progressive" if progressive else "baseline"
        for what, blocks in {
            "long": [block + LONG_8],
            "rational": [block + RATIONAL_5],
            "two_values": [block + TWO_7],
            "byte": [block + BYTE_6],
            "two_blocks": [block + SHORT_3, block + SHORT_6],
            "empty_block": [block, block + SHORT_6],
            "xmp": [packet + XMP % 5],
            "xmp_twice": [packet + XMP % 5, packet + XMP % 7],
            "xmp_and_exif": [packet + XMP % 5, block + SHORT_3],
            "xmp_and_exif_without": [block + NONE, packet + XMP % 2],
        }.items():
            files[f"{name}_{what}.jpg"] = jpeg(*blocks, progressive=progressive)
    files |= {
        "exif.png": png((b"eXIf", LONG_8)),
        "exif_behind.png": png((b"eXIf", SHORT_6), behind=True),
        "profile.png": png((b"tEXt", b"Raw profile type exif\0" + profile)),
        "profile_packed.png": png((b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))),
        "xmp.png": png((b"iTXt", xmp_text)),
        "xmp_packed.png": png((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP % 6))),
        "xmp_and_exif.png": png((b"iTXt", xmp_text), (b"eXIf", SHORT_3)),
        "still.webp": encoded("WEBP", lossless=True, exif=LONG_8),
        "still_xmp.webp": encoded("WEBP", lossless=True, xmp=XMP % 6),
        "animated.webp": encoded("WEBP", exif=SHORT_6, **frames),
        "animated_xmp.webp": encoded("WEBP", xmp=XMP % 8, **frames),
        "xmp.tif": encoded("TIFF", tiffinfo={700: XMP % 6}),
        "xmp_and_tag.tif": encoded("TIFF", tiffinfo={700: XMP % 6, 274: 3}),
    }
    directory = PIL.TiffImagePlugin.ImageFileDirectory_v2()
    directory.tagtype[274] = 4
    directory[274] = 8
    files["long.tif"] = encoded("TIFF", tiffinfo=directory)
    return files


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    for name, data in files().items():
        (OUT / name).write_bytes(data)
        pixels = pillow(data)
        assert not isinstance(pixels, str), f"{name}: {pixels}"
        print(name, pixels.shape[:2])
        Image.fromarray(pixels).save(OUT / f"{name}.expected.png", optimize=True)
    print(f"pillow {PIL.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
