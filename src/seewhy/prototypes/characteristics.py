"""The influence of a picture's properties, such as hue or texture, on its similarity to prototypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from functools import partial
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
from ..threads import map_ahead
from ..types import FractionBox, Transform
from . import reasons
from .perturbations import PROPERTIES, Changes, EqualChanges, Pixels, picture_change

Maps = Callable[[EncoderOutput], Float[Tensor, "b p h w"]]
"""A function from an encoder's output to the similarity of each prototype to each grid cell; larger is more similar."""

View = Picture | One
"""A network input (``Picture``), a file, or an array of pixels."""


@dataclass(frozen=True)
class Influences:
    """The similarities of a picture to ``p`` prototypes, before and after each of ``m`` changes.

    Attributes:
        change: root mean square difference between the picture and each changed copy, 0 to 255.
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
        """Compute the similarities of a picture and its changed copies, in one grid cell per prototype."""
        height, width = maps.shape[2:]
        flat = maps.flatten(2)
        if cells is None:
            at = flat[0].argmax(1)
        else:
            if len(cells) and bool(((cells < 0) | (cells >= torch.tensor([height, width]))).any()):
                raise InputError(f"`cells` must be (row, column) within {height} × {width}, counted from 0.")
            at = cells[:, 0] * width + cells[:, 1]
        read = flat.gather(2, at[None, :, None].expand(len(flat), -1, 1))[..., 0]
        after = flat[1:].amax(2) if follow else read[1:]
        return cls(read[0], after.T.contiguous(), torch.stack([at // width, at % width], 1), change)

    @property
    def phi(self) -> Float[Tensor, "p m"]:
        """The paper's local influence: the decrease of the similarity caused by the change."""
        return self.similarity[:, None] - self.changed

    @property
    def relative(self) -> Float[Tensor, "p m"]:
        """The local influence divided by the similarity, or 0."""
        positive = self.similarity[:, None] > 0
        return torch.where(positive, self.phi / self.similarity[:, None].clamp(min=1e-12), torch.zeros(()))


@dataclass(frozen=True)
class GlobalInfluences:
    """The means of local influences over ``n_pictures`` pictures, weighted by similarity.

    Attributes:
        phi: the paper's global influence.
        relative: the same mean of relative influences.
        positive: weighted fraction of pictures with a positive local influence; near 0.5 if the property has no
            influence.
        similarity: mean similarity, with negative values set to 0.
        change: mean change of the pictures.
    """

    phi: Float[Tensor, "p m"]
    relative: Float[Tensor, "p m"]
    positive: Float[Tensor, "p m"]
    similarity: Float[Tensor, " p"]
    change: Float[Tensor, " m"]
    n_pictures: int
    strengths: str

    @classmethod
    def of(cls, pictures: Iterable[Influences], strengths: str) -> GlobalInfluences:
        """Average the local influences over pictures."""
        sums: dict[str, Tensor] = {}
        n = 0
        for one in pictures:
            weight = one.similarity.double().clamp(min=0)
            of_property = {"phi": one.phi, "relative": one.relative, "positive": one.phi > 0}
            parts = {name: weight[:, None] * part for name, part in of_property.items()}
            parts |= {"similarity": weight, "change": one.change.double()}
            n += 1
            sums = {k: v + sums[k] if k in sums else v for k, v in parts.items()}
        if not n:
            raise InputError("`pictures` must contain at least one picture.")
        # A prototype that no picture is like has no influences: all are 0.
        total = sums["similarity"][:, None].clamp(min=1e-12)
        means = {k: (sums[k] / total).float() for k in ("phi", "relative", "positive")}
        per_picture = {k: (sums[k] / n).float() for k in ("similarity", "change")}
        return cls(**means, **per_picture, n_pictures=n, strengths=strengths)


@dataclass(frozen=True)
class Changed:
    """A picture and its changed copies, with the size of each change."""

    views: tuple[Pixels, ...]
    change: Float[Tensor, " m"]


@reasons.register
@dataclass(frozen=True)
class Characteristics:
    """The influence of hue, saturation, contrast, brightness, texture and shape on prototypes.

    Nauta, Jutte, Provoost & Seifert 2020 (arXiv 2011.02863):

        local    φ(m, p, x) = g(p, x) − g(p, x_m)
        global   φ(m, p) = Σ_x g(p, x) φ(m, p, x) / Σ_x g(p, x)

    - ``m``: a property of pictures, such as hue.
    - ``x``: a picture; ``x_m`` is the same picture after a change of ``m``.
    - ``p``: a prototype.
    - ``g``: the similarity, in the grid cell where the similarity of ``x`` is highest.

    A positive ``φ`` means that the similarity depends on the property. The authors use the strengths of
    :class:`~seewhy.prototypes.perturbations.PaperChanges`. The default,
    :class:`~seewhy.prototypes.perturbations.EqualChanges`, makes properties comparable. Where we differ from the
    authors' code: changed pictures are not saved as JPEG, and negative similarities have the weight 0 in the global
    mean.

    A picture takes 7 forward passes, whatever the number of prototypes, and 0.3 to 0.6 s on one core for the changes.
    An influence has the same range as the similarity.

    Args:
        changes: the properties to change, with their strengths.

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
        """Yield the influences on the similarities of each picture, in order.

        Args:
            encoder: the encoder.
            maps: function that returns the similarity of each prototype to each grid cell.
            pictures: files, pixels, or views.
            cells: grid cell ``(row, column)`` in which the similarity of each prototype is measured; default: the grid
                cell with the highest similarity.
            box: area of the view to change; default: the whole picture, as in the paper.
            follow: whether to measure the similarity of a changed copy in the grid cell where it is highest, instead of
                in that of the original picture (paper: ``False``).
            batch_size: pictures per batch.
        """
        per = max(1, batch_size // (len(PROPERTIES) + 1))
        stream = map_ahead(partial(changed, encoder.transform, changes=self.changes, box=box), pictures, 2 * per)
        while group := list(islice(stream, per)):
            with torch.no_grad():
                look = encoder.encode(encoder.pixels([view for one in group for view in one.views]))
                similarity = maps(look)
            if not similarity.isfinite().all():
                raise InputError("The similarities to prototypes are not finite on these pictures. Try --engine torch.")
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
        """Return the global influences over pictures, usually those of the training set."""
        total = len(pictures) if isinstance(pictures, Sized) else None
        stream = self.local(encoder, maps, pictures, batch_size=batch_size)
        tracked = (progress or Progress()).track(stream, "Changing pictures to see what matters", total)
        return GlobalInfluences.of(tracked, self.changes.name)


def changed(transform: Transform, picture: View, changes: Changes, box: FractionBox | None = None) -> Changed:
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
