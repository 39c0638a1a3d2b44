"""Writes crates/data/tests/fixtures/masks.json: block-wise masks of the published sampler (BEiT's
and iBOT's blocks, DINOv2's stratified ratios), reimplemented in plain Python with the random
numbers that crates/data documents: ChaCha with 8 rounds, keyed by (seed, epoch, sample, tag,
detail).

Nothing is shared with the Rust code: the generator, integers below n, the shuffle, and the masks
are implemented here again. See README.md beside this file.

Usage: python tools/parity/masks.py   (needs nothing but Python)
"""

import json
import math
import struct
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "crates/data/tests/fixtures/masks.json"
WORD = 0xFFFFFFFF
TAGS = {"mask": 3, "blocks": 7}


def chacha8(key: bytes):
    """Yields the 64-bit numbers of the stream, two words each, with nonce 0 and a 64-bit counter
    from 0."""
    constants = struct.unpack("<4I", b"expand 32-byte k")
    words = struct.unpack("<8I", key)
    counter = 0
    while True:
        start = [*constants, *words, counter & WORD, counter >> 32, 0, 0]
        s = list(start)

        def quarter(a, b, c, d):
            for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                s[x] = (s[x] + s[y]) & WORD
                mixed = s[z] ^ s[x]
                s[z] = (mixed << turn | mixed >> 32 - turn) & WORD

        for _ in range(4):
            for column in range(4):
                quarter(column, 4 + column, 8 + column, 12 + column)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        out = [(a + b) & WORD for a, b in zip(s, start)]
        yield from (out[i] | out[i + 1] << 32 for i in range(0, 16, 2))
        counter += 1


class Draws:
    def __init__(self, seed: int, epoch: int, sample: int, tag: str, detail: int):
        self.numbers = chacha8(struct.pack("<QQQII", seed, epoch, sample, TAGS[tag], detail))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * ((next(self.numbers) >> 11) * 2.0**-53)

    def below(self, n: int) -> int:
        """Returns an integer below n by Lemire's method, with rejection."""
        product = next(self.numbers) * n
        while product % 2**64 < 2**64 % n:
            product = next(self.numbers) * n
        return product >> 64


def block_mask(grid, target, settings, draws):
    """Returns the result of the published code's `generator(target)`, as rows of booleans."""
    height, width = grid
    mask = [[False] * width for _ in range(height)]
    log_aspect = (math.log(settings["min_aspect"]), math.log(1 / settings["min_aspect"]))
    max_patches = height // 2 * width
    count = 0
    while count < target:
        cap, delta = min(target - count, max_patches), 0
        for _ in range(10):
            area = draws.uniform(settings["min_patches"], cap)
            aspect = math.exp(draws.uniform(*log_aspect))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (w < width and h < height):
                continue
            top, left = draws.below(height - h + 1), draws.below(width - w + 1)
            box = [(y, x) for y in range(top, top + h) for x in range(left, left + w)]
            new = sum(not mask[y][x] for y, x in box)
            if 0 < new <= cap:
                for y, x in box:
                    mask[y][x] = True
                delta = new
                break
        if delta == 0:
            break
        count += delta
    return mask


def batch_masks(case):
    """Returns the masks of all global crops. Some crops are masked, in random order, with evenly
    increasing ratios."""
    settings, grid, (seed, epoch, step) = case["settings"], case["grid"], case["key"]
    crops = 2 * case["batch"]
    masked = int(crops * settings["mask_probability"])
    low, high = settings["mask_ratio"]
    order = list(range(crops))
    draws = Draws(seed, epoch, step, "mask", 0)
    for i in range(crops - 1, 0, -1):
        j = draws.below(i + 1)
        order[i], order[j] = order[j], order[i]
    masks = []
    for crop, place in enumerate(order):
        target = 0
        draws = Draws(seed, epoch, step, "blocks", crop)
        if place < masked:
            edges = [low + (high - low) * i / masked for i in (place, place + 1)]
            target = int(grid[0] * grid[1] * draws.uniform(*edges))
        masks.append(block_mask(grid, target, settings, draws))
    return masks


def packed(mask) -> str:
    """Writes each row of the grid as a hexadecimal number, with its first patch as the lowest bit."""
    return " ".join(f"{sum(hidden << x for x, hidden in enumerate(row)):x}" for row in mask)


def main() -> None:
    published = {"mask_probability": 0.5, "mask_ratio": [0.1, 0.5], "min_patches": 4, "min_aspect": 0.3}
    other = {"mask_probability": 0.8, "mask_ratio": [0.3, 0.9], "min_patches": 2, "min_aspect": 0.6}
    cases = [
        {"grid": [14, 14], "batch": 16, "key": [0, 0, 0], "settings": published},
        {"grid": [14, 14], "batch": 8, "key": [7, 3, 1250], "settings": published},
        {"grid": [16, 12], "batch": 8, "key": [2**63 + 5, 99, 12], "settings": published},
        {"grid": [7, 9], "batch": 8, "key": [1, 1, 1], "settings": other},
        {"grid": [3, 3], "batch": 4, "key": [5, 0, 4], "settings": other},
    ]
    for case in cases:
        case["masks"] = [packed(mask) for mask in batch_masks(case)]
    OUT.write_text(json.dumps(cases, indent=0) + "\n")
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
