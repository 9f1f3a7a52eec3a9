"""Pretrained networks of the transformers library, read safely from a folder; they can work in tiles."""

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
from ..errors import ImageError, InputError, MissingExtraError, ModelError
from ..pictures.images import read_views, upright_size
from ..pictures.sources import One, name_of
from ..storage.reading import file_sha256
from ..types import Crop, Failure, Transform
from .finders import Detector
from .reader import LONGEST, Windows
from .regions import Detections, Keep, class_names

WHOLE = Crop((0.0, 0.0, 1.0, 1.0))
READ, SHOWN, FINE = 4096, 448, 64
"""Longest side in pixels of a tile for a processor, which may pad it to a square in floats; pixels of a picture's
side on the page; and the step between tiles, as a share of their side.
"""

Found = tuple[Float[Tensor, "n 4"], Float[Tensor, "n k"]]
"""Boxes in pixels of the processed picture, and the score of each name for each box."""
T = TypeVar("T")
Look = Callable[[UInt8[np.ndarray, "h w 3"]], Found]


@dataclass(frozen=True)
class PretrainedMethod(ABC):
    """A detector of the transformers library, without its weights; each method defines only its query.

    Args:
        tiles: windows along the picture's short side, from 1; more find smaller objects and take longer.
        least: lowest score of a box, 0 to 1; raise it for fewer boxes with higher scores.
        overlap: of two boxes of a class that overlap more than this (intersection over union, 0 to 1), keep only the
            one with the higher score.
        most: most boxes per picture.
    """

    name: ClassVar[str]
    spelt: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str] = "names, and a folder with its weights"
    cost: ClassVar[str] = "one per tile, of its own network"
    takes_folder: ClassVar[bool] = True
    measured: ClassVar[str] = "Not measured here. On pictures like these: seewhy evaluate BOXES --detector NAME:FOLDER."

    tiles: int = 1
    least: float = 0.1
    overlap: float = 0.5
    most: int = 100

    @staticmethod
    def tiled(n: int) -> dict[str, Any]:
        """Return the parameters for this many tiles along the short side."""
        return {"tiles": n}

    def build(self, labels: Iterable[str], folder: str | None) -> PretrainedDetector:
        """Return a detector for these names."""
        classes = class_names(labels, boxes=True)
        model, processor, digest = open_network(self.name, folder)
        look = self.look(classes, model, processor)
        about: dict[str, Any] = {"method": self.name, "encoder": str(folder), "fingerprint": digest}
        about |= {"measured": self.measured, "parameters": asdict(self)}
        return PretrainedDetector(classes, about, look, Keep(self.least, self.overlap, self.most), self.tiles)

    @abstractmethod
    def look(self, classes: tuple[str, ...], model: Any, processor: Any) -> Look:
        """Return the function that shows a picture to the network and reads its answer."""


@dataclass(frozen=True, eq=False)
class PretrainedDetector(Detector):
    """A network trained to find the objects that words name."""

    classes: tuple[str, ...]
    about: dict[str, Any] = field(repr=False)
    look: Look = field(repr=False)
    keep: Keep
    tiles: int = 1

    def detect_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        return one_by_one(pictures, self._found)

    @torch.no_grad()
    def _found(self, name: str, source: Any) -> Detections:
        width, height = upright_size(source, longest=LONGEST)
        n = Windows.over((width, height), (1, 1), self.tiles).n
        crops = [WHOLE] if self.tiles == 1 else Windows((FINE, FINE), n).crops()
        small = read_views(source, stretched(SHOWN, SHOWN), [WHOLE])[0].pixels
        boxes, scores, labels = [], [], []
        for crop in crops:
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
    """Yield the result for each picture, in order; an unreadable one does not stop the others."""
    for number, source in enumerate(pictures, 1):
        name = name_of(source, number)
        try:
            yield look(name, source)
        except ImageError as error:
            yield Failure(name, error.reason)


def stretched(height: int, width: int) -> Transform:
    """Return a picture stretched to this size, whatever its shape."""
    return Transform((height, width), (height, width), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def part_of(source: One, size: tuple[int, int], crop: Crop) -> UInt8[np.ndarray, "h w 3"]:
    """Return a part of a picture at its own size, or smaller if its long side exceeds :data:`READ`."""
    left, top, right, bottom = crop.box
    width, height = (right - left) * size[0], (bottom - top) * size[1]
    scale = min(1.0, READ / max(width, height))
    own = max(1, round(height * scale)), max(1, round(width * scale))
    return read_views(source, stretched(*own), [crop])[0].pixels


def open_network(
    method: str, folder: str | None, network: str = "AutoModelForZeroShotObjectDetection", kind: str = "detector"
) -> tuple[Any, Any, str]:
    """Return the network, its processor, and a digest of its weights."""
    if folder is None:
        raise InputError(
            f"The {kind} {method} was named without its weights. Expected a folder written by save_pretrained. "
            f"Write --method {method}:/path/to/folder."
        )
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("huggingface", "transformers") from error
    name, place = f"{method}:{folder}", Path(folder).expanduser()
    check_saved(name, place)
    with loading(lambda why: ModelError(f"{name!r} cannot be loaded: {why} Save it again with this transformers.")):
        config = transformers.AutoConfig.from_pretrained(place, **OWN)
        if config.model_type.replace("-", "_") != method:
            raise ModelError(
                f"{name!r} holds a {config.model_type!r} network. Expected {method!r}. Name another {kind}, or "
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
    """Centre and size as fractions → corners in pixels."""
    from torchvision.ops import box_convert

    return box_convert(centres, "cxcywh", "xyxy") * torch.tensor([width, height] * 2, dtype=centres.dtype)
