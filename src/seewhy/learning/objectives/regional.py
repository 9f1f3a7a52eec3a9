"""Objectives that compare parts: words with regions, sentences with their regions, or cells of two views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from ...bounds import Count, NotNegative, Part, Positive
from . import objectives
from .contrastive import BLOCK, Fixed, LearntScale, Regional, Regions, Said, Temperature, Words
from .pictures import Boxes, Dense, Flipped, Maps


@objectives.register
@dataclass(frozen=True)
class GLoRIA(Regional):
    """Pictures and reports must find one another, and so must words and the regions they attend to.

    ``s_ij = scale cos(image_i, text_j)``; ``loss = mean_i CE(s_i·, i) + mean_j CE(s_·j, j)``, plus ``local_weight``
    times the same loss for parts (``local``, sections 3.2 and 3.3). For the parts, ``a`` are the products of words
    and regions, after a softmax over words. A second softmax over regions of ``attention_scale a`` weighs the regions
    into a context ``c_t`` for each word ``w_t``, and ``log sum_t exp(word_scale cos(c_t, w_t))`` replaces the cosine.

    Every picture is compared with the words of every text: the cost grows with the square of the batch, times words,
    times regions. Blocks of texts bound the memory.

    Equal to the authors' ``global_loss`` and ``local_loss``, attention included, except that theirs include one token
    more than the words. Their code has a layer for the vectors of regions; here the image encoder's projection makes
    them.

    Args:
        attention_scale: factor on the similarity of words and regions (authors: ``temp1``, 4).
        word_scale: factor on the similarity of a word and its attended regions (authors: ``temp2``, 5).
        scale: factor on the similarities of both parts (authors: ``temp3``, 10). None of the three is learnt.
        local_weight: weight of parts beside the whole, from 0 (authors: 1).
        spans: part of a report to draw: ``"sentence"`` (authors), or ``"text"`` for all of it.
    """

    name: ClassVar[str] = "gloria"
    paper: ClassVar[str] = "Huang et al. 2021, ICCV, GLoRIA"
    needs: ClassVar[str] = "pictures with a report each; an encoder that gives regions and words"
    parts = "words"

    attention_scale: Positive = 4.0
    word_scale: Positive = 5.0
    scale: Positive = 10.0
    local_weight: NotNegative = 1.0
    spans: Literal["sentence", "text"] = "sentence"

    def state(self) -> Temperature:
        return Fixed(self.scale)

    def weights(self) -> tuple[float, float]:
        return 1.0, 1.0

    def near(
        self, regions: Regions, words: Float[Tensor, "c t d"], said: Tensor
    ) -> tuple[Float[Tensor, "b c t"], Float[Tensor, "b c t r"]]:
        """Return ``word_scale cos(c_t, w_t)`` of each word with its attended regions, and its attention, which sums
        to 1 over regions.
        """
        products = torch.einsum("brd,ctd->bctr", regions, words)
        among = products.masked_fill(~said[:, :, None], float("-inf")).softmax(2)
        attention = (self.attention_scale * among).softmax(3)
        context = torch.einsum("bctr,brd->bctd", attention, regions)
        return self.word_scale * cosine_similarity(context, words[None], dim=3), attention

    def local_loss(self, regions: Regions, words: Words, said: Said, state: nn.Module) -> Float[Tensor, ""]:
        b, t = said.shape
        size = max(1, BLOCK // (b * t * max(regions.shape[1:])))

        def block(start: int) -> Tensor:
            part = slice(start, start + size)
            near, _ = self.near(regions, words[part], said[part])
            return near.masked_fill(~said[part], float("-inf")).logsumexp(2)

        starts = range(0, b, size)
        found = [block(i) if len(starts) == 1 else checkpoint(block, i, use_reentrant=False) for i in starts]
        scores, own = state(torch.cat(found, 1)), torch.arange(b, device=words.device)
        return cross_entropy(scores, own) + cross_entropy(scores.T, own)


@objectives.register
@dataclass(frozen=True)
class DreamLIP(LearntScale, Regional):
    """Each picture must find several sentences of its captions, and each sentence must find the picture and its own
    regions.

    ``s_ij = exp(theta) cos(image_i, text_jk)`` for the k-th sentence drawn; ``loss = mean_k (mean_i CE(s_i·, i) +
    mean_j CE(s_·j, j)) / 2``, so sentences of one picture never compete (section 3.2). ``theta`` is learnt. The
    grouping loss (``local``, section 3.3) is added with weight ``local_weight``. The group ``v_k`` of a sentence is
    the mean of the regions weighted by their cosines with it, scaled to [0, 1] and set to 0 below ``sigma``. The loss
    is the mean over sentences of ``CE(exp(theta) cos(v_k, t_·), k)`` and of the same in the other direction.

    Equal to the plain softmax path of the authors' code, which divides the paper's sum by ``n_texts``. Their grouping
    code mixes sentences of several pictures and compares all groups of the batch; here, as in the paper, a sentence
    is compared with the groups of its own picture. For one picture both are equal. Their circle loss is not in the
    paper, and SeeWhy leaves it out. Cost: ``n_texts`` passes of the text encoder.

    Args:
        n_texts: texts drawn per picture and step (authors: 6).
        sigma: stretched cosine below which a region belongs to no group, 0 to 1 (authors: 0.1).
        local_weight: weight of the grouping, from 0 (authors: 1).
        spans: what to draw: sentences, whole captions, or ``"both"``.

    Example:
        >>> regions, sentences = 3 * torch.eye(3)[None], torch.eye(3)[None, :2]
        >>> DreamLIP(sigma=0.5).groups(regions, sentences)[0].tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """

    name: ClassVar[str] = "dreamlip"
    paper: ClassVar[str] = "Zheng et al. 2024, arXiv:2403.17007"
    needs: ClassVar[str] = "pictures with long or several captions; an encoder that gives regions"
    parts = "texts"
    across: ClassVar[bool] = False

    n_texts: Count = 6
    sigma: Part = 0.1
    local_weight: NotNegative = 1.0
    spans: Literal["text", "sentence", "both"] = "both"

    def groups(self, regions: Regions, texts: Float[Tensor, "b k d"]) -> Float[Tensor, "b k r"]:
        """Return how much each region belongs to each sentence; sums to 1 over regions, differentiable."""
        near = normalize(texts, dim=2) @ normalize(regions, dim=2).transpose(1, 2)
        least, most = near.amin(2, keepdim=True), near.amax(2, keepdim=True)
        # Where all regions are alike none stands out, and all belong.
        part = torch.where(most > least, (near - least) / (most - least + 1e-10), 1.0)
        part = torch.where(part < self.sigma, 0.0, part)
        return part / part.sum(2, keepdim=True)

    def local_loss(self, regions: Regions, words: Words, said: Said, state: nn.Module) -> Float[Tensor, ""]:
        group = normalize(self.groups(regions, words) @ normalize(regions, dim=2), dim=2)
        scores = state(group @ normalize(words, dim=2).transpose(1, 2))
        total = scores.new_zeros(())
        for rows in (scores, scores.transpose(1, 2)):
            columns = rows.masked_fill(~said[:, None], float("-inf"))
            total = total - columns.log_softmax(2).diagonal(dim1=1, dim2=2)[said].mean() / 2
        return total


EPSILON = 1e-6


class Propagation(nn.Module):
    """Replaces each cell by a mean of transformed cells of its own view, weighted by their similarity to it."""

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
    """Return ``max(cos(x_i, x_j), 0) ^ gamma`` of all cells of a map; a cell's row shows where the picture is similar
    to it.
    """
    unit = normalize(cells, dim=1).flatten(2)
    cosine = torch.einsum("bdi,bdj->bij", unit, unit).clamp_min(0.0)
    # A root has no slope at 0.
    return (cosine + EPSILON if gamma < 1 else cosine) ** gamma


@objectives.register
@dataclass(frozen=True)
class PixPro(Dense):
    """The same place of a picture must agree between two crops, each smoothed over similar places of its crop.

    ``x`` and ``x'`` are the projected maps of two views, ``x'`` from the slow branch. ``y_i = sum_j max(cos(x_i, x_j),
    0)^gamma g(x_j)``, with ``g`` one learnt layer (equation 3). A pair ``(i, j)`` counts if the centres lie nearer in
    the picture than ``threshold`` times the diagonal of the larger cell (equation 1). ``loss = -2 mean cos(y_i, x'_j)``
    over the pairs of a picture, then over pictures; with both orders at best -4. Views that share no place give 0.

    ``form="contrast"`` is PixContrast (equation 2): ``-log`` of the share of a cell's pairs in ``sum_j exp(cos(x_i,
    x'_j) / temperature)`` over all cells of the other view, averaged over cells with a pair, without ``g`` and
    propagation. ``form="plain"`` is ``y_i = g(x_i)``.

    Equal to the authors' ``featprop``, ``regression_loss`` and instance loss, given the same boxes. They count
    fractions from the first pixel to the last (``1 / (W - 1)``), SeeWhy from edge to edge. This changes 0.7 % of the
    pairs of random crops of 500 x 375 pixels in 7 x 7 cells, on the threshold. PixContrast follows the paper alone.

    Args:
        form: how to combine cells: ``"propagation"``, ``"plain"`` or ``"contrast"``.
        threshold: largest distance of two cells that match (paper: 0.7).
        gamma: exponent of the similarity (paper: 2); at 0 every cell becomes the whole crop.
        temperature: temperature of PixContrast (paper: 0.3).
        cell_weight: weight of cells, from 0; 0 trains on whole views alone, as a control.
        instance_weight: weight of whole views beside cells (published runs: 0; the paper's combination: 1). It is
            ``-2 cos`` of a predicted pooled vector and that of the slow branch, both ways.
        momentum: momentum of the slow branch at the start, 0 to 1; it rises to 1 (authors: 0.99).
    """

    name: ClassVar[str] = "pixpro"
    spelt: ClassVar[str] = "PixPro"
    paper: ClassVar[str] = "Xie et al. 2021, CVPR, arXiv:2011.10043"
    needs: ClassVar[str] = "pictures"
    cost: ClassVar[str] = "1, of a slow copy"

    form: Literal["propagation", "plain", "contrast"] = "propagation"
    threshold: Positive = 0.7
    gamma: NotNegative = 2.0
    temperature: Positive = 0.3
    cell_weight: NotNegative = 1.0
    instance_weight: NotNegative = 0.0
    momentum: Part = 0.99

    def check(self) -> None:
        if not self.cell_weight + self.instance_weight:
            raise self.refusal("cell_weight", "instance_weight", expected="at least one of the two above 0")

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
    """Return the centre of each cell in the upright picture: x and y as fractions, cells row by row."""
    across = (torch.arange(width, device=boxes.device) + 0.5) / width
    down = (torch.arange(height, device=boxes.device) + 0.5) / height
    left, top, right, bottom = (boxes[..., i, None] for i in range(4))
    share = torch.where(flipped[..., None], 1 - across, across)
    x = (left + (right - left) * share)[:, :, None, :].expand(-1, -1, height, -1)
    y = (top + (bottom - top) * down)[:, :, :, None].expand(-1, -1, -1, width)
    return torch.stack([x, y], -1).flatten(2, 3)


def apart(boxes: Boxes, flipped: Flipped, height: int, width: int) -> Float[Tensor, "b cells cells"]:
    """Return distances between the cells of two views, in diagonals of the larger cell."""
    first, second = centres(boxes, flipped, height, width)
    cells = (boxes[..., 2:] - boxes[..., :2]) / boxes.new_tensor([width, height])
    diagonal = cells.norm(dim=-1).amax(0)
    return (first[:, :, None] - second[:, None]).norm(dim=-1) / diagonal[:, None, None]
