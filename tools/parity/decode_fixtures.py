"""Writes the files of crates/decode/tests/fixtures/images: small images that are hard to write with
the decoder's own library, each with the pixels that Pillow reads from it.

NAME.EXT is the file under test, and NAME.EXT.expected.png holds the result of Pillow's
`ImageOps.exif_transpose(Image.open(NAME.EXT)).convert("RGB")`.

Also writes those of crates/jpeg/tests/fixtures: NAME.jpg, and NAME.pixels with the pixels that
Pillow reads from it, as bytes.

Usage: python tools/parity/decode_fixtures.py   (needs pillow, numpy and, for 4:4:0, opencv; versions
in the READMEs beside the fixtures). The seed of the noise is 0.
"""

from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps, features

CRATES = Path(__file__).resolve().parents[2] / "crates"
OUT = CRATES / "decode/tests/fixtures/images"
JPEG_OUT = CRATES / "jpeg/tests/fixtures"
WIDTH, HEIGHT = 40, 28


def picture() -> np.ndarray:
    """Returns a smooth picture with a hard edge and no symmetry, [H, W, 3] u8."""
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
    gray = rgb.convert("L")
    alpha = Image.fromarray(np.linspace(0, 255, WIDTH * HEIGHT).astype(np.uint8).reshape(HEIGHT, WIDTH))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    cmyk = rgb.convert("CMYK")
    # Add ink in the black channel, which Pillow's conversion leaves empty.
    cmyk = Image.merge("CMYK", [*cmyk.split()[:3], alpha.point(lambda v: v // 3)])

    gray.save(OUT / "gray.jpg", quality=92)
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
    gray.point(lambda v: 255 * (v > 120)).convert("1").save(OUT / "bilevel.png")
    rgba.save(OUT / "rgba.png")
    Image.merge("LA", [gray, alpha]).save(OUT / "gray_alpha.png")
    rgba.save(OUT / "alpha.webp", lossless=True, exact=True)
    rgb.save(OUT / "lossy.webp", quality=90)
    rgb.save(OUT / "lzw.tiff", compression="tiff_lzw")
    palette.save(OUT / "palette.bmp")


def noise(width: int, height: int) -> np.ndarray:
    """Returns noise, [H, W, 3] u8, which makes all coefficients large."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(width: int, height: int) -> np.ndarray:
    """Returns the picture, mirrored repeatedly, with a little noise, [H, W, 3] u8."""
    pixels = np.pad(picture(), ((0, height), (0, width), (0, 0)), "symmetric")[:height, :width]
    return (pixels.astype(np.int16) + noise(width, height) // 16).clip(0, 255).astype(np.uint8)


def save_jpegs() -> None:
    def save(name, pixels, sampling, quality=90, **options):
        image = Image.fromarray(pixels)
        if sampling == "gray":
            image = image.convert("L")
        else:
            options["subsampling"] = sampling
        image.save(JPEG_OUT / f"{name}.jpg", quality=quality, **options)

    samplings = {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0", "gray": "gray"}
    for name, sampling in samplings.items():
        save(name, scene(77, 45), sampling)
        save(f"{name}_noise_q100", noise(33, 17), sampling, quality=100)
        save(f"{name}_noise_q1", noise(50, 34), sampling, quality=1)
        save(f"{name}_1x1", scene(1, 1), sampling)
        save(f"{name}_5x3", noise(5, 3), sampling)
        save(f"{name}_restart", scene(77, 45), sampling, restart_marker_blocks=3)
    save("444_restart_rows", scene(40, 90), "4:4:4", restart_marker_rows=1)
    save("422_optimized", scene(100, 40), "4:2:2", optimize=True)
    save("420_4x4", noise(4, 4), "4:2:0")
    save("420_wide", scene(300, 17), "4:2:0", quality=75)
    save("420_tall", scene(9, 150), "4:2:0", quality=75)
    for name, pixels in {"440": scene(77, 45), "440_2x1": noise(2, 1), "440_tall": scene(5, 70)}.items():
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440]
        cv2.imwrite(str(JPEG_OUT / f"{name}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90, *sampling])


def main() -> None:
    # The smallest pictures need more bytes than Pillow expects.
    ImageFile.MAXBLOCK = 1 << 20
    JPEG_OUT.mkdir(parents=True, exist_ok=True)
    save_jpegs()
    for file in sorted(JPEG_OUT.glob("*.jpg")):
        np.asarray(Image.open(file)).tofile(file.with_suffix(".pixels"))
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
    print(f"pillow {PIL.__version__}, numpy {np.__version__}, opencv {cv2.__version__}")
    print(f"libjpeg-turbo {jpeg}, libwebp {webp}")


if __name__ == "__main__":
    main()
