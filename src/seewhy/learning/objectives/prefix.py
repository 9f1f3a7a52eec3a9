"""Prefix conditioning (Saito et al. 2023, arXiv 2206.01125): captions and class names in one training, told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...errors import InputError
from . import objectives
from .contrastive import Contrastive, Learnt, Temperature


@objectives.register
@dataclass(frozen=True)
class Prefix(Contrastive):
    """Pictures find their texts, where a learnt prefix tells the words half what kind of text it reads.

    ``text_j = G([p_s(j), words_j])`` with one ``p_s`` for class names and one for captions
    (:class:`seewhy.encoders.prefixed.PrefixedWords`); ``s_ij = exp(theta) cos(image_i, text_j)``;
    ``loss = (mean_i CE(s_i·, q_i) + mean_j CE(s_·j, q_j)) / 2``, where ``q_i`` is equal over all pairs with the label
    of ``i`` (UniCL, arXiv 2204.03610) and a caption has a label of its own. Each batch comes from one source alone, for
    else a text can be told by its kind instead of its meaning. At test the captions' prefix is put before everything.

    There is no code of the authors: written from the abstract and the authors' post. Gradients reach the prefix of the
    batch's source alone, so prefixes must not decay.

    Args:
        temperature: at first, ``exp(-theta)``; CLIP's 0.07.
        max_scale: of ``exp(theta)``; CLIP's 100.
        n_tokens: of each prefix; the paper's 1.
        debiased: whether each batch comes from one source.
        same_label: whether pairs with one label are right for one another (UniCL); else only its own text is (CLIP).

    Example:
        >>> import torch
        >>> round(float(Prefix(1.0)(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))), 4)  # log(1 + exp(-1))
        0.3133
        >>> round(float(Prefix(1.0)(torch.eye(2), torch.eye(2), torch.tensor([5, 5]))), 4)  # 1/2 more
        0.8133
    """

    name: ClassVar[str] = "prefix"
    paper: ClassVar[str] = "Saito et al. 2023, arXiv:2206.01125"
    needs: ClassVar[str] = "pictures with class names, pictures with captions, and which are which"
    plain_pairs: ClassVar[bool] = False
    options: ClassVar[str] = "--label-column COLUMN and --text-column COLUMN; in Python, label= and text="

    temperature: float = 0.07
    max_scale: float = 100.0
    n_tokens: int = 1
    debiased: bool = True
    same_label: bool = True

    def __post_init__(self) -> None:
        scales = Learnt.takes(self.temperature, self.max_scale)
        if not scales or self.n_tokens < 1:
            raise InputError(
                f"The objective prefix was given temperature={self.temperature:g}, max_scale={self.max_scale:g}, "
                f"n_tokens={self.n_tokens}. A scale from 1, a temperature between its inverse and 1, and one token or "
                "more, were expected. Change them."
            )

    def state(self) -> Temperature:
        return Learnt(1 / self.temperature, self.max_scale)

    def weights(self) -> tuple[float, float]:
        return 0.5, 0.5

    def rows(
        self, scores: Float[Tensor, "a n"], own: Int[Tensor, " a"], labels: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, " a"]:
        if not self.same_label:
            return cross_entropy(scores, own, reduction="none")
        if labels is None:
            raise InputError(
                "The objective prefix was given no labels. The number of each pair's class, and one of its own for "
                "each caption, were expected. Give labels, or take same_label=False."
            )
        alike = labels[0][:, None] == labels[1]
        return cross_entropy(scores, alike.to(scores) / alike.sum(1, keepdim=True), reduction="none")
