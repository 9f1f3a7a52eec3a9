"""FocalLens' objective (Zhang et al. 2025, arXiv 2504.08368): a picture under an instruction finds the answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.nn.functional import cross_entropy

from . import objectives
from .contrastive import Costs, LearntScale, Own, Scores, Sides


@objectives.register
@dataclass(frozen=True)
class FocalLens(LearntScale):
    """Each picture, seen under an instruction, must find its answer among those of the batch, and each answer it.

    ``s_ij = exp(theta) cos(F(image_i, instruction_i), G(answer_j))``;
    ``loss = (mean_i CE(s_i·, i) + mean_j CE(s_·j, j)) / 2``, with ``theta`` learnt and held as CLIP's. A picture comes
    with several instructions, so that its answer to one is a wrong answer to another. ``F`` is
    :class:`seewhy.learning.encoders.heads.InstructedHead`; ``G`` is the words half, frozen.

    There is no code of the authors, and this is written from the abstract and reviews: a head behind a frozen encoder
    stands for the tuned vision transformer. Short answers repeat ("red"), and what is done with those is ours.

    Args:
        same_answer: triplets with the same answer are left out of the comparison (``"masked"``), right with equal parts
            (``"positive"``), or wrong (``"negative"``).

    Example:
        >>> import torch
        >>> answers = torch.tensor([7, 7, 3])  # the second row shares the first's answer, and is not compared with it
        >>> round(float(FocalLens(1.0)(torch.eye(3), torch.eye(3), answers)), 4)
        0.3927
    """

    name: ClassVar[str] = "focallens"
    paper: ClassVar[str] = "Zhang et al. 2025, arXiv:2504.08368"
    needs: ClassVar[str] = "pictures with instructions and their answers"
    plain_pairs: ClassVar[bool] = False
    options: ClassVar[str] = (
        '--instruction COLUMN=WORDS, once or more, for example --instruction colour="the colour"; in Python, '
        'instructions={"colour": "the colour"}'
    )

    same_answer: Literal["masked", "positive", "negative"] = "masked"

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        if self.same_answer == "negative":
            return cross_entropy(scores, own, reduction="none")
        alike = self.alike_pairs(labels, "The number of each triplet's answer was", "same_answer='negative'")
        if self.same_answer == "positive":
            return cross_entropy(scores, alike.to(scores) / alike.sum(1, keepdim=True), reduction="none")
        others = alike.scatter(1, own[:, None], False)
        return cross_entropy(scores.masked_fill(others, float("-inf")), own, reduction="none")
