"""Zero-shot detection from the feature map of an image-text encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..bounds import Count, NotNegative, Part, Positive, check_fields
from ..encoders.base import Encoder
from ..errors import InputError
from ..heads.head import Head, Projected
from ..metrics.localisation import pieces
from ..storage.features import FeatureStore
from ..types import Failure
from . import detectors
from .cells import joint_cells
from .finders import LEAST, Detector, Presence
from .maskclip import TEMPLATES, MaskCLIP, Words, texts_of
from .parts import AmongWords, PooledScore, rest_names
from .reader import LARGEST, Looked, Reader, bilinear, box_means
from .regions import Detections, Keep, class_names

FINER = 8
"""Upsampling factor of the map from which boxes are cut."""
WITHIN = 0.7
"""Of two boxes of a name, the lower-scoring box is removed if this share of the smaller box is inside the other."""


@detectors.register
@dataclass(frozen=True)
class WordRegions:
    """Zero-shot detection of connected regions that are more similar to a name than to background words.

    The map ``l_k`` of name ``k`` is the following difference, minus its mean over the picture:

        l_k(i) = cos(z_i, t_k) - max_b cos(z_i, t_b)

    - ``z_i``: the embedding of grid cell ``i`` (:func:`seewhy.dense.cells.joint_cells`).
    - ``t_k``: the mean text embedding of name ``k``.
    - ``b``: the background words, ``rest``.

    Boxes surround the connected regions with ``l_k > level * max l_k`` (Zhou et al. 2016, arXiv:1512.04150). The score
    of a box is:

        score = p (1 + p - q) / 2
        p = softmax_k(scale * cos(mean of z in the box, t))

    - ``p``: the probability of the name in the box; ``scale`` is the logit scale.
    - ``q``: the probability of the name in a ring around the box.

    DITO also scores regions by text in this way (arXiv:2310.00161). A name gets no boxes if its presence in the picture
    (:class:`seewhy.dense.finders.Presence`) is below ``least_presence``. If a box contains another, only the box with
    the higher score is returned.

    The trunk runs once per window, and the head once per grid cell.

    Args:
        templates: sentences with ``{}`` for the class name; their embeddings are averaged.
        rest: background words, which are never reported.
        levels: thresholds of the regions, as fractions of the maximum of ``l_k``, between 0 and 1; each threshold gives
            boxes.
        around: width of the ring around a box, as a fraction of the box's side.
        size: short side of the picture, as a multiple of the encoder's input size; a larger value finds smaller objects
            and takes longer. Above 2, the picture is cut into tiles.
        least: lowest score of a box, 0 to 1.
        least_presence: smallest presence of a name in the picture, in standard deviations; 0 draws boxes for every
            name.
        part: lowest score of a box, as a fraction of the highest score for this name, 0 to 1; 0 returns all boxes.
        overlap: largest intersection over union of two boxes of the same class, 0 to 1; above it, the box with the
            lower score is removed.
        most: largest number of boxes per picture.
    """

    name: ClassVar[str] = "word_regions"
    spelt: ClassVar[str] = "regions by words"
    paper: ClassVar[str] = "after Zhou et al. 2016, arXiv:1512.04150, and DITO, arXiv:2310.00161"
    needs: ClassVar[str] = "names and an image-text encoder"
    cost: ClassVar[str] = "one per window, and the head for each cell"
    measured: ClassVar[str] = (
        "The accuracy of these boxes was not measured. Measure it on labelled boxes: seewhy evaluate BOXES --detector "
        "word_regions."
    )

    templates: tuple[str, ...] = TEMPLATES
    rest: tuple[str, ...] = ("background",)
    levels: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    around: Positive = 0.25
    size: float = LARGEST
    least: float = 0.0
    least_presence: NotNegative = LEAST
    part: Part = 0.9
    overlap: Part = 0.5
    most: Count = 100

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.levels or not all(0 < level < 1 for level in self.levels) or not self.rest:
            raise InputError(
                "In word_regions, the thresholds `levels` must be between 0 and 1, and `rest` must have at least one "
                f"word, got levels={self.levels} and {len(self.rest)} word(s) in `rest`."
            )

    @staticmethod
    def ranked() -> dict[str, Any]:
        """Return a copy of the parameters that returns all boxes, as average precision needs them."""
        return {"least": 0.0, "least_presence": 0.0, "part": 0.0}

    @staticmethod
    def tiled(n: int) -> dict[str, Any]:
        return {"size": n * LARGEST}

    def build(self, labels: Iterable[str], encoder: Encoder, store: FeatureStore | None = None) -> RegionDetector:
        classes = class_names(labels, boxes=True)
        texts = texts_of(encoder, (*classes, *self.rest), self.templates, store)
        words = Words(texts, encoder.text.logit_scale, MaskCLIP(self.templates))
        presence = Presence(encoder, classes, self.templates[0], self.least_presence, store)
        return RegionDetector(classes, self, Reader(encoder, self.size), words, presence)


@dataclass(frozen=True, eq=False)
class RegionDetector(Detector):
    """The detector that :class:`WordRegions` builds."""

    classes: tuple[str, ...]
    how: WordRegions
    reader: Reader = field(repr=False)
    words: Words = field(repr=False)
    presence: Presence = field(repr=False)

    def find_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        for looked in self.reader.looked(pictures):
            yield looked if isinstance(looked, Failure) else self._found(looked)

    def pooled(self) -> PooledScore:
        """Return a classifier of one box, which does not compare the box with the ring around it."""
        names = (*self.classes, *rest_names(self.classes, self.how.rest))
        among = AmongWords(self.reader.base.text)
        head = Head(Projected(among), self.words.texts, scale=self.words.scale)
        return PooledScore(self.reader, self.how.name, names, joint_cells, head, words="joint")

    @torch.no_grad()
    def _found(self, looked: Looked) -> Detections:
        cells = looked.windows.merged(joint_cells(self.reader.encoder, looked.features))
        presence = self.presence.of(self.reader.encoder, looked, cells)
        boxes, labels = self.regions(cells)
        there = self.presence.found(presence)[labels]
        boxes, labels = boxes[there], labels[there]
        scores = self.scores(cells, boxes, labels)
        if self.how.part > 0:
            few = few_of_each(boxes, scores, labels, self.how.part)
            boxes, scores, labels = boxes[few], scores[few], labels[few]
        h, w = cells.shape[1:]
        width, height = looked.size
        scale = torch.tensor([width / w, height / h] * 2)
        keep = Keep(self.how.least, self.how.overlap, self.how.most)
        found = keep.detections(boxes * scale, scores, labels, self.classes, looked.size)
        about = {
            "method": self.how.name,
            "encoder": self.reader.base.name,
            "fingerprint": self.reader.base.fingerprint,
            "measured": self.how.measured,
            "parameters": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.how).items()},
        }
        by_name = self.presence.to_json(presence)
        return Detections(looked.name, looked.size, self.classes, found, about, looked.pixels, presence=by_name)

    def regions(self, cells: Float[Tensor, "d h w"]) -> tuple[Float[Tensor, "n 4"], Int[Tensor, " n"]]:
        """Return boxes around the regions of each name's map, with the indices of the names."""
        n = len(self.classes)
        cosines = torch.einsum("dhw,kd->khw", normalize(cells, dim=0), self.words.texts)
        lead = cosines[:n] - cosines[n:].amax(0)
        which, boxes = cut_regions(lead, self.how.levels)
        return boxes, which

    def scores(
        self, cells: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        if not len(boxes):
            return boxes.new_zeros(0)
        h, w = cells.shape[1:]
        margin = self.how.around * (boxes[:, 2:] - boxes[:, :2])
        wide = torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], 1).clamp(min=0)
        wide = torch.minimum(wide, torch.tensor([w, h, w, h], dtype=wide.dtype))
        inside, both = box_means(cells, boxes), box_means(cells, wide)
        areas = [((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]))[:, None] for b in (boxes, wide)]
        beside = areas[1] - areas[0]
        ring = torch.where(beside > 1e-6, (both * areas[1] - inside * areas[0]) / beside.clamp(min=1e-6), both)
        sure = ((self.words.scale * normalize(v, dim=1) @ self.words.texts.T).softmax(1) for v in (inside, ring))
        within, without = (one.gather(1, labels[:, None])[:, 0] for one in sure)
        return ((1 + within - without) / 2 * within).clamp(0, 1)


