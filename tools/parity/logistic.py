"""Writes a fixture of the eval crate: L2-penalized logistic regression with scikit-learn 1.9.1,
with Newton's method in float64.

    python tools/parity/logistic.py crates/eval/tests/fixtures

The features have standard deviations from 0.01 to 30 and means far from zero, like those of
networks.
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

CLASSES, DIM, TRAIN, TEST = 6, 10, 240, 150
CS = (1e-3, 1.0, 100.0)


def draw(rng, centers, scales, count):
    labels = rng.integers(0, CLASSES, count)
    features = (centers[labels] + rng.standard_normal((count, DIM))) * scales + 3
    return features.astype(np.float32), labels.astype(np.int64)


def loss(weight, bias, features, labels, c):
    """Returns the objective, with weight [K, D]."""
    scores = features.astype(np.float64) @ weight.T + bias
    largest = scores.max(axis=1, keepdims=True)
    sums = np.log(np.exp(scores - largest).sum(axis=1)) + largest[:, 0]
    return c * (sums - scores[np.arange(len(labels)), labels]).sum() + 0.5 * (weight**2).sum()


def few_shot(folder, train, labels, test):
    """Writes the weights of a regression without a bias, on features whose mean over their
    dimensions is 0 and whose norm is 1, as in MSN's logistic_eval.py."""
    def prepared(rows):
        rows = rows.astype(np.float64)
        rows -= rows.mean(axis=1, keepdims=True)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    model = LogisticRegression(C=4000.0, fit_intercept=False, tol=1e-12, max_iter=100_000, solver="newton-cg")
    model.fit(prepared(train), labels)
    assert list(model.classes_) == list(range(CLASSES))
    value = loss(model.coef_, np.zeros(CLASSES), prepared(train), labels, 4000.0)
    save_file(
        {
            "train": train, "train_labels": labels, "test": test, "prepared": prepared(train),
            "loss": np.array([value]), "predicted": model.predict(prepared(test)).astype(np.int64),
            "weight": np.ascontiguousarray(model.coef_),
        },
        folder / "few_shot_logistic.safetensors",
    )


def main(folder):
    rng = np.random.default_rng(0)
    centers = 1.2 * rng.standard_normal((CLASSES, DIM))
    scales = np.geomspace(0.01, 30, DIM)
    train, train_labels = draw(rng, centers, scales, TRAIN)
    test, test_labels = draw(rng, centers, scales, TEST)
    losses, scores, correct = [], [], []
    for c in CS:
        # Newton's method, because L-BFGS is not accurate enough with such standard deviations.
        model = LogisticRegression(C=c, tol=1e-12, max_iter=100_000, solver="newton-cg")
        model.fit(train.astype(np.float64), train_labels)
        losses.append(loss(model.coef_, model.intercept_, train, train_labels, c))
        scores.append(test.astype(np.float64) @ model.coef_.T + model.intercept_)
        correct.append((scores[-1].argmax(axis=1) == test_labels).sum())
    print(losses, correct)
    few_shot(Path(folder), train[:18], train_labels[:18], test)
    scores = np.array(scores)
    scores -= scores.mean(axis=2, keepdims=True)  # a constant added to all classes changes nothing
    save_file(
        {
            "train": train, "train_labels": train_labels, "test": test, "test_labels": test_labels,
            "c": np.array(CS), "loss": np.array(losses), "scores": scores, "correct": np.array(correct, np.int64),
        },
        Path(folder) / "logistic.safetensors",
    )


if __name__ == "__main__":
    main(sys.argv[1])
