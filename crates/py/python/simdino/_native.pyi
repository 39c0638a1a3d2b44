# Types of the native module, which is internal to the package.
from typing import Optional, Sequence

import numpy
from numpy.typing import NDArray

__version__: str

_Images = NDArray[numpy.uint8]
_Masks = tuple[NDArray[numpy.bool_], NDArray[numpy.int64], NDArray[numpy.float32], int]
_Broken = list[tuple[int, str, str]]

def decode(data: bytes, channels: int, value_range: Sequence[Sequence[float]]) -> _Images: ...
def preset(name: str) -> str: ...

class Dataset:
    def __init__(self, config: str, channels: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def channels(self) -> int: ...
    @property
    def class_names(self) -> list[str]: ...
    @property
    def notices(self) -> list[str]: ...
    def name(self, index: int) -> str: ...
    def label(self, index: int) -> Optional[int]: ...
    def mark(self) -> bytes: ...

class TrainLoader:
    def __init__(
        self,
        dataset: Dataset,
        *,
        augment: str,
        masks: Optional[tuple[str, int]],
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        workers: Optional[int],
        prefetch: int,
        max_bad_fraction: float,
        epoch: int,
        step: int,
    ) -> None: ...
    @property
    def steps_per_epoch(self) -> int: ...
    def next(
        self,
    ) -> tuple[
        _Images, Optional[_Images], Optional[_Masks], NDArray[numpy.int64], tuple[int, int], _Broken
    ]: ...
    def close(self) -> None: ...

class EvalLoader:
    def __init__(
        self, dataset: Dataset, resize: int, crop: int, batch_size: int, workers: Optional[int]
    ) -> None: ...
    def next(
        self,
    ) -> Optional[tuple[_Images, NDArray[numpy.int64], NDArray[numpy.int64], _Broken]]: ...

class MultiCrop:
    def __init__(self, config: str) -> None: ...
    def apply(self, image: _Images, seed: int, epoch: int, sample: int) -> list[_Images]: ...

class MaskGenerator:
    def __init__(self, config: str, height: int, width: int) -> None: ...
    def batch(
        self, key: tuple[int, int, int], batch_size: int, rank: int, world_size: int
    ) -> _Masks: ...
