"""PixPro's objective (Xie et al. 2020): the same spot of a picture, seen in two crops, must agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...bounds import NotNegative, Part, Positive
from . import objectives
from .pictures import Boxes, Dense, Flipped, Maps

EPSILON = 1e-6


class Propagation(nn.Module):
    """Each cell becomes a mean of transformed cells of its own view, weighed by how like they are to it."""

    def __init__(self, width: int, gamma: float | None) -> None:
        super().__init__()
        self.transform, self.gamma = nn.Conv2d(width, width, 1), gamma

    def forward(self, cells: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        values: Tensor = normalize(self.transform(cells), dim=1)
        if self.gamma is None:
            return values
        weights = likeness(cells, self.gamma)
        return torch.einsum("bij,bdj->bdi", weights, values.flatten(2)).view_as(cells)


def likeness(cells: Float[Tensor, "b d h w"], gamma: float) -> Float[Tensor, "b cells cells"]:
    """``max(cos(x_i, x_j), 0) ^ gamma`` of all cells of a map; a cell's row says where the picture is like it.

    >>> cells = torch.tensor([[[[1.0, 0.6, -1.0]], [[0.0, 0.8, 0.0]]]])
    >>> [round(v, 2) for v in likeness(cells, 2.0)[0, 0].tolist()]
    [1.0, 0.36, 0.0]
    """
    unit = normalize(cells, dim=1).flatten(2)
    cosine = torch.einsum("bdi,bdj->bij", unit, unit).clamp_min(0.0)
    # A root has no slope at 0.
    return (cosine + EPSILON if gamma < 1 else cosine) ** gamma


@objectives.register
@dataclass(frozen=True)
class PixPro(Dense):
    """The same spot of a picture must agree between two crops of it, each smoothed over what is like it in its crop.

    With ``x`` and ``x'`` the projected maps of two views, ``x'`` from the slow branch, ``y_i = sum_j max(cos(x_i,
    x_j), 0)^gamma g(x_j)``, ``g`` one learnt layer (equation 3), and the pairs ``(i, j)`` whose centres lie nearer in
    the picture than ``threshold`` times the diagonal of the larger cell (equation 1), ``loss = -2 mean cos(y_i, x'_j)``
    over the pairs of a picture, then over pictures; of both orders at best -4. Views without a spot in common give 0.

    ``form="contrast"`` is PixContrast (equation 2): ``-log`` of the share of a cell's pairs in ``sum_j exp(cos(x_i,
    x'_j) / temperature)`` over all cells of the other view, mean over cells that have a pair; no ``g``, no propagation.
    ``form="plain"`` is ``y_i = g(x_i)``.

    Equal to the authors' ``featprop``, ``regression_loss`` and instance loss, given the same boxes. They keep a
    mirrored box with left and right exchanged; here it is upright with a mark beside it, which gives the same places.
    They count fractions from the first pixel to the last (``1 / (W - 1)``); here a box goes from edge to edge, which
    decides otherwise on 0.7 % of the pairs of random crops of 500 x 375 pixels in 7 x 7 cells, those on the threshold.
    PixContrast they did not publish: it follows the paper.

    Args:
        form: what is made of cells: ``"propagation"``, ``"plain"`` or ``"contrast"``.
        threshold: of the distance; the paper's 0.7.
        gamma: exponent of the likeness; the paper's 2. At 0 every cell becomes the whole crop.
        temperature: of PixContrast; the paper's 0.3.
        cell_weight: of cells; 0 leaves whole views alone, the control.
        instance_weight: of whole views beside cells: ``-2 cos`` of a predicted pooled vector and the slow branch's,
            both ways; the published runs' 0, the paper's combination 1.
        momentum: of the slow branch at first, which rises to 1; the authors' 0.99.

    Example:
        >>> maps = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # two cells that have nothing in common
        >>> boxes, flipped = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]] * 2), torch.zeros(2, 1).bool()
        >>> contrast = PixPro(form="contrast", threshold=0.4)
        >>> round(float(contrast(maps, maps, boxes, flipped)), 4)  # log(1 + exp(-1 / 0.3))
        0.0351
    """

    name: ClassVar[str] = "pixpro"
    spelt: ClassVar[str] = "PixPro"
    paper: ClassVar[str] = "Xie et al. 2021, CVPR, arXiv:2011.10043"
    needs: ClassVar[str] = "pictures alone; two views of each with their boxes"
    cost: ClassVar[str] = "1, of the slow branch"

    form: Literal["propagation", "plain", "contrast"] = "propagation"
    threshold: Positive = 0.7
    gamma: NotNegative = 2.0
    temperature: Positive = 0.3
    cell_weight: NotNegative = 1.0
    instance_weight: NotNegative = 0.0
    momentum: Part = 0.99

    def check(self) -> None:
        if not self.cell_weight + self.instance_weight:
            raise self.refusal("cell_weight", "instance_weight", expected="One of two weights above zero was")

    def state(self, width: int) -> nn.Module:
        if self.form == "contrast":
            return nn.Identity()
        return Propagation(width, self.gamma if self.form == "propagation" else None)

    def loss(self, first: Maps, second: Maps, boxes: Boxes, flipped: Flipped, state: nn.Module) -> Float[Tensor, ""]:
        pairs = apart(boxes, flipped, *first.shape[2:]) < self.threshold
        rows, columns = (normalize(side, dim=1).flatten(2) for side in (state(first), second))
        cosine = torch.einsum("bdi,bdj->bij", rows, columns)
        if self.form == "contrast":
            return _contrast(cosine / self.temperature, pairs)
        agreement = (cosine * pairs).sum((1, 2)) / (pairs.sum((1, 2)) + EPSILON)
        return -2 * agreement.mean()

    def whole(self, first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        return -2 * (normalize(first, dim=1) * normalize(second, dim=1)).sum(1).mean()


def _contrast(scores: Float[Tensor, "b i j"], pairs: Bool[Tensor, "b i j"]) -> Float[Tensor, ""]:
    """Over cells that have a pair, then over pictures."""
    has = pairs.any(2)
    # All of what a cell without a pair sees is taken: it costs 0, and its slope is a number.
    taken = torch.where(has[:, :, None], pairs, True)
    costs = scores.logsumexp(2) - scores.masked_fill(~taken, float("-inf")).logsumexp(2)
    return (costs.sum(1) / has.sum(1).clamp_min(1)).mean()


def centres(boxes: Boxes, flipped: Flipped, height: int, width: int) -> Float[Tensor, "v b cells 2"]:
    """Where the middle of each cell lies in the upright picture: x and y as fractions, cells row by row."""
    across = (torch.arange(width, device=boxes.device) + 0.5) / width
    down = (torch.arange(height, device=boxes.device) + 0.5) / height
    left, top, right, bottom = (boxes[..., i, None] for i in range(4))
    share = torch.where(flipped[..., None], 1 - across, across)
    x = (left + (right - left) * share)[:, :, None, :].expand(-1, -1, height, -1)
    y = (top + (bottom - top) * down)[:, :, :, None].expand(-1, -1, -1, width)
    return torch.stack([x, y], -1).flatten(2, 3)


def apart(boxes: Boxes, flipped: Flipped, height: int, width: int) -> Float[Tensor, "b cells cells"]:
    """How far the cells of a first view lie from those of a second, in diagonals of the larger cell of the two.

    >>> boxes, flipped = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]] * 2), torch.tensor([[False], [True]])
    >>> [[round(v, 2) for v in row] for row in apart(boxes, flipped, 1, 2)[0].tolist()]
    [[0.45, 0.0], [0.0, 0.45]]
    """
    first, second = centres(boxes, flipped, height, width)
    cells = (boxes[..., 2:] - boxes[..., :2]) / boxes.new_tensor([width, height])
    diagonal = cells.norm(dim=-1).amax(0)
    return (first[:, :, None] - second[:, None]).norm(dim=-1) / diagonal[:, None, None]
