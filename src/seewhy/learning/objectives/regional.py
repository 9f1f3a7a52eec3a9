"""Objectives that compare regions of a picture with words or sentences, or with regions of another view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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
    """Contrastive loss between pictures and reports, and between words and the regions that match them.

        s_ij = scale cos(image_i, text_j)
        loss = mean_i CE(s_i·, i) + mean_j CE(s_·j, j) + local_weight · local

    ``local`` is the same loss with another score (sections 3.2 and 3.3):

        s_ij = scale log sum_t exp(word_scale cos(c_t, w_t))

    * ``CE(s, i)``: cross entropy of the scores ``s`` if ``i`` is correct.
    * ``w_t``: vector of word ``t`` of text ``j``.
    * ``c_t``: mean of the regions of picture ``i``, weighted by ``softmax(attention_scale a_t)``.
    * ``a_t``: for each region, the softmax over words of its dot product with word ``t``.

    The losses equal the authors' ``global_loss`` and ``local_loss``, except that the authors also include a special
    token among the words. Where SeeWhy differs: the image encoder's projection is used for regions; the authors' code
    has a separate layer.

    The time is proportional to the squared batch size, the number of words and the number of regions. Memory is
    bounded.

    Args:
        attention_scale: factor on the similarity of words and regions (authors: ``temp1``, 4); not learnt.
        word_scale: factor on the similarity of a word and its attended regions (authors: ``temp2``, 5); not learnt.
        scale: factor on the scores of both losses (authors: ``temp3``, 10); not learnt.
        local_weight: weight of the local loss, at least 0 (authors: 1).
        spans: text to draw from a report: one ``"sentence"`` (authors), or the whole ``"text"``.
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
        """Return the scaled cosine of each word with its weighted mean of regions, and the attention weights."""
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
        anew = partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
        found = [block(i) if len(starts) == 1 else anew(i) for i in starts]
        scores, own = state(torch.cat(found, 1)), torch.arange(b, device=words.device)
        return cross_entropy(scores, own) + cross_entropy(scores.T, own)


