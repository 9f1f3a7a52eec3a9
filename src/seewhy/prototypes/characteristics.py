"""This looks like that, because …: which property of a picture a prototype's activation rests on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..encoders.base import Encoder, EncoderOutput
from ..errors import InputError
from ..pictures.images import Picture, read_picture
from ..pictures.sources import One
from ..progress import Progress
from ..types import FractionBox, Transform
from . import reasons
from .perturbations import PROPERTIES, Changes, EqualChanges, Pixels, picture_change

Maps = Callable[[EncoderOutput], Float[Tensor, "b p h w"]]
"""What a method of prototypes must offer: the similarity of each prototype to each cell of each picture, larger when
more alike; a cosine, a channel's activation, a logarithm of a distance. It runs no trunk and no gradient."""

View = Picture | One
"""A picture as the network saw it (a ``Picture``), or a file or pixels still to be read."""


@dataclass(frozen=True)
class Influences:
    """One picture's similarities to ``p`` prototypes, before and after each of ``m`` changes, in the same ``cells``.

    ``change`` is the difference between each copy and the picture, as root mean square over the view, 0…255.
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
        """Read the maps of a picture and of its changed copies in one cell per prototype."""
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
        """The paper's local influence: the similarity lost by the change; negative if the change raised it."""
        return self.similarity[:, None] - self.changed

    @property
    def relative(self) -> Float[Tensor, "p m"]:
        """The same as a fraction of the similarity on the picture; 0 if that is not positive."""
        positive = self.similarity[:, None] > 0
        return torch.where(positive, self.phi / self.similarity[:, None].clamp(min=1e-12), torch.zeros(()))


@dataclass(frozen=True)
class GlobalInfluences:
    """Similarity-weighted means over ``n_pictures``: the paper's global influence ``phi``, and of relative ones.

    ``positive`` is the share of the weight with a positive local influence; a property without any is near one half.
    ``similarity`` is the mean of its positive part, and ``change`` that of the pictures' changes.
    """

    phi: Float[Tensor, "p m"]
    relative: Float[Tensor, "p m"]
    positive: Float[Tensor, "p m"]
    similarity: Float[Tensor, " p"]
    change: Float[Tensor, " m"]
    n_pictures: int
    strengths: str


class Sums:
    """Running sums for the means, so that nothing of a single picture is kept."""

    def __init__(self) -> None:
        self.n = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, one: Influences) -> None:
        """Add a picture."""
        weight = one.similarity.double().clamp(min=0)
        of_property = {"phi": one.phi, "relative": one.relative, "positive": one.phi > 0}
        parts = {name: weight[:, None] * part for name, part in of_property.items()}
        parts |= {"weight": weight, "change": one.change.double()}
        self.n += 1
        self._sums = {k: v + self._sums[k] if k in self._sums else v for k, v in parts.items()}

    def means(self, strengths: str) -> GlobalInfluences:
        """The means from the sums."""
        if not self.n:
            raise InputError(
                "No picture was given. Expected at least one. Give the pictures that the prototypes come from."
            )
        weight = self._sums["weight"]
        # A prototype that no picture is like has no influences: all are 0.
        total = weight[:, None].clamp(min=1e-12)
        means = {k: (self._sums[k] / total).float() for k in ("phi", "relative", "positive")}
        per_picture = {"similarity": (weight / self.n).float(), "change": (self._sums["change"] / self.n).float()}
        return GlobalInfluences(**means, **per_picture, n_pictures=self.n, strengths=strengths)


@dataclass(frozen=True)
class Changed:
    """A picture and its copy for each property, as the network will see them, and how far each copy differs."""

    views: tuple[Pixels, ...]
    change: Float[Tensor, " m"]


