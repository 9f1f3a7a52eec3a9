"""Words for a picture classifier that was never trained with any: sentences mapped among its own class vectors.

A classifier's weight row ``w_c`` points where pictures of class c lie in feature space, and class c has a name and a
definition. Kernel ridge regression from sentence vectors to rows carries every other sentence there too (the
semantic-to-visual regression of zero-shot learning, e.g. Elhoseiny et al. 2013, "Write a Classifier"; no picture is
needed, so none can leak into an evaluation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Embed = Callable[[Sequence[str]], Tensor]
"""Sentences → unit vectors ``(n, e)``."""


@dataclass(frozen=True, eq=False)
class TextSpace:
    """Sentences among pooled picture features, of unit length.

    With ``k(s, t) = exp((s·t - 1) / width²)`` on sentence vectors (the RBF kernel, they have unit length):

    * class: ``t_c = normalise(mean_j embed(text_cj))``, ``K_cc' = k(t_c, t_c')``
    * rows: ``Y = normalise(w_c - mean(w))``, ``A = (K + ridge·I)⁻¹ Y``
    * text: ``normalise(Σ_c k(s, t_c) A_c)``

    Cost: embedding the texts once, one ``(k, k)`` solve; then one kernel row per sentence.
    """

    centres: Float[Tensor, "k e"]
    coefficients: Float[Tensor, "k d"]
    embed: Embed
    width: float

    version: ClassVar[int] = 1

    @classmethod
    def fit(
        cls, weight: Float[Tensor, "k d"], centres: Float[Tensor, "k e"], embed: Embed, ridge: float = 0.1
    ) -> TextSpace:
        """By a classifier's weight and the centres of its classes' texts."""
        width = 0.5
        gram = kernel(centres, centres, width).double()
        rows = F.normalize(weight.detach() - weight.detach().mean(0), dim=1).double()
        coefficients = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=torch.float64), rows)
        return cls(centres, coefficients.float().contiguous(), embed, width)

    def fit_texts(
        self, rows: Float[Tensor, "m d"], vectors: Float[Tensor, "m e"], *, ridge: float = 0.05
    ) -> Float[Tensor, "k d"]:
        """Coefficients on the same centres, fitted on every text by itself instead of on each class's mean.

        ``argmin_A |K(T, C) A - Y|² + ridge · tr(Aᵀ K(C, C) A)``, one ``(k, k)`` solve; ``Y`` are the rows at unit
        length. The ridge was chosen on ImageNet photographs beside Flickr8k's captions.
        """
        near, among = (kernel(v, self.centres, self.width) for v in (vectors, self.centres))
        return regress(near, among, F.normalize(rows, dim=1), None, ridge).float()

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Sentences → unit vectors among the pictures."""
        return self.place(self.embed(texts))

    def place(self, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        """Sentence vectors → unit vectors among the pictures."""
        return F.normalize(self.regression(vectors), dim=1)

    def place_by(self, vectors: Float[Tensor, "n e"], refit: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
        """The same by other ``coefficients`` ``(k, d)``, and by what more centres add to them where there are some.

        ``centres`` ``(m, e)``, whose length does not count, with ``left`` ``(k + m, r)`` and ``right`` ``(r, d)``.
        """
        near = kernel(vectors, self.centres, self.width)
        placed = near @ refit["coefficients"]
        if "centres" in refit:
            more = kernel(vectors, F.normalize(refit["centres"], dim=1), self.width)
            placed = placed + torch.cat([near, more], 1) @ refit["left"] @ refit["right"]
        return F.normalize(placed, dim=1)

    @cached_property
    def regression(self) -> KernelRegression:
        """Sentence vectors → vectors among the pictures, not yet of unit length."""
        return KernelRegression(self.centres, self.coefficients, self.width)

    def to_tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` needs, for a safetensors file; ``mean`` is read by earlier versions."""
        return {
            "centres": self.centres.contiguous(),
            "coefficients": self.coefficients.contiguous(),
            "mean": torch.zeros(self.coefficients.shape[1]),
            "width": torch.tensor(self.width, dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], embed: Embed) -> TextSpace:
        """The space that `to_tensors` wrote down, with the sentence encoder it was fitted with."""
        return cls(tensors["centres"], tensors["coefficients"], embed, float(tensors["width"]))


class KernelRegression(nn.Module):
    """``Σ_c k(s, t_c) A_c``, frozen; ``A`` is a weight that can be trained, the centres ``t`` stay where they are."""

    centres: Tensor

    def __init__(self, centres: Float[Tensor, "k e"], coefficients: Float[Tensor, "k d"], width: float) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.coefficients = nn.Parameter(coefficients, requires_grad=False)
        self.width = width

    def forward(self, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        return kernel(vectors, self.centres, self.width) @ self.coefficients


def class_centres(texts_per_class: Sequence[Sequence[str]], embed: Embed) -> Float[Tensor, "k e"]:
    """Each class as the direction of the mean of its texts."""
    vectors = embed([text for texts in texts_per_class for text in texts])
    own = vectors.split([len(texts) for texts in texts_per_class])
    return F.normalize(torch.stack([v.mean(0) for v in own]), dim=1)


def kernel(a: Float[Tensor, "n e"], b: Float[Tensor, "m e"], width: float) -> Float[Tensor, "n m"]:
    """``exp(-‖a - b‖² / (2 width²))`` for unit vectors."""
    return torch.exp((a @ b.T - 1) / width**2)


def regress(
    near: Float[Tensor, "n m"],
    among: Float[Tensor, "m m"],
    rows: Float[Tensor, "n d"],
    weights: Float[Tensor, " n"] | None,
    ridge: float,
) -> Float[Tensor, "m d"]:
    """``argmin_A Σ_i w_i |K(t_i, C) A - y_i|² + ridge · tr(Aᵀ K(C, C) A)``, in double precision."""
    near, among = near.double(), among.double()
    weighted = near.T if weights is None else near.T * weights.double()
    gram = weighted @ near + ridge * among + 1e-6 * torch.eye(len(among), dtype=torch.float64)
    return torch.linalg.solve(gram, weighted @ rows.double())
