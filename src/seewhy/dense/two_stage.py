"""A two-stage detector on one map: first where an object may be, then its name, by the cosine with texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, huber_loss, normalize

from ..bounds import NotNegative, Part, check_fields
from ..encoders.region_heads import GROUPS, LARGE, RegionHeads
from ..training.batches import Batch
from ..training.task import Task

IOU_WEIGHT, BACKGROUND_WEIGHT = 8.0, 0.9
"""The authors' weights of the overlap loss and of the background."""
CENTRAL, REACH = 0.6, 2.0
"""Share of a box's sides within which cells propose it; initial cells from a place to each side of its box."""
LEAST = 1e-3
"""Share of the picture below which a box has no area, and two boxes are the same."""
N_TAUGHT, N_RIGHT, SUPPRESSED = 32, 12, 0.7
"""Boxes of a picture in a training step, most of them that show objects, and the overlap above which a proposal is
dropped in training; in detection none is dropped, as in the authors' code.
"""


@cache
def box_coder(weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)) -> Any:
    """Return the encoding of box shifts, and its weights in the loss (Faster R-CNN's)."""
    from torchvision.models.detection._utils import BoxCoder

    return BoxCoder(weights)


class Proposed(NamedTuple):
    """The proposals of one batch: boxes as fractions of the picture, and the objectness of each."""

    boxes: Float[Tensor, "b n 4"]
    objectness: Float[Tensor, "b n"]


class Found(NamedTuple):
    """The proposals of one batch with their moved boxes and logits."""

    proposals: Float[Tensor, "b n 4"]
    boxes: Float[Tensor, "b n 4"]
    objectness: Float[Tensor, "b n"]
    logits: Float[Tensor, "b n k"]

    def real(self) -> Found:
        """Return the boxes of a single picture that have an area and some objectness."""
        own = Found(*(one[0] for one in self))
        keep = ((own.boxes[:, 2:] - own.boxes[:, :2]) > LEAST).all(1) & (own.objectness > 0)
        return Found(*(one[keep] for one in own))

    def proposal_of(self, box: Float[Tensor, "1 4"]) -> Float[Tensor, "1 4"] | None:
        """Return the proposal that was moved to a box, in a single picture."""
        off, which = (self.boxes[0] - box).abs().amax(1).min(0)
        return self.proposals[0, which][None] if off <= LEAST else None