def few_of_each(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int[Tensor, " n"], part: float
) -> Int[Tensor, " m"]:
    """Return the indices of the best boxes of each name, without nested boxes."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        own = [j for j in kept if labels[j] == labels[i]]
        if own:
            low, high = torch.maximum(boxes[own, :2], boxes[i, :2]), torch.minimum(boxes[own, 2:], boxes[i, 2:])
            shared = (high - low).clamp(min=0).prod(1) / torch.minimum(areas[own], areas[i])
            if scores[i] < part * scores[own[0]] or bool((shared > WITHIN).any()):
                continue
        kept.append(i)
    return torch.tensor(kept, dtype=torch.long)


def cut_regions(
    maps: Float[Tensor, "k h w"], levels: tuple[float, ...]
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 4"]]:
    """Return the map index and the corners, in grid cells, of each connected region."""
    lead = maps - maps.mean((1, 2), keepdim=True)
    h, w = lead.shape[1:]
    fine = torch.einsum("yh,khw,xw->kyx", bilinear(h, h * FINER), lead, bilinear(w, w * FINER))
    top = fine.amax((1, 2), keepdim=True).clamp(min=1e-9)
    # Each level separately: pieces of different levels are not merged.
    which, boxes, _ = pieces(torch.cat([fine > level * top for level in levels]))
    return which % len(maps), boxes / FINER
