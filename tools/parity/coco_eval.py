"""Writes fixtures of crates/score with pycocotools: run lengths, and COCO's twelve numbers.

    python tools/parity/coco_eval.py [PACK]

Writes crates/score/tests/fixtures/{rle,truth,results,expected}.json from drawn images. If PACK is
an extracted coco_mini, also writes mini.json: the numbers of its annotations after shifting,
dropping, and repeating them by a rule that the Rust test repeats. Needs pycocotools and numpy.
"""

import contextlib
import copy
import io
import json
import sys
from pathlib import Path

import numpy as np
import pycocotools.mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SEED = 20263
FIXTURES = Path(__file__).parents[2] / "crates/score/tests/fixtures"
NAMES = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
         "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"]


def encoded(mask):
    rle = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def dataset(file):
    truth = COCO()
    truth.dataset = file
    truth.createIndex()
    return truth


def numbers(file, results, kind):
    """Returns COCO's twelve numbers, with None where pycocotools has -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = dataset(copy.deepcopy(file))
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: None if value < 0 else float(value)
            for name, value in zip(NAMES, evaluation.stats)}


def all_numbers(file, results):
    """Returns the numbers of boxes and masks, with and without classes. As in detectron2, the boxes
    of detected masks, which pycocotools would compute areas from, are left out, except in
    box_areas."""
    one_class = copy.deepcopy(file)
    one_class["categories"] = [{"id": 1, "name": "object"}]
    found = copy.deepcopy(results)
    for entry in one_class["annotations"] + found:
        entry["category_id"] = 1
    plain = [{k: v for k, v in entry.items() if k != "bbox"} for entry in results]
    plain_found = [{k: v for k, v in entry.items() if k != "bbox"} for entry in found]
    return {
        "box": numbers(file, results, "bbox"),
        "mask": numbers(file, plain, "segm"),
        "mask_box_areas": numbers(file, results, "segm"),
        "mask_box": numbers(file, plain, "bbox"),
        "box_class_agnostic": numbers(one_class, found, "bbox"),
        "mask_class_agnostic": numbers(one_class, plain_found, "segm"),
    }


# Run lengths

def rle_cases(rng):
    """Returns masks, polygons, boxes, and pairs, with pycocotools' results for them."""
    cases = {"masks": [], "polygons": [], "uncompressed": [], "unions": [], "overlaps": []}
    pool = []
    for index in range(24):
        height, width = int(rng.integers(1, 14)), int(rng.integers(1, 14))
        mask = rng.random((height, width)) < rng.choice([0, .1, .5, .9, 1])
        rle = encoded(mask)
        area, box = int(masks.area(rle)), masks.toBbox(rle).tolist()
        rows = "".join("01"[int(pixel)] for pixel in mask.flatten())
        cases["masks"].append({**rle, "rows": rows, "area": area, "bbox": box})
    for index in range(40):
        height, width = int(rng.integers(1, 60)), int(rng.integers(1, 60))
        polygons = []
        for _ in range(int(rng.integers(1, 4))):
            points = rng.normal(.5, .5, (int(rng.integers(3, 9)), 2)) * [width, height]
            points = points.round(int(rng.integers(0, 3)))
            if rng.random() < .2:
                points[1] = points[0]
            polygons.append(points.flatten().tolist())
        if len(polygons) > 1 and index % 8 == 0:
            polygons[1] = polygons[1][:4]
        rle = masks.merge(masks.frPyObjects(polygons, height, width))
        cases["polygons"].append(
            {"polygons": polygons, "size": [height, width], "counts": rle["counts"].decode()})
    # Long runs and large differences, which take several characters.
    for counts in [[0, 5], [5], [0], [100000, 3, 7, 90000, 1, 1], [1, 0, 0, 2, 3], [0, 1, 0, 0, 4, 1]]:
        rle = masks.frPyObjects({"size": [sum(counts), 1], "counts": counts}, sum(counts), 1)
        cases["uncompressed"].append({"counts": counts, "text": rle["counts"].decode()})
    for _ in range(12):
        height, width = int(rng.integers(1, 20)), int(rng.integers(1, 20))
        pool = [encoded(rng.random((height, width)) < p) for p in (.2, .4, .7)]
        cases["unions"].append({
            "masks": pool,
            "union": masks.merge(pool)["counts"].decode(),
            "intersection": masks.merge(pool, True)["counts"].decode()})
        cases["overlaps"].append({
            "masks": pool,
            "plain": masks.iou(pool, pool, [0] * 3).tolist(),
            "crowd": masks.iou(pool, pool, [1] * 3).tolist()})
    return cases


# Drawn images

def blob(rng, height, width):
    """Returns an ellipse as a mask."""
    center = rng.random(2) * [height, width]
    radii = (.08 + .35 * rng.random(2) ** 2) * [height, width]
    rows, columns = np.mgrid[:height, :width]
    return ((rows - center[0]) / radii[0]) ** 2 + ((columns - center[1]) / radii[1]) ** 2 <= 1


def polygon_of(rng, height, width):
    angles = np.sort(rng.random(7)) * 2 * np.pi
    radius = .1 + .3 * rng.random()
    center = .3 + .4 * rng.random(2)
    x = (center[0] + radius * np.cos(angles)) * width
    y = (center[1] + radius * np.sin(angles)) * height
    return np.stack([x, y], 1).round(1).flatten().tolist()


