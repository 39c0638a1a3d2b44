"""Numbers from an integer hash that the Rust tests reproduce exactly.

The Rust side is crates/model/tests/common/mod.rs.
"""

import numpy as np
import torch


def hashed(count, stream):
    """Returns `count` values in [-1, 1): the upper 24 bits of splitmix64's finalizer of (stream,
    index)."""
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(stream) * np.uint64(1 << 32)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1.0


def tensor(shape, stream, scale=1.0, offset=0.0):
    """Rounds to float32, as on the Rust side, and widens the result."""
    values = (hashed(int(np.prod(shape)), stream) * scale + offset).astype(np.float32)
    return torch.from_numpy(values).double().reshape(shape)


def parameters(named_shapes):
    """Draws one stream per parameter, in the order of names; norm weights are around 1."""
    out = {}
    for stream, (name, shape) in enumerate(sorted(named_shapes)):
        is_norm = name.endswith("weight") and len(shape) == 1
        out[name] = tensor(shape, stream, 0.15, 1.0 if is_norm else 0.0)
    return out
