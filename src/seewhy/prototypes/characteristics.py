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
from .influences import GlobalInfluences, Influences, Sums, SumsFile
from .perturbations import PROPERTIES, Changes, EqualChanges, Pixels, picture_change

Maps = Callable[[EncoderOutput], Float[Tensor, "b p h w"]]
"""What a method of prototypes must offer: the similarity of each prototype to each cell of each picture, larger when
more alike; a cosine, a channel's activation, a logarithm of a distance. It runs no trunk and no gradient."""

View = Picture | One
"""A picture as the network saw it (a ``Picture``), or a file or pixels still to be read."""


@dataclass(frozen=True)
class Changed:
    """One picture and its changed copies, as the network will see them.

    Attributes:
        views: the picture first, then one for each property, uint8 ``(h, w, 3)``.
        change: how much each copy differs from the picture, root mean square over the view, 0…255.
    """

    views: tuple[Pixels, ...]
    change: Float[Tensor, " m"]


@reasons.register
@dataclass(frozen=True)
class Characteristics:
    """How much hue, saturation, contrast, brightness, texture and shape matter to prototypes.

    Nauta, Jutte, Provoost & Seifert 2020 (arXiv 2011.02863). One property ``m`` of a picture ``x`` is changed, and the
    similarity ``g`` to a prototype ``p`` is read again in the cell where it was highest before::

        local    φ(m, p, x) = g(p, x) − g(p, x_m)                     positive: m matters
        global   φ(m, p) = Σ_x g(p, x) φ(m, p, x) / Σ_x g(p, x)       over the training pictures

    It follows the authors' code, with their strengths as :class:`~seewhy.prototypes.perturbations.PaperChanges`. It
    differs in this: changed pictures are not saved as JPEG in between; negative similarities, which cosines can be,
    weigh nothing in the global mean; sums are streamed, so memory does not grow with the pictures. Ours is
    :class:`~seewhy.prototypes.perturbations.EqualChanges`, the default: with the paper's strengths the properties
    cannot be compared with each other, as a turn of the hue is a much larger change than its smoothing is.

    Cost: 7 forward passes a picture, whatever the number of prototypes; 0.3 to 0.6 s a picture on one core for the
    changes. Range: that of the similarity.

    Args:
        changes: what is changed and how strongly.

    Example:
        >>> Characteristics().changes.name, len(PROPERTIES)
        ('calibrated', 6)
    """

    name = "characteristics"
    paper = "Nauta et al. 2020, arXiv 2011.02863"
    needs = "prototypes that are compared with cells of the feature map"
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
        """The influences on each picture's similarities, in order, one result a picture.

        Args:
            encoder: what looks.
            maps: similarity of each prototype in each cell.
            pictures: files, pixels, or views.
            cells: where each prototype is read, as (row, column); left out, in the cell where it is highest.
            box: part of the view outside of which nothing is changed; left out, the whole picture is changed, as in
                the paper. The difference between the two is the influence of the surroundings.
            follow: read the changed copies where *they* are highest. Not the paper's.
            batch_size: pictures the engine sees at once.

        Raises:
            ImageError: a picture cannot be read.
            InputError: the maps are not finite.
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
        checkpoint: SumsFile | None = None,
        progress: Progress | None = None,
        batch_size: int = 32,
    ) -> GlobalInfluences:
        """The similarity-weighted means over pictures, as a rule the training pictures."""
        sums = Sums() if checkpoint is None else checkpoint.load()
        total = len(pictures) - sums.n if isinstance(pictures, Sized) else None
        stream = self.local(encoder, maps, islice(pictures, sums.n, None), batch_size=batch_size)
        for one in (progress or Progress()).track(stream, "Changing pictures", total):
            sums.add(one)
            if checkpoint is not None:
                checkpoint.keep(sums)
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
    """The views of one picture and its changed copies.

    Changes that belong on the original are made there, before the picture is resized; a view, which has no original
    any more, is changed itself.
    """
    if not isinstance(picture, Picture) and not changes.on_view:
        original = _original(transform, picture, getattr(changes, "longest", None))
        views = [read_picture(p, transform).pixels for p in (original, *changes(original))]
    else:
        view = picture.pixels if isinstance(picture, Picture) else read_picture(picture, transform).pixels
        views = [view, *changes(view)]
    if box is not None:
        views = [views[0], *(_inside(views[0], view, box) for view in views[1:])]
    differences = [picture_change(views[0], view) for view in views[1:]]
    return Changed(tuple(views), torch.tensor(differences))


def _original(transform: Transform, picture: One, longest: int | None) -> Pixels:
    """The upright picture, reduced if it is larger than asked for."""
    width, height = read_picture(picture, transform).original_size
    scale = 1.0 if longest is None else min(1.0, longest / max(width, height))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return read_picture(picture, Transform(size, size, transform.interpolation, transform.mean, transform.std)).pixels


def _inside(view: Pixels, other: Pixels, box: FractionBox) -> Pixels:
    """The other picture inside the box, the view outside."""
    height, width = view.shape[:2]
    left, top, right, bottom = box
    mixed = view.copy()
    part = np.s_[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    mixed[part] = other[part]
    return mixed
