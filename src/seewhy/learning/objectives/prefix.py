"""Prefix conditioning (Saito et al. 2023, arXiv 2206.01125): captions and class names in one training, told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import cross_entropy

from ...bounds import Count
from . import objectives
from .contrastive import Costs, LearntScale, Own, Scores, Sides


@objectives.register
@dataclass(frozen=True)
class Prefix(LearntScale):
    """Pictures find their texts, where a learnt prefix tells the words half what kind of text it reads.

    ``text_j = G([p_s(j), words_j])`` with one ``p_s`` for class names and one for captions
    (:class:`seewhy.learning.encoders.towers.PrefixedWords`); ``s_ij = exp(theta) cos(image_i, text_j)``;
    ``loss = (mean_i CE(s_i·, q_i) + mean_j CE(s_·j, q_j)) / 2``, where ``q_i`` is equal over all pairs with the label
    of ``i`` (UniCL, arXiv 2204.03610) and a caption has a label of its own. Each batch comes from one source alone, for
    else a text can be told by its kind instead of its meaning. At test the captions' prefix is put before everything.

    There is no code of the authors: written from the abstract and the authors' post. Gradients reach the prefix of the
    batch's source alone, so prefixes must not decay.

    Args:
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
    options: ClassVar[str] = "--column label=COLUMN and --column text=COLUMN; in Python, label= and text="

    n_tokens: Count = 1
    debiased: bool = True
    same_label: bool = True

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        if not self.same_label:
            return cross_entropy(scores, own, reduction="none")
        what = "The number of each pair's class, and one of its own for each caption, were"
        alike = self.alike_pairs(labels, what, "same_label=False")
        return cross_entropy(scores, alike.to(scores) / alike.sum(1, keepdim=True), reduction="none")
