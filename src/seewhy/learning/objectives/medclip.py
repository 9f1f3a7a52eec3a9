"""MedCLIP's objective (Wang et al. 2022, arXiv 2210.10163): who belongs together is a matter of degree, by findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from . import objectives
from .contrastive import Costs, LearntScale, Own, Scores, Sides


@objectives.register
@dataclass(frozen=True)
class MedCLIP(LearntScale):
    """Pictures and texts are to be as near one another as what is found in them is alike.

    ``s_ij = exp(theta) cos(image_i, text_j)``; ``q_i = softmax_j(l_i · m_j)``, with ``l`` the findings of pictures and
    ``m`` those of texts, 1 present, -1 absent and 0 unsure or not mentioned; ``loss = (mean_i CE(s_i·, q_i) +
    mean_j CE(s_·j, q_j)) / 2`` (section 3.3). Labels may be classes too: alike are then those of one class. Without
    labels it is CLIP's objective, as in the authors' code.

    Follows ``_soft_clip_loss`` of the authors' code, whose likeness is the plain product; the paper divides by the
    lengths of ``l`` and ``m``, which leaves targets that are nearly even: ``targets`` shows them. Its second term, of
    augmented texts, is left out. Pictures and texts need not be pairs: ``labels`` may be two, one of each side.

    Args:
        alike: ``"dot"`` as the code, or ``"cosine"`` as the paper.

    Example:
        >>> import torch
        >>> both = torch.tensor([[1, -1], [1, -1]])  # the same found twice: each text is half right for each picture
        >>> round(float(MedCLIP(temperature=1.0)(torch.eye(2), torch.eye(2), both)), 4)  # log(1 + exp(-1)) + 1 / 2
        0.8133
    """

    name: ClassVar[str] = "medclip"
    paper: ClassVar[str] = "Wang et al. 2022, arXiv:2210.10163"
    needs: ClassVar[str] = "pictures and texts, with findings or classes"
    uses_labels: ClassVar[bool] = True

    alike: Literal["dot", "cosine"] = "dot"

    def targets(self, rows: Shaped[Tensor, "a ..."], columns: Shaped[Tensor, "n ..."]) -> Float[Tensor, "a n"]:
        """How much each column is to be each row's answer: rows sum to 1.

        Example:
            >>> import torch
            >>> found = torch.tensor([[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
            >>> [[round(v, 3) for v in row] for row in MedCLIP().targets(found, found).tolist()[::2]]
            [[0.499, 0.499, 0.001], [0.002, 0.002, 0.995]]
        """
        if rows.ndim == 1:
            return (rows[:, None] == columns).float().softmax(1)
        findings, others = rows.float(), columns.float()
        if self.alike == "cosine":
            findings, others = normalize(findings, dim=1), normalize(others, dim=1)
        return (findings @ others.T).softmax(1)

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        target = own if labels is None else self.targets(*labels).to(scores)
        return cross_entropy(scores, target, reduction="none")
