"""Objectives that also compare parts: words with the regions they attend to, sentences with their own regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from ...bounds import Count, NotNegative, Part, Positive
from . import objectives
from .contrastive import BLOCK, Fixed, LearntScale, Regional, Regions, Said, Temperature, Words


@objectives.register
@dataclass(frozen=True)
class GLoRIA(Regional):
    """Whole pictures and whole texts must find one another, and so must words and the regions they attend to.

    ``s_ij = scale cos(image_i, text_j)``; ``loss = mean_i CE(s_i·, i) + mean_j CE(s_·j, j)`` of the whole, and
    ``local_weight`` times that of the parts (``local``): with ``a`` the products of words and regions, after a softmax
    over words, a second over regions of ``attention_scale a`` weighs the regions into a context ``c_t`` for each word
    ``w_t``, and ``log sum_t exp(word_scale cos(c_t, w_t))`` takes the place of the cosine (sections 3.2 and 3.3).

    Every picture is held against the words of every text: the cost grows with the square of the batch times words times
    regions. It is made in blocks of texts, so that memory does not.

    Equal to the authors' ``global_loss`` and ``local_loss``, attention included, but for their reading one token more
    than there are words. There a layer of its own makes the vectors of regions; here a tower's projection does.

    Args:
        attention_scale: of words over regions; the authors' ``temp1``, 4.
        word_scale: of a word's likeness with what it attends to; the authors' ``temp2``, 5.
        scale: of likenesses of both parts; the authors' ``temp3``, 10. None of them is learnt.
        local_weight: of the parts beside the whole; the authors' 1.
        spans: what is drawn of a report, ``"sentence"`` as the authors do, or ``"text"`` for the whole.

    Example:
        >>> regions = torch.eye(2)[:, None].repeat(1, 3, 1)
        >>> round(float(GLoRIA(scale=1.0).local(regions, torch.eye(2)[:, None])), 4)  # 2 log(1 + exp(-5))
        0.0134
    """

    name: ClassVar[str] = "gloria"
    paper: ClassVar[str] = "Huang et al. 2021, ICCV, GLoRIA"
    needs: ClassVar[str] = "pictures with a report each; regions and words"
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
        """``word_scale cos(c_t, w_t)`` of each word with what it gathers, and its attention, 1 over all regions."""
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
    """Each picture must find several sentences of its captions, each of them the picture, and each its own regions.

    ``s_ij = exp(theta) cos(image_i, text_jk)`` for the k-th of the sentences drawn; ``loss = mean_k (mean_i CE(s_i·, i)
    + mean_j CE(s_·j, j)) / 2``: sentences of one picture never compete (section 3.2). Beside it ``local_weight`` times
    the grouping loss (``local``, section 3.3): the group ``v_k`` of a sentence is the mean of the regions by its
    cosines with them, stretched to [0, 1] and left out below ``sigma``; the loss is the mean of ``CE(exp(theta)
    cos(v_k, t_·), k)`` and of the same with both sides changed, over sentences. ``theta`` is learnt.

    Equal to the plain softmax path of the authors' code, which divides by ``n_texts`` what the paper adds up. Their
    grouping code mixes sentences of several pictures and compares all groups of the batch; here, as in the paper, a
    sentence is compared with the groups of its own picture alone, and equal to theirs for one picture. Their circle
    loss is not in the paper and not here. Costs ``n_texts`` passes of the text tower.

    Args:
        n_texts: drawn of a picture at every step; the authors' 6.
        sigma: stretched cosine below which a region is no part of a group; the authors' 0.1.
        local_weight: of the grouping; the authors' 1.
        spans: what is drawn: sentences and the captions they are from, ``"both"``; or one of them.

    Example:
        >>> regions, sentences = 3 * torch.eye(3)[None], torch.eye(3)[None, :2]
        >>> DreamLIP(sigma=0.5).groups(regions, sentences)[0].tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """

    name: ClassVar[str] = "dreamlip"
    paper: ClassVar[str] = "Zheng et al. 2024, arXiv:2403.17007"
    needs: ClassVar[str] = "pictures with long captions, or several; regions"
    parts = "texts"
    across: ClassVar[bool] = False

    n_texts: Count = 6
    sigma: Part = 0.1
    local_weight: NotNegative = 1.0
    spans: Literal["text", "sentence", "both"] = "both"

    def groups(self, regions: Regions, texts: Float[Tensor, "b k d"]) -> Float[Tensor, "b k r"]:
        """How much each region belongs to each sentence; sums to 1 over regions, differentiable."""
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
