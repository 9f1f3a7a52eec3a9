"""A two-stage detector: boxes are proposed without classes, then classified by the cosine with text embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, huber_loss, normalize

from ..bounds import Checked, NotNegative, Part
from ..encoders.region_heads import GROUPS, LARGE, RegionHeads
from ..training.batches import Batch
from ..training.task import Task

IOU_WEIGHT, BACKGROUND_WEIGHT = 8.0, 0.9
"""The authors' weights of the overlap loss and of the background class."""
CENTRAL, REACH = 0.6, 2.0
"""Central share of a box in which grid cells propose it, and initial distance to the sides of a box in grid cells."""
LEAST = 1e-3
"""Smallest side of a box, as a fraction of the picture."""
N_TAUGHT, N_RIGHT, SUPPRESSED = 32, 12, 0.7
"""Boxes per picture in a training step, largest number of positive ones, and overlap for non-maximum suppression in
training. As in the authors' code, detection suppresses no proposals.
"""


@cache
def box_coder(weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)) -> Any:
    """Return the box regression coder of Faster R-CNN."""
    from torchvision.models.detection._utils import BoxCoder

    return BoxCoder(weights)


class Found(NamedTuple):
    """The proposals of a batch, with their refined boxes and class logits."""

    proposals: Float[Tensor, "b n 4"]
    boxes: Float[Tensor, "b n 4"]
    objectness: Float[Tensor, "b n"]
    logits: Float[Tensor, "b n k"]

    def real(self) -> Found:
        """Return the boxes of a picture with a positive area and objectness."""
        own = Found(*(one[0] for one in self))
        keep = ((own.boxes[:, 2:] - own.boxes[:, :2]) > LEAST).all(1) & (own.objectness > 0)
        return Found(*(one[keep] for one in own))

    def proposal_of(self, box: Float[Tensor, "1 4"]) -> Float[Tensor, "1 4"] | None:
        """Return the proposal from which a box of the first picture was refined; ``None`` for an unknown box."""
        off, which = (self.boxes[0] - box).abs().amax(1).min(0)
        return self.proposals[0, which][None] if off <= LEAST else None


