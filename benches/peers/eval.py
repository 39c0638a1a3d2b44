"""Evaluations on frozen features in Python, for `cargo xtask bench eval`.

`knn` computes similarities with torch.mm and torch.topk in chunks, like DINO's eval_knn.py.
`logreg` uses scikit-learn's LogisticRegression in float64 with the limits of DINOv2's
eval/log_regression.py (1,000 iterations, tolerance 1e-12). `linear_grid` trains the 52 heads of
DINOv2's eval/linear.py, one module each, with the sum of their losses and one SGD. `extract` uses
Pillow and torchvision in worker processes, and timm's ViT-S/16. A peer whose packages are missing
is null, with the reason in `missing`.

Prints one JSON object as its last line.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

RATES = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1]
BATCH = 128
EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="train.npy and test.npy with their .names.csv")
    parser.add_argument("--images", type=Path, help="folder of images")
    parser.add_argument("--settings", type=json.loads, required=True, help="the JSON of `simdino bench eval --json`")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def shortest(rounds, work):
    least = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - start)
    return least


def read(folder, name):
    features = torch.from_numpy(np.load(folder / f"{name}.npy"))
    rows = (folder / f"{name}.names.csv").read_text().splitlines()[1:]
    return features, torch.tensor([int(row.split(",")[1]) for row in rows])


def knn(train, test, classes):
    """Computes weighted k-NN with k of 10, 20, 100, and 200."""
    (train, train_labels), (test, test_labels) = train, test
    train, test = nn.functional.normalize(train), nn.functional.normalize(test)
    right = dict.fromkeys((10, 20, 100, 200), 0)
    for rows, labels in zip(test.chunk(20), test_labels.chunk(20)):
        similarity = torch.mm(rows, train.T)
        near, places = similarity.topk(200, largest=True, sorted=True)
        votes, weights = train_labels[places], (near / 0.07).exp()
        for k in right:
            scores = torch.zeros(len(rows), classes).scatter_add_(1, votes[:, :k], weights[:, :k])
            right[k] += (scores.argsort(1, descending=True)[:, 0] == labels).sum().item()
    return right


def logistic(train, c):
    from sklearn.linear_model import LogisticRegression

    features, labels = train[0].double().numpy(), train[1].numpy()
    model = LogisticRegression(C=c, max_iter=1000, tol=1e-12).fit(features, labels)
    scores = torch.from_numpy(features @ model.coef_.T + model.intercept_)
    loss = c * nn.functional.cross_entropy(scores, train[1], reduction="sum").item()
    return loss + 0.5 * float((model.coef_**2).sum())


def grid(train, width, classes):
    """Returns a function that performs one step of all heads."""
    features, labels = train
    parts = features.split(width, 1)
    heads, groups = [], []
    for blocks in (1, 4):
        for mean in (False, True):
            for rate in RATES:
                head = nn.Linear(width * (blocks + mean), classes)
                head.weight.data.normal_(mean=0.0, std=0.01)
                head.bias.data.zero_()
                heads.append((blocks, mean, head))
                groups.append({"params": head.parameters(), "lr": rate * BATCH / 256})
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12_500, eta_min=0)
    order = torch.randperm(len(labels))

    def step():
        rows = order[:BATCH]
        batch, targets = [part[rows] for part in parts], labels[rows]
        losses = []
        for blocks, mean, head in heads:
            tokens = torch.cat(batch[4 - blocks : 4], dim=-1)
            inputs = torch.cat([tokens, batch[4]], dim=-1) if mean else tokens
            losses.append(nn.functional.cross_entropy(head(inputs), targets))
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        schedule.step()

    return step


def extract(folder, threads):
    """Returns a function that extracts the features of all images."""
    import timm
    from PIL import Image
    from torchvision import transforms

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    transform = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            with Image.open(files[index]) as image:
                return transform(image.convert("RGB"))

    network = timm.create_model("vit_small_patch16_224", num_classes=0).eval()

    @torch.no_grad()
    def work():
        for batch in torch.utils.data.DataLoader(Images(), batch_size=64, num_workers=threads):
            network(batch)

    return work


def main():
    options = arguments()
    settings = options.settings
    width, classes, threads = settings["width"], settings["classes"], settings["threads"]
    torch.set_num_threads(threads)
    train, test = read(options.folder, "train"), read(options.folder, "test")
    tokens = [(features[:, 3 * width : 4 * width].contiguous(), labels) for features, labels in (train, test)]
    seconds, missing, losses = {}, {}, []
    seconds["knn"] = shortest(options.rounds, lambda: knn(*tokens, classes))
    step, steps = grid(train, width, classes), settings["steps"]
    step()
    seconds["linear_grid"] = shortest(options.rounds, lambda: [step() for _ in range(steps)]) / steps
    try:
        import sklearn  # noqa: F401

        seconds["logreg"] = shortest(1, lambda: losses.extend(logistic(tokens[0], c) for c in settings["c"]))
    except ImportError as error:
        missing["logreg"] = str(error)
    if options.images is None:
        missing["extract"] = "no images"
    else:
        try:
            seconds["extract"] = shortest(options.rounds, extract(options.images, threads))
        except ImportError as error:
            missing["extract"] = str(error)
    print(json.dumps({"seconds": seconds, "missing": missing, "losses": losses}))


if __name__ == "__main__":
    main()
