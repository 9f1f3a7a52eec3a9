"""What changing a property did to prototypes: on one picture, and as a mean over many."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from ..storage.marks import CHECKPOINT
from ..storage.output import make_folder, write
from ..storage.reading import read_tensors
from ..storage.tensors import marked_tensors, rebuilt, tensors_of
from .bank import check_finite
from .perturbations import PROPERTIES

PREFIX = "because."


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
        """Read the maps of a picture and of its changed copies in one cell a prototype."""
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

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file."""
        return {name: tensor.contiguous() for name, tensor in tensors_of(self, PREFIX).items()}

    def to_json(self) -> dict[str, Any]:
        """For the JSON beside it."""
        return {"properties": list(PROPERTIES), "n_pictures": self.n_pictures, "strengths": self.strengths}

    @classmethod
    def load(cls, tensors: dict[str, Tensor], data: dict[str, Any]) -> GlobalInfluences:
        """What :meth:`tensors` and :meth:`to_json` gave."""
        if tuple(data["properties"]) != PROPERTIES:
            raise ValueError(f"influences of {data['properties']}, not of {list(PROPERTIES)}")
        check_finite(tensors)
        facts = {"n_pictures": int(data["n_pictures"]), "strengths": str(data["strengths"])}
        return rebuilt(cls, tensors, PREFIX, {"m": len(PROPERTIES)}, **facts)


class Sums:
    """The means' running sums: nothing of a single picture is kept."""

    def __init__(self) -> None:
        self.n = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, one: Influences) -> None:
        """One more picture."""
        weight = one.similarity.double().clamp(min=0)
        parts = {name: weight[:, None] * part for name, part in _parts(one).items()}
        parts |= {"weight": weight, "change": one.change.double()}
        self.n += 1
        self._sums = {k: v + self._sums[k] if k in self._sums else v for k, v in parts.items()}

    def means(self, strengths: str) -> GlobalInfluences:
        """What the sums come to."""
        if not self.n:
            raise InputError("No picture was given. At least one was expected. Give those the prototypes come from.")
        weight = self._sums["weight"]
        # A prototype that no picture is like has no influences: all are 0.
        total = weight[:, None].clamp(min=1e-12)
        means = {k: (self._sums[k] / total).float() for k in ("phi", "relative", "positive")}
        per_picture = {"similarity": (weight / self.n).float(), "change": (self._sums["change"] / self.n).float()}
        return GlobalInfluences(**means, **per_picture, n_pictures=self.n, strengths=strengths)


def _parts(one: Influences) -> dict[str, Tensor]:
    return {"phi": one.phi, "relative": one.relative, "positive": one.phi > 0}


@dataclass(frozen=True)
class SumsFile:
    """Where sums lie while they grow, so that what is stopped, or killed, goes on where it was."""

    path: Path
    seal: str
    every: int = 16

    def load(self) -> Sums:
        """The sums so far; empty ones where there are none of this seal, or they are damaged."""
        sums = Sums()
        with contextlib.suppress(OSError, KeyError, ValueError):
            tensors, about = read_tensors(self.path)
            if about["seal"] == self.seal:
                sums.n, sums._sums = int(about["n"]), tensors
        return sums

    def keep(self, sums: Sums) -> None:
        """Write them, whenever it is time."""
        if sums.n % self.every == 0:
            tensors = {name: value.contiguous() for name, value in sums._sums.items()}
            make_folder(self.path.parent)
            write(self.path, marked_tensors(tensors, {"seal": self.seal, "n": str(sums.n)}), CHECKPOINT)
