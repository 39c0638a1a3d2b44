"""Writes a fixture of the eval crate: DINO's weighted k-NN (eval_knn.py), reimplemented with numpy
in float64.

    python tools/parity/knn.py crates/eval/tests/fixtures
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CLASSES, DIM, TRAIN, TEST = 8, 12, 320, 400
KS, TEMPERATURE = (1, 5, 20, 100), 0.07


def draw(rng, centers, count):
    labels = rng.integers(0, CLASSES, count)
    features = centers[labels] + 1.6 * rng.standard_normal((count, DIM))
    return features.astype(np.float32), labels.astype(np.int64)


def unit(x):
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def accuracy(train, train_labels, test, test_labels, k):
    top1 = top5 = 0
    for x, label in zip(unit(test), test_labels):
        similarity = unit(train) @ x
        nearest = np.argsort(-similarity, kind="stable")[:k]
        scores = np.zeros(CLASSES)
        for i in nearest:
            scores[train_labels[i]] += np.exp(similarity[i] / TEMPERATURE)
        ranking = np.argsort(-scores, kind="stable")
        top1 += ranking[0] == label
        top5 += label in ranking[: min(5, k)]
    return top1, top5


def main(folder):
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((CLASSES, DIM))
    train, train_labels = draw(rng, centers, TRAIN)
    test, test_labels = draw(rng, centers, TEST)
    correct = [accuracy(train, train_labels, test, test_labels, k) for k in KS]
    print({k: tuple(map(int, c)) for k, c in zip(KS, correct)})
    save_file(
        {
            "train": train, "train_labels": train_labels, "test": test, "test_labels": test_labels,
            "k": np.array(KS, np.int64), "correct": np.array(correct, np.int64),
        },
        Path(folder) / "knn.safetensors",
        {"temperature": str(TEMPERATURE)},
    )


if __name__ == "__main__":
    main(sys.argv[1])
