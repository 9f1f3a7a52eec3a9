"""DreamLIP's objective (Zheng et al. 2024, arXiv 2403.17007): sentences of long captions, each with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...bounds import Count, NotNegative, Part
from . import objectives
from .contrastive import Learnt, LearntScale, Local, Regional, Regions, Said, Temperature, Words


@dataclass(frozen=True)
class Grouping(Local):
    """The local part: each sentence's own group of regions must be told from those of the picture's other sentences.

    Cosines of a sentence with the regions, stretched to [0, 1] over regions and left out below ``sigma``, are weights
    with the sum 1; the group ``v_k`` is the mean of the regions by them. ``loss`` is the mean of ``CE(exp(theta)
    cos(v_k, t_·), k)`` and of the same with both sides changed, over sentences.

    Example:
        >>> regions, sentences = 3 * torch.eye(3)[None], torch.eye(3)[None, :2]
        >>> Grouping(sigma=0.5).groups(regions, sentences)[0].tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """

    name: ClassVar[str] = "dreamlip"
    across: ClassVar[bool] = False

    temperature: float = 0.07
    max_scale: float = 100.0
    sigma: float = 0.1

    def state(self) -> Temperature:
        return Learnt(1 / self.temperature, self.max_scale)

    def groups(self, regions: Regions, texts: Float[Tensor, "b k d"]) -> Float[Tensor, "b k r"]:
        """How much each region belongs to each sentence; sums to 1 over regions, differentiable."""
        near = normalize(texts, dim=2) @ normalize(regions, dim=2).transpose(1, 2)
        least, most = near.amin(2, keepdim=True), near.amax(2, keepdim=True)
        # Where all regions are alike none stands out, and all belong.
        part = torch.where(most > least, (near - least) / (most - least + 1e-10), 1.0)
        part = torch.where(part < self.sigma, 0.0, part)
        return part / part.sum(2, keepdim=True)

    def loss(self, regions: Regions, words: Words, said: Said, state: nn.Module) -> Float[Tensor, ""]:
        group = normalize(self.groups(regions, words) @ normalize(regions, dim=2), dim=2)
        scores = state(group @ normalize(words, dim=2).transpose(1, 2))
        total = scores.new_zeros(())
        for rows in (scores, scores.transpose(1, 2)):
            columns = rows.masked_fill(~said[:, None], float("-inf"))
            total = total - columns.log_softmax(2).diagonal(dim1=1, dim2=2)[said].mean() / 2
        return total


@objectives.register
@dataclass(frozen=True)
class DreamLIP(LearntScale, Regional):
    """Each picture must find several sentences of its captions, each of them the picture, and each its own regions.

    ``s_ij = exp(theta) cos(image_i, text_jk)`` for the k-th of the sentences drawn; ``loss = mean_k (mean_i CE(s_i·, i)
    + mean_j CE(s_·j, j)) / 2``: sentences of one picture never compete (section 3.2). Beside it ``local_weight`` times
    the grouping loss of sentences with regions (``local``, section 3.3). ``theta`` is learnt.

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
        >>> pictures, sentences = torch.eye(2), torch.eye(2)[:, None].repeat(1, 3, 1)
        >>> round(float(DreamLIP(temperature=1.0)(pictures, sentences)), 4)  # log(1 + exp(-1))
        0.3133
    """

    name: ClassVar[str] = "dreamlip"
    paper: ClassVar[str] = "Zheng et al. 2024, arXiv:2403.17007"
    needs: ClassVar[str] = "pictures with long captions, or several; regions"
    parts = "texts"

    n_texts: Count = 6
    sigma: Part = 0.1
    local_weight: NotNegative = 1.0
    spans: Literal["text", "sentence", "both"] = "both"

    def local(self) -> Grouping:
        return Grouping(self.temperature, self.max_scale, self.sigma)
