"""What changing a property did to prototypes: on one picture, and as a mean over many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError
from ..storage.marks import CHECKPOINT
from ..storage.output import make_folder, write
from ..storage.reading import check_kinds, read_tensors
from ..storage.tensors import marked_tensors
from .perturbations import PROPERTIES


@dataclass(frozen=True)
class Influences:
    """One picture's similarities to ``p`` prototypes, before and after each of ``m`` changes.

    Attributes:
        similarity: on the picture, in each prototype's cell.
        changed: on the changed copies, in the same cell.
        cells: that cell as (row, column).
        change: how much each copy differs from the picture, root mean square over the view, 0…255.
    """

    similarity: Float[Tensor, " p"]
    changed: Float[Tensor, "p m"]
    cells: Int[Tensor, "p 2"]
    change: Float[Tensor, " m"]

    @classmethod
    def read(
        cls,
        maps: Float[Tensor, "v p h w"],
        change: Float[Tensor, " m"],
        cells: Int[Tensor, "p 2"] | None = None,
        follow: bool = False,
    ) -> Influences:
        """Read the maps of a picture and of its changed copies in one cell a prototype.

        Args:
            maps: similarities on the picture, then on each copy.
            change: of each copy.
            cells: where; left out, where the prototype is highest on the picture.
            follow: read each copy where it is highest itself.

        Raises:
            InputError: a cell is outside of the map.
        """
        height, width = maps.shape[2:]
        flat = maps.flatten(2)
        if cells is None:
            at = flat[0].argmax(1)
        else:
            if len(cells) and bool(((cells < 0) | (cells >= torch.tensor([height, width]))).any()):
                raise InputError(f"A cell is outside of {height} × {width}. Give (row, column) counted from 0.")
            at = cells[:, 0] * width + cells[:, 1]
        read = flat.gather(2, at[None, :, None].expand(len(flat), -1, 1))[..., 0]
        after = flat[1:].amax(2) if follow else read[1:]
        return cls(read[0], after.T.contiguous(), torch.stack([at // width, at % width], 1), change)

    @property
    def phi(self) -> Float[Tensor, "p m"]:
        """The paper's local influence: how much similarity the change cost; negative where it gained some."""
        return self.similarity[:, None] - self.changed

    @property
    def relative(self) -> Float[Tensor, "p m"]:
        """The same as a fraction of the similarity on the picture; 0 where that is not positive."""
        positive = self.similarity[:, None] > 0
        return torch.where(positive, self.phi / self.similarity[:, None].clamp(min=1e-12), torch.zeros(()))

    def in_distance(self, distance: Callable[[Tensor], Tensor]) -> Float[Tensor, "p m"]:
        """How far the change moved the cell away from the prototype, in the unit ``distance`` turns similarity into.

        A drop of 2 in a logarithmic similarity is a tiny step near its top and a long one near zero: see
        :func:`log_distance`.
        """
        return distance(self.changed) - distance(self.similarity[:, None])


def log_distance(similarity: Tensor, epsilon: float = 1e-4) -> Tensor:
    """ProtoPNet's squared distance ``d`` out of its similarity ``log((d + 1) / (d + ε))``, 0…∞.

    Example:
        >>> round(float(log_distance(torch.tensor((1.5 + 1) / (1.5 + 1e-4)).log())), 4)
        1.5
    """
    grown = similarity.double().exp()
    return ((1 - epsilon * grown) / (grown - 1)).to(similarity)


def cosine_distance(similarity: Tensor) -> Tensor:
    """``1 − cosine``, 0…2."""
    return 1 - similarity