def shifted(mask, dy, dx):
    """Shifts a mask without wrapping around."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    rows = slice(max(dy, 0), height + min(dy, 0)), slice(max(-dy, 0), height + min(-dy, 0))
    columns = slice(max(dx, 0), width + min(dx, 0)), slice(max(-dx, 0), width + min(-dx, 0))
    out[rows[0], columns[0]] = mask[rows[1], columns[1]]
    return out


def drawn(rng, count=14, categories=4):
    """Returns ground truth and results, including perturbed, missing, and repeated ones, crowds,
    empty masks, equal scores, images without annotations or detections, and a class without
    instances."""
    sizes = [(48, 64), (120, 160), (31, 17)]
    images, annotations, results = [], [], []
    for index in rng.permutation(count):
        height, width = sizes[index % len(sizes)]
        image = {"id": int(index) * 7 + 1, "file_name": f"{index}.jpg", "height": height, "width": width}
        images.append(image)
        for _ in range(0 if index in (3, 5) else int(rng.integers(1, 6))):
            crowd = rng.random() < .15
            if rng.random() < .4 and not crowd:
                segmentation = [polygon_of(rng, height, width) for _ in range(int(rng.integers(1, 3)))]
                rle = masks.merge(masks.frPyObjects(segmentation, height, width))
            else:
                mask = blob(rng, height, width)
                rle = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
                runs = np.diff(np.flatnonzero(np.diff(np.r_[0, mask.T.flatten(), 2])), prepend=0)
                segmentation = {"size": [height, width], "counts": encoded(mask)["counts"]}
                if crowd:
                    segmentation = {"size": [height, width], "counts": runs.tolist()}
            if rng.random() < .05:
                segmentation = {"size": [height, width], "counts": [height * width]}
                rle = masks.frPyObjects(segmentation, height, width)
            area = float(masks.area(rle)) * (1 if rng.random() < .8 else .97)
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"],
                "category_id": int(rng.integers(0, categories - 1)) * 10 + 1, "iscrowd": int(crowd),
                "area": area, "bbox": masks.toBbox(rle).tolist(), "segmentation": segmentation})
            if index == 6 or rng.random() < .15:
                continue
            for _ in range(8 if crowd else 1 if rng.random() < .8 else 2):
                found = masks.decode(rle)
                scale = rng.choice([0, .02, .1])
                dy, dx = (rng.normal(0, scale, 2) * [height, width]).astype(int).tolist()
                results.append(detection(rng, image, annotations[-1], shifted(found, dy, dx)))
        for _ in range(int(rng.integers(0, 3))):
            annotation = {"category_id": int(rng.integers(0, categories - 1)) * 10 + 1}
            results.append(detection(rng, image, annotation, blob(rng, height, width)))
    file = {"images": images, "annotations": annotations,
            "categories": [{"id": index * 10 + 1, "name": "abcdefgh"[index]}
                           for index in range(categories)]}
    # A crowded image: more detections than count.
    for _ in range(115):
        annotation = annotations[int(rng.integers(0, 3))]
        image = next(image for image in images if image["id"] == annotation["image_id"])
        rle = {"size": [image["height"], image["width"]]}
        mask = np.zeros(rle["size"], np.uint8)
        mask[: int(rng.integers(1, 20)), : int(rng.integers(1, 20))] = 1
        results.append(detection(rng, image, annotation, mask))
    return file, [results[index] for index in rng.permutation(len(results))]


def detection(rng, image, annotation, mask):
    if rng.random() < .04:
        mask = np.zeros_like(mask)
    rle = encoded(mask)
    box = (masks.toBbox(rle) + np.r_[rng.normal(0, 1.5, 2), 0, 0]).round(2).tolist()
    category = annotation["category_id"] if rng.random() < .9 else 11
    return {"image_id": image["id"], "category_id": category, "score": int(rng.integers(0, 9)) / 8,
            "bbox": box, "segmentation": rle}


# Real images

def perturbed(file):
    """Returns detections made from the annotations of a real dataset, without random numbers."""
    truth = dataset(copy.deepcopy(file))
    categories = sorted(category["id"] for category in file["categories"])
    results = []
    for index, annotation in enumerate(file["annotations"]):
        if index % 9 == 4:
            continue
        mask = truth.annToMask(annotation)
        for repeat in range(2 if index % 11 == 5 else 1):
            number = index * 37 + repeat * 53
            found = shifted(mask, number % 13 - 6, number % 17 - 8)
            if index % 50 == 7:
                found[:] = 0
            category = annotation["category_id"]
            if index % 13 == 6:
                category = categories[number % len(categories)]
            rle = encoded(found)
            results.append({
                "image_id": annotation["image_id"], "category_id": category,
                "score": number % 101 / 101, "bbox": masks.toBbox(rle).tolist(), "segmentation": rle})
    return results


def write(name, value):
    FIXTURES.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, separators=(",", ":"))
    # One entry per line.
    (FIXTURES / name).write_text(text.replace('},{', '},\n{').replace('"],"', '"],\n"') + "\n")


def main():
    rng = np.random.default_rng(SEED)
    write("rle.json", rle_cases(rng))
    file, results = drawn(rng)
    write("truth.json", file)
    write("results.json", results)
    write("expected.json", all_numbers(file, results))
    if len(sys.argv) > 1:
        file = json.loads((Path(sys.argv[1]) / "annotations/instances.json").read_text())
        write("mini.json", all_numbers(file, perturbed(file)))


if __name__ == "__main__":
    main()
