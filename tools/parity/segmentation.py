"""Writes a fixture of the eval crate: dense evaluations and retrieval, reimplemented with numpy and
scikit-learn.

    python tools/parity/segmentation.py crates/eval/tests/fixtures [evaluate.py]

With the file python/evaluate.py of the revisited Oxford and Paris benchmark (github.com/filipradenovic/revisitop),
it also checks that the published scores are the same.
"""

import importlib.util
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.metrics import confusion_matrix

IGNORE = 255
SEED = 20264


def confusion(rng):
    """Computes scores by mmsegmentation's definition from scikit-learn's matrix; class 5 never
    occurs."""
    classes = 6
    truth = rng.integers(0, classes - 1, 4000)
    predicted = np.where(rng.random(4000) < 0.6, truth, rng.integers(0, classes - 1, 4000))
    truth[rng.random(4000) < 0.1] = IGNORE
    truth[truth == 3] = 2  # class 3 is predicted, but does not occur
    kept = truth != IGNORE
    matrix = confusion_matrix(truth[kept], predicted[kept], labels=np.arange(classes)).astype(np.int64)
    with np.errstate(invalid="ignore"):
        hits = np.diag(matrix)
        iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
        accuracy = hits / matrix.sum(1)
    scores = [np.nanmean(iou), np.nanmean(accuracy), hits.sum() / matrix.sum()]
    return {
        "confusion.truth": truth.astype(np.uint8), "confusion.predicted": predicted.astype(np.uint8),
        "confusion.matrix": matrix, "confusion.scores": np.array(scores),
    }


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def in_context(rng):
    """Computes soft labels of queries, one query and one neighbor at a time."""
    keys, queries = rng.standard_normal((300, 8)), rng.standard_normal((40, 8))
    labels = rng.random((300, 5))
    labels /= labels.sum(1, keepdims=True)
    keys, queries, labels = (x.astype(np.float32) for x in (keys, queries, labels))
    k, temperature = 30, 0.02
    out = np.zeros((40, 5))
    for i, query in enumerate(unit(queries.astype(np.float64))):
        cosine = unit(keys.astype(np.float64)) @ query
        nearest = np.argsort(-cosine, kind="stable")[:k]
        weights = np.exp((cosine[nearest] - cosine[nearest].max()) / temperature)
        for weight, j in zip(weights / weights.sum(), nearest):
            out[i] += weight * labels[j].astype(np.float64)
    return {
        "in_context.keys": keys, "in_context.queries": queries, "in_context.labels": labels,
        "in_context.soft_labels": out,
    }


def knn(rng):
    """Computes classes of the pixels of patches. Ignored pixels do not vote, and the lowest class
    wins a tie."""
    classes, area = 4, 6
    keys, queries = (rng.standard_normal((n, 5)).astype(np.float32) for n in (200, 30))
    pixels = rng.integers(0, classes, (200, area)).astype(np.uint8)
    pixels[rng.random((200, area)) < 0.3] = IGNORE
    pixels[:, 0] = np.where(pixels[:, 0] == IGNORE, 1, pixels[:, 0])  # no patch without a label
    pixels[:, 5] = IGNORE  # no votes at this position, so that all pixels of the neighbors decide
    out = {"knn.keys": keys, "knn.queries": queries, "knn.pixels": pixels}
    for name in ("cosine", "euclidean"):
        for k in (1, 3, 10):
            predicted = np.zeros((30, area), np.uint8)
            for i, query in enumerate(queries.astype(np.float64)):
                if name == "cosine":
                    distance = -unit(keys.astype(np.float64)) @ query
                else:
                    distance = np.linalg.norm(keys.astype(np.float64) - query, axis=1)
                nearest = pixels[np.argsort(distance, kind="stable")[:k]]
                for j in range(area):
                    votes = nearest[:, j][nearest[:, j] != IGNORE]
                    if not len(votes):
                        votes = nearest[nearest != IGNORE]
                    predicted[i, j] = np.argmax(np.bincount(votes, minlength=classes))
            out[f"knn.{name}.{k}"] = predicted
    return out


