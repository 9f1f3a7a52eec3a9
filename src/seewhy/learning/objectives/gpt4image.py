"""GPT4Image's objective (Ding et al. 2023, arXiv 2306.00693): features near the text written about that picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn
from torch.nn.functional import cross_entropy

from ...bounds import NotNegative, Positive
from . import objectives
from .contrastive import Contrastive, Costs, Fixed, Own, Scores, Sides, Temperature

Form = Literal["clip", "ctr", "byol"]
Projection = Literal["mlp", "linear"]
RESNET_STD = 1024**-0.5
"""Of the projection's first weights behind a ResNet (authors)."""
DEIT_STD = 0.02
"""Of the same behind a transformer (authors)."""


@objectives.register
@dataclass(frozen=True)
class GPT4Image(Contrastive):
    """The auxiliary loss, to be added to the classifier's with weight ``lam``.

    With ``s_ij = cos(z_i, t_j) / tau``, ``z`` the projected features and ``t`` the texts:

    * ``"clip"``: ``(mean_i CE(s_i·, i) + mean_j CE(s_·j, j)) / 2``
    * ``"ctr"``: the first half of it
    * ``"byol"``: ``mean_i (2 - 2 cos(z_i, t_i))``; no other text is compared with

    Follows the authors' code on one device. Copies of one text in a batch are wrong answers for one another, as theirs.

    Args:
        form: which of the three; the authors' default is ``"clip"``.
        tau: temperature; the authors' 0.2 for ResNets, 0.05 for DeiT.
        lam: weight beside the cross entropy; the authors' 0.3.

    Example:
        >>> import torch
        >>> pairs = torch.eye(2)
        >>> round(float(GPT4Image("clip", tau=1.0)(pairs, pairs)), 4)  # log(1 + exp(-1))
        0.3133
        >>> float(GPT4Image("byol")(pairs, pairs.flip(0)))
        2.0
    """

    name: ClassVar[str] = "gpt4image"
    paper: ClassVar[str] = "Ding et al. 2023, arXiv:2306.00693"

    form: Form = "clip"
    tau: Positive = 0.2
    lam: NotNegative = 0.3

    def state(self) -> Temperature:
        return Fixed(1.0 if self.form == "byol" else 1 / self.tau)

    def weights(self) -> tuple[float, float]:
        return (0.5, 0.5) if self.form == "clip" else (1.0, 0.0)

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        if self.form == "byol":
            return 2 - 2 * scores.gather(1, own[:, None])[:, 0]
        return cross_entropy(scores, own, reduction="none")


def projection(kind: Projection, width: int, text_width: int, *, convolutional: bool = True) -> nn.Sequential:
    """The layers between features and the space of the texts, with new weights from torch's random numbers.

    ``"mlp"``: linear to twice the width of the texts, batch normalisation and no bias behind a convolutional network,
    a rectifier, linear to their width. ``"linear"``: one layer without a bias. Weights begin as the authors' do,
    truncated normal of standard deviation 1024^-0.5 behind a convolutional network and 0.02 behind a transformer.
    """
    if kind == "linear":
        layers = nn.Sequential(nn.Linear(width, text_width, bias=False))
    else:
        first = nn.Linear(width, 2 * text_width, bias=not convolutional)
        normal = [nn.BatchNorm1d(2 * text_width)] if convolutional else []
        layers = nn.Sequential(first, *normal, nn.ReLU(), nn.Linear(2 * text_width, text_width))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=RESNET_STD if convolutional else DEIT_STD)
    return layers
