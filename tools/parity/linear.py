"""Writes a fixture of the eval crate: linear heads trained with PyTorch 2.11.0, one module each, in
float32 on the CPU.

    python tools/parity/linear.py crates/eval/tests/fixtures

Twelve heads on drawn features take 100 steps of SGD (momentum 0.9, no weight decay) and, from the
same initial weights, of AdamW (weight decay 0.01), with a cosine schedule per step, and the sum of
their cross-entropies as the loss.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

WIDTH, CLASSES, TRAIN, TEST, BATCH, STEPS = 5, 3, 48, 60, 8, 100
INPUTS = [(1, False), (1, True), (2, False), (2, True)]  # blocks, and whether the mean of the patches follows
RATES = [0.003, 0.03, 0.3]


def draw(generator, centers, count):
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    noise = torch.randn(count, 3 * WIDTH, generator=generator)
    return 0.8 * centers[labels] + noise + 0.5, labels


def columns(features, blocks, mean):
    """Returns the class tokens of the last blocks, the last one at the end, and the mean of the
    patches."""
    tokens = features[:, (2 - blocks) * WIDTH : 2 * WIDTH]
    return torch.cat([tokens, features[:, 2 * WIDTH :]], 1) if mean else tokens


def train(heads, optimizer, train_set, batches):
    features, labels = train_set
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=0)
    for batch in batches:
        losses = [
            nn.functional.cross_entropy(head(columns(features[batch], *inputs)), labels[batch]) for inputs, head in heads
        ]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        scheduler.step()


def main(folder):
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(CLASSES, 3 * WIDTH, generator=generator)
    train_set, test_set = draw(generator, centers, TRAIN), draw(generator, centers, TEST)
    batches = torch.randint(0, TRAIN, (STEPS, BATCH), generator=generator)
    tensors = {
        "train": train_set[0], "train_labels": train_set[1], "test": test_set[0], "test_labels": test_set[1],
        "batches": batches, "rates": torch.tensor(RATES, dtype=torch.float64),
        "inputs": torch.tensor([[blocks, int(mean)] for blocks, mean in INPUTS]),
    }  # fmt: skip
    starts = {}
    for name, make in [
        ("sgd", lambda groups: torch.optim.SGD(groups, momentum=0.9, weight_decay=0)),
        ("adamw", lambda groups: torch.optim.AdamW(groups, weight_decay=0.01)),
    ]:
        heads, groups = [], []
        for inputs in INPUTS:
            for rate in RATES:
                head = nn.Linear(WIDTH * (inputs[0] + inputs[1]), CLASSES)
                start = starts.setdefault(len(heads), 0.1 * torch.randn(head.weight.shape, generator=generator))
                with torch.no_grad():
                    head.weight.copy_(start)
                    head.bias.zero_()
                heads.append((inputs, head))
                groups.append({"params": head.parameters(), "lr": rate if name == "sgd" else rate / 10})
        train(heads, make(groups), train_set, batches)
        correct = []
        for i, (inputs, head) in enumerate(heads):
            tensors[f"start.{i}"] = starts[i]
            tensors[f"{name}.{i}.weight"] = head.weight.detach().clone()
            tensors[f"{name}.{i}.bias"] = head.bias.detach().clone()
            scores = head(columns(test_set[0], *inputs))
            correct.append((scores.argmax(1) == test_set[1]).sum())
        tensors[f"{name}.correct"] = torch.stack(correct)
        print(name, tensors[f"{name}.correct"].tolist())
    save_file(tensors, Path(folder) / "linear.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