@reasons.register
@dataclass(frozen=True)
class Characteristics:
    """Measures how much hue, saturation, contrast, brightness, texture and shape matter to prototypes.

    Nauta, Jutte, Provoost & Seifert 2020 (arXiv 2011.02863). It changes one property ``m`` of a picture ``x`` and reads
    the similarity ``g`` to a prototype ``p`` again, in the cell where it was highest before::

        local    φ(m, p, x) = g(p, x) − g(p, x_m)                     positive: m matters
        global   φ(m, p) = Σ_x g(p, x) φ(m, p, x) / Σ_x g(p, x)       over the training pictures

    It follows the authors' code, with their strengths as :class:`~seewhy.prototypes.perturbations.PaperChanges`.
    There is no JPEG in between, and negative similarities weigh nothing in the global mean. The default,
    :class:`~seewhy.prototypes.perturbations.EqualChanges`, is SeeWhy's: with it properties can be compared.

    Cost: 7 forward passes per picture for any number of prototypes, and 0.3 to 0.6 s on one core for the changes.
    Range: that of the similarity.

    Args:
        changes: which properties to change, and how strongly.

    Example:
        >>> Characteristics().changes.name, len(PROPERTIES)
        ('calibrated', 6)
    """

    name = "characteristics"
    paper = "Nauta et al. 2020, arXiv 2011.02863"
    needs = "prototypes compared with cells of the feature map"
    cost = "7"

    changes: Changes = field(default_factory=EqualChanges)

    def local(
        self,
        encoder: Encoder,
        maps: Maps,
        pictures: Iterable[View],
        *,
        cells: Int[Tensor, "p 2"] | None = None,
        box: FractionBox | None = None,
        follow: bool = False,
        batch_size: int = 32,
    ) -> Iterator[Influences]:
        """The influences on each picture's similarities, in order, with one result per picture.

        Args:
            encoder: turns pictures into features.
            maps: the similarity of each prototype in each cell.
            pictures: files, pixels, or views.
            cells: where to read each prototype, as (row, column); default: the cell where it is highest.
            box: area of the view to change; default: the whole picture, as in the paper.
            follow: read the changed copies where *they* are highest; the paper does not.
            batch_size: pictures per batch.
        """
        per = max(1, batch_size // (len(PROPERTIES) + 1))
        stream = self._changed(encoder, pictures, box, ahead=2 * per)
        while group := list(islice(stream, per)):
            with torch.no_grad():
                look = encoder.encode(encoder.pixels([view for one in group for view in one.views]))
                similarity = maps(look)
            if not similarity.isfinite().all():
                raise InputError("Similarities to prototypes are not finite on these pictures. Try --engine torch.")
            for one, read in zip(group, similarity.unflatten(0, (len(group), -1)), strict=True):
                yield Influences.read(read, one.change, cells, follow)

    def overall(
        self,
        encoder: Encoder,
        maps: Maps,
        pictures: Iterable[View],
        *,
        progress: Progress | None = None,
        batch_size: int = 32,
    ) -> GlobalInfluences:
        """The similarity-weighted means over pictures, usually the training pictures."""
        sums = Sums()
        total = len(pictures) if isinstance(pictures, Sized) else None
        stream = self.local(encoder, maps, pictures, batch_size=batch_size)
        for one in (progress or Progress()).track(stream, "Changing pictures to see what matters", total):
            sums.add(one)
        return sums.means(self.changes.name)

    def _changed(
        self, encoder: Encoder, pictures: Iterable[View], box: FractionBox | None, ahead: int
    ) -> Iterator[Changed]:
        """Changed copies, made ahead in threads while the engine works."""
        source = iter(pictures)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            waiting: list[Future[Changed]] = []

            def submit(n: int) -> None:
                waiting.extend(pool.submit(changed, encoder.transform, p, self.changes, box) for p in islice(source, n))

            submit(ahead)
            while waiting:
                found = waiting.pop(0).result()
                submit(1)
                yield found


def changed(transform: Transform, picture: View, changes: Changes, box: FractionBox | None = None) -> Changed:
    """The views of a picture and its changed copies. A view has no original any more, so the view itself is changed."""
    if not isinstance(picture, Picture) and not changes.on_view:
        width, height = read_picture(picture, transform).original_size
        longest = getattr(changes, "longest", None)
        scale = 1.0 if longest is None else min(1.0, longest / max(width, height))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        whole = Transform(size, size, transform.interpolation, transform.mean, transform.std)
        original = read_picture(picture, whole).pixels
        views = [read_picture(p, transform).pixels for p in (original, *changes(original))]
    else:
        view = picture.pixels if isinstance(picture, Picture) else read_picture(picture, transform).pixels
        views = [view, *changes(view)]
    if box is not None:
        (height, width), (left, top, right, bottom) = views[0].shape[:2], box
        outside = np.ones((height, width, 1), bool)
        outside[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = False
        views = [views[0], *(np.where(outside, views[0], view) for view in views[1:])]
    return Changed(tuple(views), torch.tensor([picture_change(views[0], view) for view in views[1:]]))
