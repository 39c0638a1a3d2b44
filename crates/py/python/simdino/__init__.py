"""simdino: fast multi-crop loading, the SimDINO losses, and the weights of runs, for Python.

- :mod:`simdino.data`: the loader of the program simdino; needs NumPy, and torch only on request.
- :mod:`simdino.losses`: the losses in plain torch.
- :func:`simdino.load`: a run, checkpoint, or export as a model of timm or transformers.
- :func:`simdino.read_metrics`: the metrics of a run.
- ``python -m simdino.track``: forwards the metrics of a run to a tracker.

Importing this package imports neither torch nor NumPy.
"""

from ._metrics import read_metrics
from ._native import __version__
from ._weights import load

__all__ = ["__version__", "load", "read_metrics"]
