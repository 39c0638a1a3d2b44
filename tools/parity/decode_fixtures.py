"""Makes the files of crates/decode/tests/fixtures/images: small images that are hard to write with
the decoder's own library, each with the pixels that Pillow reads from it.

NAME.EXT is the file under test, NAME.EXT.expected.png holds what Pillow's
`ImageOps.exif_transpose(Image.open(NAME.EXT)).convert("RGB")` gives.

Usage: python tools/parity/decode_fixtures.py   (needs pillow and numpy; versions in the README
beside the fixtures). No randomness.
"""

from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, features

OUT = Path(__file__).resolve().parents[2] / "crates/decode/tests/fixtures/images"
WIDTH, HEIGHT = 40, 28


def picture() -> np.ndarray:
    """A smooth picture with a hard edge and no symmetry, [H, W, 3] u8."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    red = 40 + 4.5 * x
    green = 220 - 6.0 * y
    blue = 128 + 90 * np.sin(x / 6.0) * np.cos(y / 5.0)
    image = np.stack([red, green, blue], axis=-1)
    image[4:12, 6:16] = (250, 20, 30)
    return image.clip(0, 255).round().astype(np.uint8)


def save_all() -> None:
    pixels = picture()
    rgb = Image.fromarray(pixels)
    grey = rgb.convert("L")
    alpha = Image.fromarray(np.linspace(0, 255, WIDTH * HEIGHT).astype(np.uint8).reshape(HEIGHT, WIDTH))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    cmyk = rgb.convert("CMYK")
    # Ink in the black channel, which Pillow's conversion leaves empty.
    cmyk = Image.merge("CMYK", [*cmyk.split()[:3], alpha.point(lambda v: v // 3)])

    grey.save(OUT / "grey.jpg", quality=92)
    rgb.save(OUT / "subsampled.jpg", quality=92, subsampling="4:2:0")
    rgb.save(OUT / "progressive.jpg", quality=92, progressive=True, subsampling="4:4:4")
    cmyk.save(OUT / "cmyk.jpg", quality=92)
    # The same coefficients, declared as YCCK: the transform byte of the Adobe segment is set to 2.
    data = bytearray((OUT / "cmyk.jpg").read_bytes())
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0
    data[adobe + 11] = 2
    (OUT / "ycck.jpg").write_bytes(bytes(data))
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        rgb.save(OUT / f"orientation{orientation}.jpg", quality=92, subsampling="4:4:4", exif=exif)
        if orientation in (3, 5, 6):
            rgb.save(OUT / f"orientation{orientation}.png", exif=exif)
            rgb.save(OUT / f"orientation{orientation}.webp", lossless=True, exif=exif)
            rgb.save(OUT / f"orientation{orientation}.tiff", exif=exif)

    palette = rgb.quantize(32)
    palette.save(OUT / "palette.png")
    palette.save(OUT / "palette_transparent.png", transparency=3)
    grey.point(lambda v: 255 * (v > 120)).convert("1").save(OUT / "bilevel.png")
    rgba.save(OUT / "rgba.png")
    Image.merge("LA", [grey, alpha]).save(OUT / "grey_alpha.png")
    rgba.save(OUT / "alpha.webp", lossless=True, exact=True)
    rgb.save(OUT / "lossy.webp", quality=90)
    rgb.save(OUT / "lzw.tiff", compression="tiff_lzw")
    palette.save(OUT / "palette.bmp")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        if old.suffix != ".md":
            old.unlink()
    save_all()
    for file in sorted(OUT.iterdir()):
        if file.suffix == ".md":
            continue
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        image.save(OUT / f"{file.stem}.{file.suffix[1:]}.expected.png", optimize=True)
    jpeg, webp = features.version("libjpeg_turbo"), features.version("webp")
    print(f"pillow {PIL.__version__}, numpy {np.__version__}, libjpeg-turbo {jpeg}, libwebp {webp}")


if __name__ == "__main__":
    main()
