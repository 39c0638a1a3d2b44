"""The multi-crop pipeline of DINO and SimDINO in Python, for `cargo xtask bench data`.

One thread turns encoded bytes in memory into uint8 crops, 2 of 224 pixels and 10 of 96, with the
published operations, probabilities, and order. `torchvision` uses torchvision with Pillow images,
as published, but without the final conversion to floats, which is not part of this comparison.
`albumentations` uses the same operations with OpenCV, whose bicubic resizing does not antialias and
whose blur is a plain Gaussian, so that its crops are cheaper and not the same. `decode` only
decodes, with OpenCV, which adds the least to libjpeg-turbo.

Prints one JSON object as its last line.
"""

import argparse
import io
import json
import time
from pathlib import Path

GLOBAL_SIZE, LOCAL_SIZE, LOCAL_CROPS = 224, 96, 10
GLOBAL_SCALE, LOCAL_SCALE = (0.4, 1.0), (0.05, 0.4)
EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=["torchvision", "albumentations", "decode"])
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--seconds", type=float, default=10.0, help="least time to measure")
    return parser.parse_args()


def torchvision_pipeline():
    import random

    import numpy as np
    import torch
    import torchvision
    from PIL import Image, ImageFilter, ImageOps
    from torchvision import transforms

    torch.set_num_threads(1)

    class Blur:
        def __init__(self, p):
            self.p = p

        def __call__(self, image):
            if random.random() > self.p:
                return image
            return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))

    class Solarize:
        def __call__(self, image):
            return ImageOps.solarize(image) if random.random() < 0.2 else image

    def crop(size, scale, blur, *last):
        jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
        return transforms.Compose(
            [
                transforms.RandomResizedCrop(
                    size, scale, interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.RandomHorizontalFlip(0.5),
                transforms.RandomApply([jitter], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                Blur(blur),
                *last,
            ]
        )

    views = [
        crop(GLOBAL_SIZE, GLOBAL_SCALE, 1.0),
        crop(GLOBAL_SIZE, GLOBAL_SCALE, 0.1, Solarize()),
        *[crop(LOCAL_SIZE, LOCAL_SCALE, 0.5)] * LOCAL_CROPS,
    ]

    def run(data):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return [np.asarray(view(image)) for view in views]

    return run, f"torchvision {torchvision.__version__}, Pillow {Image.__version__}"


def albumentations_pipeline():
    import albumentations as A
    import cv2
    import numpy as np

    cv2.setNumThreads(1)

    def crop(size, scale, blur, *last):
        return A.Compose(
            [
                A.RandomResizedCrop((size, size), scale=scale, interpolation=cv2.INTER_CUBIC),
                A.HorizontalFlip(p=0.5),
                A.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
                A.ToGray(p=0.2),
                A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=blur),
                *last,
            ]
        )

    views = [
        crop(GLOBAL_SIZE, GLOBAL_SCALE, 1.0),
        crop(GLOBAL_SIZE, GLOBAL_SCALE, 0.1, A.Solarize(p=0.2)),
        *[crop(LOCAL_SIZE, LOCAL_SCALE, 0.5)] * LOCAL_CROPS,
    ]

    def run(data):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return [view(image=image)["image"] for view in views]

    return run, f"albumentations {A.__version__}, OpenCV {cv2.__version__}"


def decode_pipeline():
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    return (
        lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB),
        f"OpenCV {cv2.__version__}",
    )


PIPELINES = {
    "torchvision": torchvision_pipeline,
    "albumentations": albumentations_pipeline,
    "decode": decode_pipeline,
}


def main():
    args = arguments()
    paths = sorted(p for p in args.images.rglob("*") if p.suffix.lower() in EXTENSIONS)
    if not paths:
        raise SystemExit(f"{args.images}: no images")
    files = [path.read_bytes() for path in paths]
    run, versions = PIPELINES[args.peer]()
    for data in files[:3]:
        run(data)
    done, start = 0, time.perf_counter()
    # With slow peers, complete passes would take minutes. The order is the same for all.
    while time.perf_counter() - start < args.seconds:
        run(files[done % len(files)])
        done += 1
    seconds = time.perf_counter() - start
    print(json.dumps({"peer": args.peer, "versions": versions, "images": done, "img_s": done / seconds}))


if __name__ == "__main__":
    main()