def head(rng):
    """Takes three steps of torch's own batch norm, linear layer, cross-entropy, and AdamW, in
    float64."""
    maps = rng.standard_normal((3, 2, 4, 3, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (3, 2, 12, 12)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = IGNORE
    weight = (0.3 * rng.standard_normal((3, 4, 1, 1))).astype(np.float32)
    norm, conv = torch.nn.BatchNorm2d(4).double(), torch.nn.Conv2d(4, 3, 1).double()
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(weight))
        conv.bias.zero_()
    params = [*conv.parameters(), *norm.parameters()]
    optimizer = torch.optim.AdamW(params, lr=0.01, betas=(0.9, 0.999), weight_decay=0.1)
    losses = []
    for x, y in zip(maps, labels):
        logits = conv(norm(torch.from_numpy(x).double()))
        logits = torch.nn.functional.interpolate(logits, (12, 12), mode="bilinear", align_corners=False)
        target = torch.from_numpy(y).long()
        loss = torch.nn.functional.cross_entropy(logits, target, ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    norm.eval()
    with torch.no_grad():
        logits = conv(norm(torch.from_numpy(maps[0]).double()))
    return {
        "head.maps": maps, "head.labels": labels, "head.weight": weight,
        "head.losses": np.array(losses), "head.logits": logits.numpy(),
    }


def average_precision(ranks, positives):
    """Computes average precision by the trapezoidal rule, as in the revisited Oxford and Paris
    benchmark."""
    total, hits = 0.0, 0
    for rank in ranks:
        before = hits / rank if rank else 1.0
        hits += 1
        total += (before + hits / (rank + 1)) / 2
    return total / positives


def retrieval(rng, published=None):
    """Computes mAP and mP@k of three protocols, dropping the junk items of each ranking."""
    queries, database, dim = 7, 60, 6
    features = rng.standard_normal((queries + database, dim)).astype(np.float32)
    truth = []
    for _ in range(queries):
        order = rng.permutation(database)
        sizes = rng.integers(1, 6, 3)
        easy, hard, junk = np.split(order[: sizes.sum()], np.cumsum(sizes)[:-1])
        truth.append({"easy": easy, "hard": hard, "junk": junk})
    truth[2]["easy"] = np.array([], int)  # a query without easy positives
    x = unit(features.astype(np.float64))
    rankings = np.argsort(-(x[:queries] @ x[queries:].T), axis=1, kind="stable")
    out = {}
    for name, good, bad in (
        ("easy", ("easy",), ("junk", "hard")),
        ("medium", ("easy", "hard"), ("junk",)),
        ("hard", ("hard",), ("junk", "easy")),
    ):
        if published:
            compare = [
                {"ok": np.concatenate([of[g] for g in good]), "junk": np.concatenate([of[b] for b in bad])}
                for of in truth
            ]
            theirs = published.compute_map(rankings.T, compare, [1, 5, 10])
        aps, precisions = [], []
        for ranking, of in zip(rankings, truth):
            positives = set(np.concatenate([of[g] for g in good]).astype(int))
            junk = set(np.concatenate([of[b] for b in bad]).astype(int))
            if not positives:
                continue
            kept = [i for i in ranking if i not in junk]
            ranks = [place for place, i in enumerate(kept) if i in positives]
            aps.append(average_precision(ranks, len(positives)))
            row = []
            for k in (1, 5, 10):
                # As published, k is limited by the rank of the last positive.
                most = min(ranks[-1] + 1, k)
                row.append(sum(rank < most for rank in ranks) / most)
            precisions.append(row)
        out[name] = {"map": float(np.mean(aps)), "mp": np.mean(precisions, axis=0).tolist()}
        if published:
            np.testing.assert_allclose(out[name]["map"], theirs[0], rtol=1e-12)
            np.testing.assert_allclose(out[name]["mp"], theirs[2], rtol=1e-12)
            print(f"{name}: the published mAP {theirs[0]:.6f} and mP@k {theirs[2]} are the same")
    as_lists = [{key: value.tolist() for key, value in of.items()} for of in truth]
    return {"retrieval.features": features}, {"truth": as_lists, "expected": out}


def ground_truth(folder):
    """Writes small ground truths in the form of gnd_roxford5k.pkl, with lists or numpy arrays, and
    with the old or new protocol."""
    images = ["all_souls_000013", "christ_church_000179", "oxford_002904"]
    query = lambda easy, hard, junk, bbx: {"bbx": bbx, "easy": easy, "hard": hard, "junk": junk}
    gnd = [query([0], [1, 2], [], [136.5, 34.1, 648.5, 955.7]), query([2], [], [0, 1], [0.0, 1.0, 2.5, 300.0])]
    truth = {"imlist": images, "qimlist": ["q_1", "q_2"], "gnd": gnd}
    (folder / "gnd_small.json").write_text(json.dumps(truth, indent=1) + "\n")
    (folder / "gnd_small_lists_2.pkl").write_bytes(pickle.dumps(truth, protocol=2))
    arrays = truth | {"gnd": [{name: np.array(value) for name, value in of.items()} for of in gnd]}
    for protocol in (2, 4):
        (folder / f"gnd_small_arrays_{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))


def load(path):
    """Imports the published evaluation, which calls a function that NumPy 2.4 has removed."""
    np.in1d = np.isin
    spec = importlib.util.spec_from_file_location("evaluate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(folder, evaluate=None):
    ground_truth(Path(folder))
    rng = np.random.default_rng(SEED)
    tensors = confusion(rng) | in_context(rng) | knn(rng) | head(rng)
    more, texts = retrieval(rng, load(evaluate) if evaluate else None)
    save_file(
        tensors | more, Path(folder) / "segmentation.safetensors",
        {name: json.dumps(value) for name, value in texts.items()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