@objectives.register
@dataclass(frozen=True)
class DreamLIP(LearntScale, Regional):
    """Contrastive loss between pictures and several sentences per picture, and between sentences and regions.

        s_ijk = exp(theta) cos(image_i, text_jk)
        loss  = mean_k (mean_i CE(s_i·k, i) + mean_j CE(s_·jk, j)) / 2 + local_weight · local
        local = mean_k (CE(exp(theta) cos(v_k, t_·), k) + CE(exp(theta) cos(v_·, t_k), k)) / 2

    * ``CE(s, i)``: cross entropy of the scores ``s`` if ``i`` is correct.
    * ``text_jk``: ``k``-th sentence drawn for picture ``j``. Sentences of the same picture are not compared (section
      3.2).
    * ``t_k``: vector of sentence ``k`` of a picture.
    * ``v_k``: mean of the picture's regions. The weights of the regions are the cosines with ``t_k``, scaled to [0, 1]
      and set to 0 below ``sigma`` (section 3.3).
    * ``theta``: logarithm of the scale, learnt.

    The loss equals the softmax form of the authors' code, which divides the paper's sum by ``n_texts``. As in the
    paper, ``local`` compares sentences and regions of the same picture; the authors' code also compares those of
    different pictures. The circle loss of the authors' code, which is not in the paper, is left out. A step takes
    ``n_texts`` passes of the text encoder.

    Args:
        n_texts: number of texts drawn per picture and step (authors: 6).
        sigma: scaled cosine below which a region gets no weight, 0 to 1 (authors: 0.1).
        local_weight: weight of the local loss, at least 0 (authors: 1).
        spans: texts to draw: sentences, whole captions, or ``"both"``.

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
        """Return the weights of the regions for each sentence; the weights of a sentence sum to 1."""
        near = normalize(texts, dim=2) @ normalize(regions, dim=2).transpose(1, 2)
        least, most = near.amin(2, keepdim=True), near.amax(2, keepdim=True)
        # If all similarities are equal, all weights are 1.
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
    """Pixel propagation: each patch becomes a mean of the transformed patches of its view, weighted by similarity."""

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
    """Return ``max(cos(x_i, x_j), 0) ^ gamma`` between all patches."""
    unit = normalize(cells, dim=1).flatten(2)
    cosine = torch.einsum("bdi,bdj->bij", unit, unit).clamp_min(0.0)
    # The gradient of a square root is infinite at 0.
    return (cosine + EPSILON if gamma < 1 else cosine) ** gamma


@objectives.register
@dataclass(frozen=True)
class PixPro(Dense):
    """Agreement between patches of two views that show the same part of the picture (pixel propagation).

        y_i  = sum_j max(cos(x_i, x_j), 0)^gamma g(x_j)
        loss = -2 mean cos(y_i, x'_j)

    * ``x``, ``x'``: projected feature maps of two views; ``x'`` is computed by the moving average of the network.
    * ``y``: the map ``x`` after propagation.
    * ``g``: learnt layer.
    * ``i``, ``j``: patches. The loss is over pairs whose centres are nearer than ``threshold`` times the diagonal of
      the larger patch.

    Follows equations 1 and 3 of the paper. The loss is summed over both orders of the views, so its minimum is -4.
    Views that do not overlap contribute 0. ``form="plain"`` uses ``y_i = g(x_i)``. ``form="contrast"`` is PixContrast
    (equation 2), where ``P(i)`` are the patches of the other view that match patch ``i``:

        loss_i = -log(sum_{j in P(i)} exp(cos(x_i, x'_j) / temperature) / sum_j exp(cos(x_i, x'_j) / temperature))

    For the same boxes, the losses equal the authors' ``featprop``, ``regression_loss`` and instance loss. Where SeeWhy
    differs: positions are measured between the edges of pixels, and in the authors' code between pixel centres (``1 /
    (W - 1)``). This changes 0.7 % of the patch pairs for random crops of 500 x 375 pixels and 7 x 7 patches.

    Args:
        form: ``"propagation"``, ``"plain"`` or ``"contrast"``.
        threshold: largest distance between matching patches, in diagonals of the larger patch (paper: 0.7).
        gamma: exponent of the similarity (paper: 2); 0 averages over the whole view.
        temperature: temperature of PixContrast (paper: 0.3).
        cell_weight: weight of the loss on patches, at least 0.
        instance_weight: weight of the same loss on pooled views, at least 0 (published runs: 0; with the paper's
            instance loss: 1).
        momentum: momentum of the moving average at the start, 0 to 1 (authors: 0.99); it increases to 1.
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
            raise self.refusal(
                "cell_weight", "instance_weight", expected="cell_weight or instance_weight must be greater than 0"
            )

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
    """Return the PixContrast loss, averaged over patches with a match, then over pictures."""
    has = pairs.any(2)
    # For a cell without a match, take all cells: the loss is 0 and the gradient is finite.
    taken = torch.where(has[:, :, None], pairs, True)
    costs = scores.logsumexp(2) - scores.masked_fill(~taken, float("-inf")).logsumexp(2)
    return (costs.sum(1) / has.sum(1).clamp_min(1)).mean()


def centres(boxes: Boxes, flipped: Flipped, height: int, width: int) -> Float[Tensor, "v b cells 2"]:
    """Return the centre (x, y) of every patch, as fractions of the original picture, row by row."""
    across = (torch.arange(width, device=boxes.device) + 0.5) / width
    down = (torch.arange(height, device=boxes.device) + 0.5) / height
    left, top, right, bottom = (boxes[..., i, None] for i in range(4))
    share = torch.where(flipped[..., None], 1 - across, across)
    x = (left + (right - left) * share)[:, :, None, :].expand(-1, -1, height, -1)
    y = (top + (bottom - top) * down)[:, :, :, None].expand(-1, -1, -1, width)
    return torch.stack([x, y], -1).flatten(2, 3)


def apart(boxes: Boxes, flipped: Flipped, height: int, width: int) -> Float[Tensor, "b cells cells"]:
    """Return the distance between every two patches of two views, in diagonals of the larger patch."""
    first, second = centres(boxes, flipped, height, width)
    cells = (boxes[..., 2:] - boxes[..., :2]) / boxes.new_tensor([width, height])
    diagonal = cells.norm(dim=-1).amax(0)
    return (first[:, :, None] - second[:, None]).norm(dim=-1) / diagonal[:, None, None]