@dataclass(frozen=True)
class GlobalInfluences:
    """Similarity-weighted means over pictures; what is kept beside the prototypes.

    Attributes:
        phi: the paper's global influence, in units of the similarity.
        relative: the same of the relative local influences.
        positive: share of the weight with a positive local influence, 0…1; a property without any is near one half.
        similarity: mean weight of a picture, that is, the mean of the similarity's positive part.
        change: mean change of the pictures, root mean square over the view, 0…255.
        n_pictures: how many.
        strengths: ``"paper"`` or ``"calibrated"``.
    """

    phi: Float[Tensor, "p m"]
    relative: Float[Tensor, "p m"]
    positive: Float[Tensor, "p m"]
    similarity: Float[Tensor, " p"]
    change: Float[Tensor, " m"]
    n_pictures: int
    strengths: str

    def tensors(self, prefix: str = "because.") -> dict[str, Tensor]:
        """For a safetensors file."""
        return {prefix + k: getattr(self, k).contiguous() for k in _TENSORS}

    def to_json(self) -> dict[str, Any]:
        """For the JSON beside it."""
        return {"properties": list(PROPERTIES), "n_pictures": self.n_pictures, "strengths": self.strengths}

    @classmethod
    def load(cls, tensors: dict[str, Tensor], data: dict[str, Any], prefix: str = "because.") -> GlobalInfluences:
        """What :meth:`tensors` and :meth:`to_json` gave."""
        if tuple(data["properties"]) != PROPERTIES:
            raise ValueError(f"influences of {data['properties']}, not of {list(PROPERTIES)}")
        kept = {k: tensors[prefix + k] for k in _TENSORS}
        check_kinds(kept, dict(zip(_TENSORS, ("float2", "float2", "float2", "float1", "float1"), strict=True)))
        n, m = len(kept["similarity"]), len(PROPERTIES)
        shapes = {"phi": (n, m), "relative": (n, m), "positive": (n, m), "similarity": (n,), "change": (m,)}
        for name, tensor in kept.items():
            if tensor.shape != shapes[name] or not bool(tensor.isfinite().all()):
                raise ValueError(f"influences {name} {tuple(tensor.shape)} of {n} prototypes")
        return cls(**kept, n_pictures=int(data["n_pictures"]), strengths=str(data["strengths"]))


_TENSORS = ("phi", "relative", "positive", "similarity", "change")


class Sums:
    """The means' running sums: nothing of a single picture is kept."""

    def __init__(self) -> None:
        self._n = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, one: Influences, counts: Bool[Tensor, " p"] | None = None) -> None:
        """One more picture, for the prototypes for which it counts."""
        weight = one.similarity.double().clamp(min=0)
        if counts is not None:
            weight = weight * counts
        column = weight[:, None]
        parts = {
            "phi": column * one.phi,
            "relative": column * one.relative,
            "positive": column * (one.phi > 0),
            "weight": weight,
            "change": one.change.double(),
        }
        self._n += 1
        self._sums = {k: v + self._sums[k] if k in self._sums else v for k, v in parts.items()}

    @property
    def n(self) -> int:
        """Pictures so far."""
        return self._n

    def means(self, strengths: str) -> GlobalInfluences:
        """What the sums come to."""
        if not self._n:
            raise InputError("No picture was given. At least one was expected. Give those the prototypes come from.")
        weight = self._sums["weight"]
        # A prototype that no picture is like has no influences: all are 0.
        total = weight[:, None].clamp(min=1e-12)
        means = {k: (self._sums[k] / total).float() for k in ("phi", "relative", "positive")}
        per_picture = {"similarity": (weight / self._n).float(), "change": (self._sums["change"] / self._n).float()}
        return GlobalInfluences(**means, **per_picture, n_pictures=self._n, strengths=strengths)


@dataclass(frozen=True)
class SumsFile:
    """Where sums lie while they grow, so that what is stopped, or killed, goes on where it was.

    Attributes:
        path: the file; gone once the means are taken and kept.
        seal: of everything that decides the sums; sums under another seal are begun anew.
        every: pictures after which they are written.
    """

    path: Path
    seal: str
    every: int = 16

    def load(self) -> Sums:
        """The sums so far; empty ones where there are none of this seal, or they are damaged."""
        sums = Sums()
        with contextlib.suppress(OSError, KeyError, ValueError):
            tensors, about = read_tensors(self.path)
            if about["seal"] == self.seal:
                sums._n, sums._sums = int(about["n"]), tensors
        return sums

    def keep(self, sums: Sums) -> None:
        """Write them, whenever it is time."""
        if sums.n % self.every == 0:
            tensors = {name: value.contiguous() for name, value in sums._sums.items()}
            make_folder(self.path.parent)
            write(self.path, marked_tensors(tensors, {"seal": self.seal, "n": str(sums.n)}), CHECKPOINT)
