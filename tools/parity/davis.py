"""Writes fixtures of crates/score: tracks of several objects, and J and F of DAVIS.

    python tools/parity/davis.py [PACK]

Writes PNG files and expected.json to crates/score/tests/fixtures/davis. The measures are
implemented with numpy, skimage's disk, and OpenCV's dilation, following the definitions of
davis2017-evaluation. If PACK, an extracted pack of DAVIS sequences, is given, they are first
compared with that program's numbers in the pack.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage.morphology import disk

SEED = 20264
FIXTURES = Path(__file__).parents[2] / "crates/score/tests/fixtures/davis"


def j_measure(found, truth):
    union = np.count_nonzero(found | truth)
    return np.count_nonzero(found & truth) / union if union else 1.0


def boundary(mask):
    """Returns the pixels that differ from the one to the right, below, or diagonally; in the last
    row and column, only existing neighbors count."""
    edge = np.zeros_like(mask)
    edge[:-1, :-1] = (mask[:-1, :-1] ^ mask[:-1, 1:]) | (mask[:-1, :-1] ^ mask[1:, :-1]) \
        | (mask[:-1, :-1] ^ mask[1:, 1:])
    edge[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return edge


def f_measure(found, truth):
    kernel = disk(int(np.ceil(.008 * np.hypot(*found.shape)))).astype(np.uint8)
    found, truth = boundary(found), boundary(truth)
    near = [cv2.dilate(edge.astype(np.uint8), kernel) > 0 for edge in (truth, found)]
    counts = found.sum(), truth.sum()
    if counts == (0, 0):
        return 1.0
    precision = (found & near[0]).sum() / counts[0] if counts[0] else 1.0
    recall = (truth & near[1]).sum() / counts[1] if counts[1] else 1.0
    return 0.0 if precision + recall == 0 or 0 in counts else \
        2 * precision * recall / (precision + recall)


def statistics(values):
    values = np.asarray(values)
    borders = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(int)
    decay = values[borders[0]:borders[1] + 1].mean() - values[borders[3]:borders[4] + 1].mean()
    return {"mean": float(values.mean()), "recall": float((values > .5).mean()), "decay": float(decay)}


def check(pack):
    expected = json.loads((pack / "osvos_reference_jf.json").read_text())
    for sequence in (name for name in expected if name != "_note"):
        scores = []
        for path in sorted((pack / "Annotations/480p" / sequence).glob("*.png"))[1:-1]:
            truth = np.array(Image.open(path)) > 0
            found = np.array(Image.open(pack / "osvos_pred" / sequence / path.name)) > 0
            scores.append((j_measure(found, truth), f_measure(found, truth)))
        for letter, values in zip("JF", zip(*scores)):
            for key, value in statistics(values).items():
                difference = abs(value - expected[sequence][f"{letter}_{key}"])
                assert difference < 1e-6, (sequence, letter, key, difference)


def ellipse(shape, center, radii):
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    return ((rows - center[0]) / radii[0]) ** 2 + ((columns - center[1]) / radii[1]) ** 2 <= 1


def frame(shape, time, offset, gone):
    """Draws objects that move, grow, cover each other, and leave the frame."""
    image = np.zeros(shape, np.uint8)
    height, width = shape
    places = [((.3, .2 + .06 * time), (.18, .12)), ((.6, .7 - .05 * time), (.25, .1 + .01 * time)),
              ((.2 + .1 * time, .9), (.12, .1))]
    for number, (center, radii) in enumerate(places, 1):
        if number not in gone:
            moved = np.array(center) * [height, width] + offset
            image[ellipse(shape, moved, np.array(radii) * [height, width])] = number
    return image


def save(folder, index, image):
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image, "P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    # Four colors: Pillow packs them into 2 bits.
    picture.save(folder / f"{index:05}.png", bits=2)


def main():
    if len(sys.argv) > 1:
        check(Path(sys.argv[1]))
    rng = np.random.default_rng(SEED)
    expected = {}
    # The third object of the second sequence is never found.
    for name, shape, frames, lost in [("one", (120, 160), 9, []), ("two", (180, 320), 5, [3])]:
        scores = []
        for time in range(frames):
            truth = frame(shape, time, [0, 0], [2] if name == "one" and time > 6 else [])
            found = frame(shape, time, rng.normal(0, 1 + .4 * time, 2), lost)
            found[rng.random(shape) < .001] = 0
            if name == "one" and time == 4:
                found[:] = 0
            save(FIXTURES / "truth" / name, time, truth)
            save(FIXTURES / "results" / name, time, found)
            scores.append([[measure(found == number, truth == number) for number in (1, 2, 3)]
                           for measure in (j_measure, f_measure)])
        scores = np.array(scores[1:-1])
        expected[name] = [{"j": statistics(scores[:, 0, number]), "f": statistics(scores[:, 1, number])}
                          for number in range(3)]
    (FIXTURES / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