class TwoStage(nn.Module):
    """Proposes one box per cell, with its centredness as objectness (OLN, Kim et al. 2021); heads then name the
    boxes.
    """

    texts: Tensor

    def __init__(self, heads: RegionHeads, texts: Float[Tensor, "k d"], temperature: float) -> None:
        super().__init__()
        width = heads.sizes.width
        self.heads, self.temperature = heads, temperature
        self.register_buffer("texts", texts.clone())
        self.near = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(GROUPS, width), nn.ReLU())
        self.place = nn.Conv2d(width, 5, 1)
        self.move = nn.Linear(heads.sizes.hidden, 4)
        self.scalar = nn.Parameter(torch.ones(()))
        for name, p in (*self.place.named_parameters(), *self.move.named_parameters()):
            nn.init.zeros_(p) if name == "bias" else nn.init.normal_(p, std=0.01)

    def proposals(self, levels: tuple[Tensor, ...]) -> tuple[Float[Tensor, "b n 4"], Float[Tensor, "b n"]]:
        """Return the box of every cell of every level, and the logit of its objectness."""
        boxes, centred = [], []
        for level in levels:
            out = self.place(self.near(level)).flatten(2).transpose(1, 2)
            high, wide = level.shape[2:]
            cell = out.new_tensor([1 / wide, 1 / high])
            far = REACH * out[..., 1:].clamp(-4, 4).exp() * cell.repeat(2)
            middle = centres(high, wide).to(out)
            boxes.append(torch.cat([middle - far[..., :2], middle + far[..., 2:]], 2))
            centred.append(out[..., 0])
        return torch.cat(boxes, 1), torch.cat(centred, 1)

    def proposed(self, levels: tuple[Tensor, ...], n: int, overlap: float | None = None) -> Proposed:
        """Return the best proposals within the picture, padded to ``n`` by the whole picture with no objectness."""
        boxes, logits = self.proposals(levels)
        boxes, sure = boxes.detach().clamp(0, 1), logits.detach().sigmoid()
        found = Proposed(boxes.new_tensor([0.0, 0, 1, 1]).repeat(len(boxes), n, 1), sure.new_zeros(len(sure), n))
        for i, (own, s) in enumerate(zip(boxes, sure, strict=True)):
            real = ((own[:, 2:] - own[:, :2]) > LEAST).all(1).nonzero()[:, 0]
            order = real[s[real].argsort(descending=True)]
            if overlap is not None:
                from torchvision.ops import batched_nms

                order = order[: 10 * n]
                order = order[batched_nms(own[order], s[order], torch.zeros_like(order), overlap)]
            order = order[:n]
            found.boxes[i, : len(order)], found.objectness[i, : len(order)] = own[order], s[order]
        return found

    def read(
        self, levels: tuple[Tensor, ...], boxes: Float[Tensor, "n 4"], owner: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n 4"]]:
        """Return logits of the background and the names, and the shift of each box."""
        hidden = self.heads.read(levels, boxes, owner)
        cosine = normalize(self.heads.embed(hidden), dim=1) @ self.texts.T
        return cosine / (self.temperature * self.scalar.clamp(0.1, 10)), self.move(hidden)

    @torch.no_grad()
    def found(self, grid: Float[Tensor, "b c h w"], n: int) -> Found:
        """Return the boxes of pictures, and their logits."""
        levels = self.heads.levels(grid)
        places = self.proposed(levels, n)
        b = len(grid)
        owner = torch.arange(b, device=grid.device).repeat_interleave(n)
        logits, by = self.read(levels, places.boxes.flatten(0, 1), owner)
        boxes = box_coder().decode_single(by, places.boxes.flatten(0, 1)).clamp(0, 1)
        return Found(places.boxes, boxes.unflatten(0, (b, n)), places.objectness, logits.unflatten(0, (b, n)))


def centres(high: int, wide: int) -> Float[Tensor, "n 2"]:
    """Return the centres of cells, row by row, as fractions of the picture: across, down."""
    y, x = torch.meshgrid((torch.arange(high) + 0.5) / high, (torch.arange(wide) + 0.5) / wide, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


@dataclass(frozen=True)
class Targets:
    """The boxes that the cells of one picture should propose."""

    own: Int[Tensor, " m"]
    boxes: Float[Tensor, "m 4"]
    centred: Float[Tensor, " m"]
    empty: Int[Tensor, " e"]

    @classmethod
    def of(cls, sizes: list[tuple[int, int]], boxes: Float[Tensor, "g 4"]) -> Targets:
        """Return the targets.

        Each box is proposed by cells of the level that fits its size; a cell in several boxes takes the smallest.
        """
        middle = torch.cat([centres(*size) for size in sizes]).to(boxes)
        of_level = torch.cat([torch.full((h * w,), i) for i, (h, w) in enumerate(sizes)]).to(boxes.device)
        if not len(boxes):
            none = torch.zeros(0, dtype=torch.long, device=boxes.device)
            return cls(none, boxes, boxes.new_zeros(0), torch.arange(len(middle), device=boxes.device))
        sides = boxes[:, 2:] - boxes[:, :2]
        fits = torch.bucketize(sides.prod(1).sqrt(), sides.new_tensor(LARGE), right=True)
        to = torch.cat([middle[:, None] - boxes[:, :2], boxes[:, 2:] - middle[:, None]], 2)
        off = (middle[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2).abs() / sides
        proposes = (off <= CENTRAL / 2).all(2) & (of_level[:, None] == fits)
        area = torch.where(proposes, sides.prod(1), torch.inf)
        least, which = area.min(1)
        own = least.isfinite().nonzero()[:, 0]
        near = to[own, which[own]]
        ratio = torch.stack([near[:, [0, 2]], near[:, [1, 3]]], 1)
        centred = (ratio.amin(2) / ratio.amax(2)).prod(1).sqrt()
        return cls(own, boxes[which[own]], centred, least.isinf().nonzero()[:, 0])


class TwoStageLearning(Task):
    """Trains both stages, on stored maps, or on the maps of a ``trunk`` that also learns.

    The log has the four terms. Maps of a batch may be computed in parts, with the gradient of the whole.
    """

    def __init__(self, network: TwoStage, trunk: nn.Module | None = None) -> None:
        super().__init__()
        self.needs = ("maps" if trunk is None else "pixels", "boxes", "labels")  # type: ignore[misc]
        self.network, self.trunk = network.requires_grad_(True), trunk

    def features(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        maps: Tensor = batch["maps"].float() if self.trunk is None else self.trunk(batch["pixels"])
        return maps

    def loss(self, features: Float[Tensor, "b c h w"], batch: Batch) -> Mapping[str, Tensor]:
        terms = self._terms(features, batch)
        return {"loss": torch.stack(list(terms.values())).sum(), **{n: v.detach() for n, v in terms.items()}}

    def _terms(self, maps: Float[Tensor, "b c h w"], batch: Batch) -> Mapping[str, Tensor]:
        net = self.network
        there = [boxes[labels >= 0] for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)]
        named = [labels[labels >= 0] for labels in batch["labels"]]
        levels = net.heads.levels(maps)
        first = self._first(levels, there)
        places = net.proposed(levels, 2 * N_TAUGHT, SUPPRESSED)
        taught = [_taught(*one) for one in zip(places.boxes, there, named, strict=True)]
        boxes, labels, wanted = (torch.cat(one) for one in zip(*taught, strict=True))
        owner = torch.cat([torch.full((len(one[0]),), i) for i, one in enumerate(taught)]).to(maps.device)
        logits, by = net.read(levels, boxes, owner)
        weight = torch.where(labels == 0, BACKGROUND_WEIGHT, 1.0)
        named_loss = (weight * cross_entropy(logits, labels, reduction="none")).sum() / len(labels)
        real = labels > 0
        move = huber_loss(by[real], wanted[real], reduction="sum") / max(len(labels), 1)
        return {**first, "name": named_loss, "move": move}

    def _first(self, levels: tuple[Tensor, ...], there: list[Tensor]) -> dict[str, Tensor]:
        """Centredness by its distance, boxes by their overlap."""
        boxes, logits = self.network.proposals(levels)
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        centred, empty, overlap = [], [], []
        for i, own in enumerate(there):
            targets = Targets.of(sizes, own)
            sure = logits[i].sigmoid()
            centred.append((sure[targets.own] - targets.centred).abs())
            empty.append(sure[targets.empty])
            overlap.append(1 - _iou(boxes[i, targets.own], targets.boxes))
        mean = [torch.cat(one).sum() / max(sum(map(len, one)), 1) for one in (centred, empty, overlap)]
        return {"centred": mean[0] + mean[1], "overlap": IOU_WEIGHT * mean[2]}


def _iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Pair by pair."""
    both = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-9)


def _taught(
    proposed: Float[Tensor, "n 4"], there: Float[Tensor, "g 4"], named: Int[Tensor, " g"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes to learn from: what is there, and proposals of things and of nothing; labels, 0 for nothing; offsets."""
    from torchvision.ops import box_iou

    boxes = torch.cat([there, proposed])
    overlap, which = boxes.new_zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
    if len(there):
        overlap, which = box_iou(boxes, there).max(1)
    right, wrong = ((overlap >= 0.5).nonzero()[:, 0], (overlap < 0.5).nonzero()[:, 0])
    right = right[torch.randperm(len(right))[:N_RIGHT]]
    wrong = wrong[torch.randperm(len(wrong))[: N_TAUGHT - len(right)]]
    use = torch.cat([right, wrong])
    labels = torch.zeros(len(use), dtype=torch.long, device=boxes.device)
    wanted = boxes.new_zeros(len(use), 4)
    if len(right):
        labels[: len(right)] = named[which[right]] + 1
        wanted[: len(right)] = box_coder().encode_single(there[which[right]], boxes[right])
    return boxes[use], labels, wanted


@dataclass(frozen=True)
class Blend:
    """The geometric mean of two probabilities, with more weight on the frozen words for untrained classes.

    ``s_k = p_k^(1 - w_k) z_k^(w_k)``, where ``w`` is ``alpha`` for base classes and ``beta`` for all others, or for
    all classes if none is a base class. The background's score is ``p`` alone; then each row is normalised to 1, and
    multiplied by a power of the objectness. Equal to the authors' ``ensemble_class_outputs``.
    """

    alpha: Part = 0.35
    beta: Part = 0.65
    objectness: NotNegative = 3.0

    def __post_init__(self) -> None:
        check_fields(self, "A blend")

    def __call__(
        self,
        detector: Float[Tensor, "n k"],
        words: Float[Tensor, "n k"],
        is_base: Bool[Tensor, " names"] | None = None,
        objectness: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n k"]:
        """Scores of boxes; the first column is the background."""
        p, z = detector.log_softmax(1), words.log_softmax(1)
        names = torch.zeros(p.shape[1] - 1, dtype=torch.bool, device=p.device) if is_base is None else is_base
        w = torch.where(names, self.alpha, self.beta).to(p)
        both = torch.cat([p[:, :1], (1 - w) * p[:, 1:] + w * z[:, 1:]], 1)
        scores = both.softmax(1)
        return scores if objectness is None or not self.objectness else scores * objectness[:, None] ** self.objectness


def shrunk(boxes: Float[Tensor, "n 4"], part: float) -> Float[Tensor, "n 4"]:
    """Return boxes with the same centre and scaled sides."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (part / 2)
    return torch.cat([middle - half, middle + half], 1)
