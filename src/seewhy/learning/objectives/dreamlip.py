"""DreamLIP's objective (Zheng et al. 2024, arXiv 2403.17007): sentences of long captions, each with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ...errors import InputError
from . import objectives
from .contrastive import Learnt, Temperature
from .local import Local, Regional
from .spans import Span


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

    def groups(self, regions: Float[Tensor, "b r d"], texts: Float[Tensor, "b k d"]) -> Float[Tensor, "b k r"]:
        """How much each region belongs to each sentence; sums to 1 over regions, differentiable."""
        near = normalize(texts, dim=2) @ normalize(regions, dim=2).transpose(1, 2)
        least, most = near.amin(2, keepdim=True), near.amax(2, keepdim=True)
        # Where all regions are alike none stands out, and all belong.
        part = torch.where(most > least, (near - least) / (most - least + 1e-10), 1.0)
        part = torch.where(part < self.sigma, 0.0, part)
        return part / part.sum(2, keepdim=True)

    def loss(
        self,
        regions: Float[Tensor, "b r d"],
        words: Float[Tensor, "b t d"],
        said: Bool[Tensor, "b t"],
        state: nn.Module,
    ) -> Float[Tensor, ""]:
        group = normalize(self.groups(regions, words) @ normalize(regions, dim=2), dim=2)
        scores = state(group @ normalize(words, dim=2).transpose(1, 2))
        lost = scores.new_zeros(())
        for one in (scores, scores.transpose(1, 2)):
            columns = one.masked_fill(~said[:, None], float("-inf"))
            lost = lost - columns.log_softmax(2).diagonal(dim1=1, dim2=2)[said].mean() / 2
        return lost


@objectives.register
@dataclass(frozen=True)
class DreamLIP(Regional):
    """Each picture must find several sentences of its captions, each of them the picture, and each its own regions.

    ``s_ij = exp(theta) cos(image_i, text_jk)`` for the k-th of the sentences drawn; ``loss = mean_k (mean_i CE(s_i·, i)
    + mean_j CE(s_·j, j)) / 2``: sentences of one picture never compete (section 3.2). Beside it ``local_weight`` times
    the grouping loss of sentences with regions (``local``, section 3.3). ``theta`` is learnt.

    Equal to the plain softmax path of the authors' code, which divides by ``n_texts`` what the paper adds up. Their
    grouping code mixes sentences of several pictures and compares all groups of the batch; here, as in the paper, a
    sentence is compared with the groups of its own picture alone, and equal to theirs for one picture. Their circle
    loss is not in the paper and not here. Costs ``n_texts`` passes of the text tower.

    Args:
        temperature: at first, ``exp(-theta)``; the paper's 0.07.
        n_texts: drawn of a picture at every step; the authors' 6.
        sigma: stretched cosine below which a region is no part of a group; the authors' 0.1.
        local_weight: of the grouping; the authors' 1.
        max_scale: of ``exp(theta)``; CLIP's 100.
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

    temperature: float = 0.07
    n_texts: int = 6
    sigma: float = 0.1
    local_weight: float = 1.0
    max_scale: float = 100.0
    spans: Span = "both"

    def __post_init__(self) -> None:
        fits = Learnt.takes(self.temperature, self.max_scale)
        grouped = 0 <= self.sigma <= 1 and 0 <= self.local_weight < float("inf") and self.n_texts >= 1
        if not fits or not grouped or self.spans not in ("text", "sentence", "both"):
            raise InputError(
                f"The objective dreamlip was given temperature={self.temperature:g}, n_texts={self.n_texts}, "
                f"sigma={self.sigma:g}, local_weight={self.local_weight:g}, max_scale={self.max_scale:g}, "
                f"spans={self.spans!r}. A scale from 1, a temperature between its inverse and 1, a text or more, a "
                "sigma from 0 to 1, a weight from 0, and 'text', 'sentence' or 'both', were expected. Change them."
            )

    def state(self) -> Temperature:
        return Learnt(1 / self.temperature, self.max_scale)

    def weights(self) -> tuple[float, float]:
        return 0.5, 0.5

    def rows(
        self, scores: Float[Tensor, "a n"], own: Int[Tensor, " a"], labels: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, " a"]:
        return cross_entropy(scores, own, reduction="none")

    def local(self) -> Grouping:
        return Grouping(self.temperature, self.max_scale, self.sigma)
