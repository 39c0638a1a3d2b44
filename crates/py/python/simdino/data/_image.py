"""Functions for single images: decoding and multi-crop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, Union

from .. import _native
from ._source import as_json

if TYPE_CHECKING:
    import numpy

# Keys of the augmentation. `preset` names the published augmentation that the other keys change.
Augment = Mapping[str, Any]


def decode(
    data: Union[bytes, bytearray, memoryview],
    channels: int = 3,
    value_range: Sequence[tuple[float, float]] = (),
) -> "numpy.ndarray":
    """Decodes a JPEG, PNG, WebP, TIFF, or BMP file.

    The pixels of JPEG files are exactly those of libjpeg-turbo. The orientation is applied; color
    profiles are not. The GIL is released, so several threads can decode at once.

    Args:
        data: the contents of the file.
        channels: with 3, gray is replicated and alpha is dropped; with any other number, the file
            must have exactly that many.
        value_range: for values of more than 8 bits, those that become 0 and 255: one pair for all
            channels, or one for each. By default the full range of the file's type.

    Returns:
        uint8 ``[H, W, channels]``.

    Raises:
        ValueError: if the file is broken, truncated, of another format, or too large.
    """
    return _native.decode(bytes(data), channels, [list(pair) for pair in value_range])


class MultiCrop:
    """The multi-crop augmentation of one image.

    Args:
        preset: ``"simdino"``, ``"simdinov2"``, ``"dino"``, or ``"dinov2"``.
        **augment: keys to change in the preset, such as ``local_crops_number=6``; docs/CONFIG.md
            lists them in section ``augment``.

    Raises:
        ValueError: if the preset or a key does not exist, or a value is invalid.
    """

    def __init__(self, preset: str = "simdino", **augment: Any) -> None:
        self.config = augmentation(preset, augment)
        self._crops = _native.MultiCrop(as_json(self.config, "augment"))

    def __call__(
        self, image: "numpy.ndarray", seed: int = 0, epoch: int = 0, sample: int = 0
    ) -> list["numpy.ndarray"]:
        """Returns ``2 + local_crops_number`` crops ``[S, S, C]`` of an image, global ones first.

        The image is uint8 ``[H, W, C]``. The crops are a function of the image and (seed, epoch,
        sample). The loader's crops are those for its seed, the epoch, and the index of the image.
        """
        import numpy

        if image.dtype != numpy.uint8 or image.ndim != 3:
            raise TypeError(
                f"the image must be uint8 of shape [H, W, C] (got {image.dtype} {list(image.shape)})"
            )
        return self._crops.apply(numpy.ascontiguousarray(image), seed, epoch, sample)

    def __reduce__(self) -> Any:
        return _rebuild, (self.config,)

    def __repr__(self) -> str:
        return f"MultiCrop({self.config['preset']!r})"


def _rebuild(config: dict[str, Any]) -> MultiCrop:
    changes = {key: value for key, value in config.items() if key != "preset"}
    return MultiCrop(config["preset"], **changes)


def augmentation(preset: str, changes: Optional[Augment]) -> dict[str, Any]:
    """Returns the options of a published augmentation with some of them changed.

    As in a config file, a key ``preset`` among the changes names the published augmentation; it
    overrides the argument.
    """
    preset = (changes or {}).get("preset", preset)
    config: dict[str, Any] = json.loads(_native.preset(preset))
    unknown = [key for key in changes or {} if key not in config]
    if unknown:
        known = ", ".join(sorted(config))
        raise ValueError(f"augment has no key {unknown[0]!r}; its keys are {known}")
    config.update(changes or {})
    return config
