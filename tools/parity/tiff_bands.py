"""Writes the files of crates/decode/tests/fixtures/bands: TIFF files of one to thirteen channels,
like those of satellites and scanners, and their values as bytes.

NAME.tif is the file under test. NAME.CASE.bin holds the bytes `[H, W, channels]` that numpy
computes from the values, `floor((v - low) * 255 / (high - low) + 0.5)` clipped to 0-255, for the
ranges in CASES of crates/decode/tests/bands.rs.

Usage: python tools/parity/tiff_bands.py   (needs tifffile, imagecodecs and numpy). Seed 20263.
"""

from pathlib import Path

import numpy as np
import tifffile

OUT = Path(__file__).resolve().parents[2] / "crates/decode/tests/fixtures/bands"
HEIGHT, WIDTH = 21, 18
FULL = {
    "uint8": (0, 255),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "uint32": (0, 2**32 - 1),
    "float32": (0, 1),
}


def values(rng: np.random.Generator, channels: int, low: float, high: float, dtype: str) -> np.ndarray:
    """Returns smooth, different channels with noise, `[H, W, channels]`, including the ends of the
    range."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / np.array([HEIGHT, WIDTH]).reshape(2, 1, 1)
    waves = [0.5 + 0.45 * np.sin(3 * x + c) * np.cos(4 * y - c) for c in range(channels)]
    unit = np.stack(waves, axis=-1) + rng.normal(0, 0.02, (HEIGHT, WIDTH, channels))
    unit = unit.clip(0, 1)
    unit[0, 0], unit[-1, -1] = 0, 1
    scaled = low + unit * (high - low)
    return (scaled if dtype.startswith("float") else scaled.round()).astype(dtype)


def to_bytes(pixels: np.ndarray, ranges: list[tuple[float, float]]) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    low, high = np.array(ranges, dtype=np.float64).T
    with np.errstate(invalid="ignore"):
        levels = np.floor((pixels.astype(np.float64) - low) * 255 / (high - low) + 0.5)
    return np.nan_to_num(levels, nan=0).clip(0, 255).astype(np.uint8)


def save(name: str, pixels: np.ndarray, cases: dict[str, list[tuple[float, float]]], **options) -> None:
    planar = options.get("planarconfig") == "separate"
    stored = np.moveaxis(pixels, -1, 0) if planar else pixels
    stored = stored[..., 0] if pixels.shape[-1] == 1 else stored
    tifffile.imwrite(OUT / f"{name}.tif", stored, metadata=None, **options)
    back = tifffile.imread(OUT / f"{name}.tif")
    assert np.array_equal(back, stored, equal_nan=pixels.dtype.kind == "f"), name
    for case, ranges in {"full": [FULL[str(pixels.dtype)]], **cases}.items():
        (OUT / f"{name}.{case}.bin").write_bytes(to_bytes(pixels, ranges).tobytes())


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20263)
    one = {"range": [(0, 3000)]}
    gray = {"photometric": "minisblack"}

    save("gray_u16", values(rng, 1, 0, 4095, "uint16"), one, **gray)
    # Hounsfield units of a scanner, big-endian.
    save("gray_i16", values(rng, 1, -1024, 3000, "int16"), {"range": [(-1000, 400)]}, byteorder=">", **gray)
    save("two_u8", values(rng, 2, 0, 255, "uint8"), {}, planarconfig="contig", **gray)
    # Red, green, blue, and near infrared, as in aerial photographs.
    options = {"photometric": "rgb", "extrasamples": ["unspecified"], "compression": "deflate", "predictor": 2}
    save("rgb_nir_u8", values(rng, 4, 0, 255, "uint8"), {}, planarconfig="contig", **options)
    save("four_u8", values(rng, 4, 0, 255, "uint8"), {}, planarconfig="separate", compression="lzw", **gray)
    each = [(10 * c, 2000 + 300 * c) for c in range(5)]
    five = values(rng, 5, 0, 5000, "uint16")
    options = {"compression": "deflate", "predictor": 2, "tile": (16, 16)}
    save("five_u16", five, {"range": each}, planarconfig="contig", **options, **gray)
    save("five_planar_u16", five, {"range": each}, planarconfig="separate", byteorder=">", **options, **gray)
    # Colors and additional channels, in the format for files beyond 4 GB.
    options = {"photometric": "rgb", "extrasamples": ["unspecified"] * 3, "bigtiff": True}
    save("rgb_six_u16", values(rng, 6, 0, 9000, "uint16"), one, planarconfig="contig", **options)
    save("thirteen_u16", values(rng, 13, 0, 9000, "uint16"), one, planarconfig="contig", compression="deflate", **gray)
    reflectance = values(rng, 3, -0.1, 1.2, "float32")
    reflectance[3, 4] = np.nan
    options = {"compression": "deflate", "predictor": 3}
    save("three_f32", reflectance, {"range": [(0.05, 0.4)]}, planarconfig="contig", **options, **gray)
    save("two_u32", values(rng, 2, 0, 2**32 - 1, "uint32"), {"range": [(4e9, 4.2e9)]}, planarconfig="contig", **gray)
    print(f"tifffile {tifffile.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