class TwoStage(nn.Module):
    """A detector with one proposal per grid cell, scored by centredness (OLN, Kim et al. 2021)."""

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
        """Return the box and the objectness logit of each grid cell of each level."""
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

    def proposed(
        self, levels: tuple[Tensor, ...], n: int, overlap: float | None = None
    ) -> tuple[Float[Tensor, "b n 4"], Float[Tensor, "b n"]]:
        """Return the boxes and the objectness of the ``n`` best proposals of each picture, padded with objectness 0."""
        boxes, logits = self.proposals(levels)
        boxes, sure = boxes.detach().clamp(0, 1), logits.detach().sigmoid()
        best, objectness = boxes.new_tensor([0.0, 0, 1, 1]).repeat(len(boxes), n, 1), sure.new_zeros(len(sure), n)
        for i, (own, s) in enumerate(zip(boxes, sure, strict=True)):
            real = ((own[:, 2:] - own[:, :2]) > LEAST).all(1).nonzero()[:, 0]
            order = real[s[real].argsort(descending=True)]
            if overlap is not None:
                from torchvision.ops import batched_nms

                order = order[: 10 * n]
                order = order[batched_nms(own[order], s[order], torch.zeros_like(order), overlap)]
            order = order[:n]
            best[i, : len(order)], objectness[i, : len(order)] = own[order], s[order]
        return best, objectness

    def read(
        self, levels: tuple[Tensor, ...], boxes: Float[Tensor, "n 4"], owner: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n 4"]]:
        """Return the logits of the background and of the names for each box, and the refinement of each box."""
        hidden = self.heads.read(levels, boxes, owner)
        cosine = normalize(self.heads.embed(hidden), dim=1) @ self.texts.T
        return cosine / (self.temperature * self.scalar.clamp(0.1, 10)), self.move(hidden)

    @torch.no_grad()
    def found(self, grid: Float[Tensor, "b c h w"], n: int) -> Found:
        """Return the proposals, refined boxes and logits of pictures."""
        levels = self.heads.levels(grid)
        places, objectness = self.proposed(levels, n)
        b = len(grid)
        owner = torch.arange(b, device=grid.device).repeat_interleave(n)
        logits, by = self.read(levels, places.flatten(0, 1), owner)
        boxes = box_coder().decode_single(by, places.flatten(0, 1)).clamp(0, 1)
        return Found(places, boxes.unflatten(0, (b, n)), objectness, logits.unflatten(0, (b, n)))


def centres(high: int, wide: int) -> Float[Tensor, "n 2"]:
    """Return the centres of grid cells as fractions ``(x, y)``, row by row."""
    y, x = torch.meshgrid((torch.arange(high) + 0.5) / high, (torch.arange(wide) + 0.5) / wide, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def targets(
    sizes: list[tuple[int, int]], boxes: Float[Tensor, "g 4"]
) -> tuple[Int[Tensor, " m"], Float[Tensor, "m 4"], Float[Tensor, " m"], Int[Tensor, " e"]]:
    """Assign each box to a level by its size, and each grid cell to the smallest box around it.

    Return the grid cells that propose a box, their boxes and centredness, and the other grid cells.
    """
    middle = torch.cat([centres(*size) for size in sizes]).to(boxes)
    of_level = torch.cat([torch.full((h * w,), i) for i, (h, w) in enumerate(sizes)]).to(boxes.device)
    if not len(boxes):
        none = torch.zeros(0, dtype=torch.long, device=boxes.device)
        return none, boxes, boxes.new_zeros(0), torch.arange(len(middle), device=boxes.device)
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
    return own, boxes[which[own]], centred, least.isinf().nonzero()[:, 0]


class TwoStageLearning(Task):
    """The training loss of both stages."""

    def __init__(self, network: TwoStage, trunk: nn.Module | None = None) -> None:
        super().__init__()
        self.needs = ("maps" if trunk is None else "pixels", "boxes", "labels")  # type: ignore[misc]
        self.network, self.trunk = network.requires_grad_(True), trunk

    def features(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        return batch["maps"].float() if self.trunk is None else self.trunk(batch["pixels"])

    def loss(self, features: Float[Tensor, "b c h w"], batch: Batch) -> Mapping[str, Tensor]:
        terms = self._terms(features, batch)
        return {"loss": torch.stack(list(terms.values())).sum(), **{n: v.detach() for n, v in terms.items()}}

    def _terms(self, maps: Float[Tensor, "b c h w"], batch: Batch) -> Mapping[str, Tensor]:
        net = self.network
        there = [boxes[labels >= 0] for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)]
        named = [labels[labels >= 0] for labels in batch["labels"]]
        levels = net.heads.levels(maps)
        first = self._first(levels, there)
        places, _ = net.proposed(levels, 2 * N_TAUGHT, SUPPRESSED)
        taught = [_taught(*one) for one in zip(places, there, named, strict=True)]
        boxes, labels, wanted = (torch.cat(one) for one in zip(*taught, strict=True))
        owner = torch.cat([torch.full((len(one[0]),), i) for i, one in enumerate(taught)]).to(maps.device)
        logits, by = net.read(levels, boxes, owner)
        weight = torch.where(labels == 0, BACKGROUND_WEIGHT, 1.0)
        named_loss = (weight * cross_entropy(logits, labels, reduction="none")).sum() / len(labels)
        real = labels > 0
        move = huber_loss(by[real], wanted[real], reduction="sum") / max(len(labels), 1)
        return {**first, "name": named_loss, "move": move}

    def _first(self, levels: tuple[Tensor, ...], there: list[Tensor]) -> dict[str, Tensor]:
        boxes, logits = self.network.proposals(levels)
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        centred, empty, overlap = [], [], []
        for i, own in enumerate(there):
            cells, theirs, wanted, others = targets(sizes, own)
            sure = logits[i].sigmoid()
            centred.append((sure[cells] - wanted).abs())
            empty.append(sure[others])
            overlap.append(1 - _iou(boxes[i, cells], theirs))
        mean = [torch.cat(one).sum() / max(sum(map(len, one)), 1) for one in (centred, empty, overlap)]
        return {"centred": mean[0] + mean[1], "overlap": IOU_WEIGHT * mean[2]}


def _iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    both = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-9)


def _taught(
    proposed: Float[Tensor, "n 4"], there: Float[Tensor, "g 4"], named: Int[Tensor, " g"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample training boxes with their labels and box targets; label 0 is the background."""
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
class Blend(Checked):
    """The weighted geometric mean of the detector's and the frozen encoder's class probabilities.

        s_k = p_k^(1 - w_k) z_k^(w_k)

    - ``p_k``: the detector's probability of class ``k``.
    - ``z_k``: the frozen encoder's probability of class ``k``.
    - ``w_k``: ``alpha`` for base classes and ``beta`` for novel classes; ``beta`` for all if there are no base classes.

    The score of the background is its probability ``p``. Scores are normalised to sum to 1 and multiplied by a power of
    the objectness, as in the authors' ``ensemble_class_outputs``.
    """

    noun = "a blend"

    alpha: Part = 0.35
    beta: Part = 0.65
    objectness: NotNegative = 3.0

    def __call__(
        self,
        detector: Float[Tensor, "n k"],
        words: Float[Tensor, "n k"],
        is_base: Bool[Tensor, " names"] | None = None,
        objectness: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n k"]:
        """Return the scores of boxes; the first column is the background."""
        p, z = detector.log_softmax(1), words.log_softmax(1)
        names = torch.zeros(p.shape[1] - 1, dtype=torch.bool, device=p.device) if is_base is None else is_base
        w = torch.where(names, self.alpha, self.beta).to(p)
        both = torch.cat([p[:, :1], (1 - w) * p[:, 1:] + w * z[:, 1:]], 1)
        scores = both.softmax(1)
        return scores if objectness is None or not self.objectness else scores * objectness[:, None] ** self.objectness


def shrunk(boxes: Float[Tensor, "n 4"], part: float) -> Float[Tensor, "n 4"]:
    """Scale the sides of boxes around their centres."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (part / 2)
    return torch.cat([middle - half, middle + half], 1)
