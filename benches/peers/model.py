"""The forward and backward pass of timm's ViT-S/16 in PyTorch eager mode.

The peer of the backbone in `cargo xtask bench model`.

    python model.py STEPS THREADS

The input has 8 images of 224 pixels, and the loss is the mean square of the class token. The last
line is JSON with the time of the fastest pass, and the increase of peak memory by the passes.
"""

import json
import sys
import time

import torch
from timm.models.vision_transformer import VisionTransformer

BATCH, SIDE, WARM_UP = 8, 224, 2


def status(key):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024


def main(steps, threads):
    torch.set_num_threads(threads)
    model = VisionTransformer(
        img_size=SIDE, patch_size=16, embed_dim=384, depth=12, num_heads=6, num_classes=0,
        global_pool="token",
    ).train()
    images = torch.randn(BATCH, 3, SIDE, SIDE)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    before, best = status("VmRSS:"), float("inf")
    for step in range(WARM_UP + steps):
        model.zero_grad()
        start = time.perf_counter()
        model(images).square().mean().backward()
        if step >= WARM_UP:
            best = min(best, time.perf_counter() - start)
    peak = status("VmHWM:") - before
    print(json.dumps({"step_ms": 1e3 * best, "peak_memory_bytes": peak}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
