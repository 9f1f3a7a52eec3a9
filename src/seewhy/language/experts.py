"""Vision experts that describe a picture's content: protocols for any detector, and built-in experts.

Image Textualization (arXiv 2406.07502) uses GRiT, Grounding DINO, SAM and a depth network. The built-in experts use the
feature map of a classifier instead, and find only its classes. There is no depth estimator.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..encoders.stream import Encoded, EncodeRequest, encode_stream, encode_texts
from ..errors import DataError, ImageError
from ..pictures.images import Picture
from ..types import Failure, FractionBox, Transform

if TYPE_CHECKING:
    from ..attributions.base import Deciding

SIDE = 448
WHOLE = Transform((SIDE, SIDE), (SIDE, SIDE), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""The transform with which a picture is read for the experts: it stretches the whole picture to a square."""

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
COLOURS: dict[str, tuple[int, int, int]] = {name: tuple(rgb) for name, rgb in _TABLES["colours"].items()}
"""Colour names with sRGB colours."""
CONTROLS = tuple(_TABLES["controls"].split())
"""Everyday objects with which a phrase is compared."""


@dataclass(frozen=True)
class FoundObject:
    """An object that an expert found."""

    label: str
    box: FractionBox
    score: float = 1.0
    colour: str = ""
    size: float | None = None
    depth: float | None = None


class Detector(Protocol):
    """An expert that finds objects, highest score first."""

    def detect(self, scene: Picture) -> Sequence[FoundObject]: ...


class Segmenter(Protocol):
    """An expert that segments the object in a box of ``scene.pixels`` (paper: SAM)."""

    def segment(self, scene: Picture, box: FractionBox) -> Bool[np.ndarray, "h w"]: ...


class DepthEstimator(Protocol):
    """An expert that estimates the nearness of every pixel in any unit (paper: 255 minus GLPN's depth)."""

    def nearness(self, scene: Picture) -> Float[np.ndarray, "h w"]: ...


class Verifier(Protocol):
    """An expert that checks whether a picture shows a phrase (paper: Grounding DINO)."""

    def supports(self, scene: Picture, phrase: str) -> bool: ...


class BoxSegmenter:
    """A segmenter that returns the ellipse in a box."""

    def segment(self, scene: Picture, box: FractionBox) -> Bool[np.ndarray, "h w"]:
        height, width = scene.pixels.shape[:2]
        left, top, right, bottom = box
        y = (np.arange(height) + 0.5) / height
        x = (np.arange(width) + 0.5) / width
        across = (x - (left + right) / 2) / ((right - left) / 2)
        down = (y - (top + bottom) / 2) / ((bottom - top) / 2)
        return down[:, None] ** 2 + across[None] ** 2 <= 1


