"""Base classes of pretrained zero-shot detectors of the transformers library."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..encoders.fence import OWN, from_saved, loading
from ..encoders.huggingface import check_saved
from ..encoders.split import freeze
from ..errors import ImageError, InputError, ModelError, needs
from ..pictures.images import read_views, upright_size
from ..pictures.sources import One, name_of
from ..storage.reading import file_sha256
from ..types import Crop, Failure, Transform
from .finders import Detector
from .reader import LONGEST, WHOLE, Windows, tiling
from .regions import Detections, Keep, class_names

READ, SHOWN, FINE = 4096, 448, 64
"""Longest side of a tile in pixels, side of a displayed picture in pixels, and number of steps per side of a tile."""

Found = tuple[Float[Tensor, "n 4"], Float[Tensor, "n k"]]
"""Boxes in pixels of the processed picture, and the score of each name for each box."""
T = TypeVar("T")
Look = Callable[[UInt8[np.ndarray, "h w 3"]], Found]


@dataclass(frozen=True)
class PretrainedMethod(ABC):
    """Base class of pretrained zero-shot detectors of the transformers library.

    Args:
        tiles: number of tiles along the picture's short side, at least 1; more tiles find smaller objects and take
            longer.
        least: lowest score of a box, 0 to 1.
        overlap: largest intersection over union of two boxes of the same class, 0 to 1; above it, the box with the
            lower score is removed.
        most: largest number of boxes per picture.
    """

    name: ClassVar[str]
    spelt: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str] = "names, and a folder with its weights"
    cost: ClassVar[str] = "one per tile, of its own network"
    takes_folder: ClassVar[bool] = True
    measured: ClassVar[str] = (
        "Not measured here. Measure it on pictures like these: seewhy evaluate BOXES --detector NAME:FOLDER."
    )

    tiles: int = 1
    least: float = 0.1
    overlap: float = 0.5
    most: int = 100

    def build(self, labels: Iterable[str], folder: str | None) -> PretrainedDetector:
        classes = class_names(labels, boxes=True)
        model, processor, digest = open_network(self.name, folder)
        look = self.look(classes, model, processor)
        about: dict[str, Any] = {"method": self.name, "encoder": str(folder), "fingerprint": digest}
        about |= {"measured": self.measured, "parameters": asdict(self)}
        return PretrainedDetector(classes, about, look, Keep(self.least, self.overlap, self.most), self.tiles)

    @abstractmethod
    def look(self, classes: tuple[str, ...], model: Any, processor: Any) -> Look:
        """Return a function that runs the network on a picture."""


@dataclass(frozen=True, eq=False)
class PretrainedDetector(Detector):
    """A pretrained detector for a fixed list of names."""

    classes: tuple[str, ...]
    about: dict[str, Any] = field(repr=False)
    look: Look = field(repr=False)
    keep: Keep
    tiles: int = 1

    def find_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        return one_by_one(pictures, self._found)

    @torch.no_grad()
    def _found(self, name: str, source: Any) -> Detections:
        width, height = upright_size(source, longest=LONGEST)
        n = tiling((width, height), self.tiles) if self.tiles > 1 else (1, 1)
        small = read_views(source, stretched(SHOWN, SHOWN), [WHOLE])[0].pixels
        boxes, scores, labels = [], [], []
        for crop in Windows((FINE, FINE), n).crops():
            left, top, right, bottom = crop.box
            pixels = part_of(source, (width, height), crop)
            found, likely = self.look(pixels)
            best, which = likely.max(1)
            (high, wide), place = pixels.shape[:2], torch.tensor([left * width, top * height] * 2)
            real = torch.tensor([(right - left) * width / wide, (bottom - top) * height / high] * 2)
            boxes.append(found * real + place)
            scores.append(best)
            labels.append(which)
        kept = self.keep.detections(
            torch.cat(boxes), torch.cat(scores), torch.cat(labels), self.classes, (width, height)
        )
        return Detections(name, (width, height), self.classes, kept, self.about, small)


def one_by_one(pictures: Iterable[Any], look: Callable[[str, Any], T]) -> Iterator[T | Failure]:
    """Yield the result of each picture, in order; an unreadable picture yields a failure."""
    for number, source in enumerate(pictures, 1):
        name = name_of(source, number)
        try:
            yield look(name, source)
        except ImageError as error:
            yield Failure(name, error.reason)


def stretched(height: int, width: int) -> Transform:
    """Return a transform that resizes to this size, regardless of the aspect ratio."""
    return Transform((height, width), (height, width), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def part_of(source: One, size: tuple[int, int], crop: Crop) -> UInt8[np.ndarray, "h w 3"]:
    """Return a crop of a picture, with at most :data:`READ` pixels on its long side."""
    left, top, right, bottom = crop.box
    width, height = (right - left) * size[0], (bottom - top) * size[1]
    scale = min(1.0, READ / max(width, height))
    own = max(1, round(height * scale)), max(1, round(width * scale))
    return read_views(source, stretched(*own), [crop])[0].pixels


def open_network(
    method: str, folder: str | None, network: str = "AutoModelForZeroShotObjectDetection", kind: str = "detector"
) -> tuple[Any, Any, str]:
    """Load a network, its processor, and a digest of its weights from a folder."""
    if folder is None:
        raise InputError(
            f"{method} needs a folder of weights written by save_pretrained: --method {method}:/path/to/folder."
        )
    with needs("huggingface", "transformers"):
        import transformers
    name, place = f"{method}:{folder}", Path(folder).expanduser()
    check_saved(name, place)
    with loading(lambda why: ModelError(f"{name!r} cannot be loaded: {why} Save it again with this transformers.")):
        config = transformers.AutoConfig.from_pretrained(place, **OWN)
        if config.model_type.replace("-", "_") != method:
            raise ModelError(
                f"{name!r} must contain a {method!r} network, got {config.model_type!r}. Choose another {kind} or "
                "another folder."
            )
        model, missing = from_saved(getattr(transformers, network), name, place, dtype=torch.float32)
        if missing.tensors:
            raise missing.refusal()
        processor = transformers.AutoProcessor.from_pretrained(place, **OWN)
    digest = hashlib.sha256()
    for file in sorted(place.glob("*.safetensors")):
        digest.update(file_sha256(file).encode())
    return freeze(model), processor, digest.hexdigest()


def corners(centres: Float[Tensor, "n 4"], width: float, height: float) -> Float[Tensor, "n 4"]:
    """Convert boxes from centre and size, as fractions, to corners in pixels."""
    from torchvision.ops import box_convert

    return box_convert(centres, "cxcywh", "xyxy") * torch.tensor([width, height] * 2, dtype=centres.dtype)