def colour_name(pixels: UInt8[np.ndarray, "*shape 3"]) -> str:
    """Return the most frequent colour name of pixels."""
    flat = pixels.reshape(-1, 3)
    if not len(flat):
        return ""
    named = _lab(np.array(list(COLOURS.values()), np.uint8))
    step = max(1, len(flat) // 4000)
    distance = ((_lab(flat[::step])[:, None] - named[None]) ** 2).sum(2)
    counts = np.bincount(distance.argmin(1), minlength=len(COLOURS))
    return list(COLOURS)[int(counts.argmax())]


def _lab(rgb: UInt8[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Convert sRGB to CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    v = rgb.astype(np.float64) / 255
    v = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = v @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def covered(pixels: UInt8[np.ndarray, "h w 3"], box: FractionBox) -> UInt8[np.ndarray, "y x 3"]:
    """Return the pixels in the central half of a box."""

    def middle(low: float, high: float, n: int) -> slice:
        inset = (high - low) / 4
        start = int((low + inset) * n)
        return slice(start, max(start + 1, int((high - inset) * n)))

    left, top, right, bottom = box
    return pixels[middle(top, bottom, pixels.shape[0]), middle(left, right, pixels.shape[1])]


@dataclass(frozen=True)
class CellDetector:
    """A detector that finds connected patches in which one class has a probability of at least ``threshold``.

    The classifier's head is applied to every patch of the feature map, averaged with its neighbours.
    """

    classifier: Deciding
    threshold: float = 0.5
    most: int = 10

    def detect(self, scene: Picture) -> list[FoundObject]:
        seen, cells = _cells(self.classifier, scene)
        assert seen.picture is not None
        (across, down), (height, width) = scene.original_size, cells.shape[1:]
        with torch.no_grad():
            scores = self.classifier.head.probabilities(cells.flatten(1).T).reshape(height, width, -1)
        best, label = scores.max(2)
        found = []
        for patch in _patches(best >= self.threshold, label):
            rows, columns = [r for r, _ in patch], [c for _, c in patch]
            box = (min(columns) / width, min(rows) / height, (max(columns) + 1) / width, (max(rows) + 1) / height)
            left, top, right, bottom = seen.picture.to_original(box)
            whole = (left / across, top / down, right / across, bottom / down)
            score = max(float(best[r, c]) for r, c in patch)
            name = self.classifier.classes[int(label[patch[0]])]
            found.append(FoundObject(name, whole, round(score, 4), colour_name(covered(scene.pixels, whole))))
        return sorted(found, key=lambda o: -o.score)[: self.most]


@dataclass(frozen=True)
class CellVerifier:
    """A verifier that compares a phrase with the everyday objects of :data:`CONTROLS`.

    The phrase is supported if its highest cosine similarity with a patch is at least ``margin`` standard deviations
    above the mean of these objects.
    """

    classifier: Deciding
    margin: float = 1.0

    def __post_init__(self) -> None:
        if not self.classifier.encoder.has_text:
            raise DataError(
                f"The encoder {self.classifier.encoder.name} has no text encoder. Use lite0 or an open_clip model, or "
                "remove --check."
            )

    @cached_property
    def _controls(self) -> Float[Tensor, "n d"]:
        return encode_texts(self.classifier.encoder, [f"a photo of a {word}" for word in CONTROLS])

    def supports(self, scene: Picture, phrase: str) -> bool:
        from ..heads.head import Projected

        seen, cells = _cells(self.classifier, scene)
        with torch.no_grad():
            joint = Projected(self.classifier.encoder.text)(torch.cat([cells.flatten(1).T, seen.pooled[:1]]))
            text = encode_texts(self.classifier.encoder, [f"a photo of a {phrase}"])
            mine, others = (joint @ text.T).max(0).values, (joint @ self._controls.T).max(0).values
        return bool(mine[0] >= others.mean() + self.margin * others.std())


def look_at(classifier: Deciding, name: str) -> Encoded:
    """Encode one picture and return its feature map and pixels."""
    seen = next(
        encode_stream(classifier.encoder, [name], request=EncodeRequest(features=lambda _index: True, pictures=True))
    )
    if isinstance(seen, Failure):
        raise ImageError(seen.image, seen.error)
    return seen


def _cells(classifier: Deciding, scene: Picture) -> tuple[Encoded, Float[Tensor, "c h w"]]:
    """Encode a picture; return also its feature map, with each patch averaged with its neighbours."""
    seen = look_at(classifier, scene.name)
    assert seen.features is not None
    return seen, avg_pool2d(classifier.encoder.layout.to_grid(seen.features[None]), 3, 1, 1, count_include_pad=False)[0]


def _patches(mask: Bool[Tensor, "h w"], label: Int[Tensor, "h w"]) -> list[list[tuple[int, int]]]:
    """Return the connected regions of equal labels."""
    from scipy.ndimage import label as connected

    found = []
    for value in label[mask].unique():
        parts, n = connected((mask & (label == value)).numpy())
        found += [[(int(r), int(c)) for r, c in np.argwhere(parts == i + 1)] for i in range(n)]
    return sorted(found)
