"""Labelled pictures with their features from one encoder, and their split into training and held-out pictures."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bounds import Bound, Checked
from ..clusters import connected, links, numbered
from ..encoders.base import Encoder
from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..errors import DataError
from ..heads.head import Head
from ..heads.votes import WordDecision
from ..pictures.samples import Sample, Samples, split, under_two_classes
from ..pictures.sources import natural_key
from ..progress import Progress
from ..spelling import nearest, suggestion
from ..storage.features import FeatureStore
from ..trust.groups import Grouping, group_by_looks, group_folds, hold_out_groups
from ..types import Crop
from .known_pictures import KnownPictures

MAX_HELD_OUT = 5000
HeldOutPart = Annotated[float, Bound(0, 0.9)]
Split = Literal["grouped", "random"]
"""Whether groups of pictures stay together in a split, or pictures are split at random."""


@dataclass(frozen=True)
class HeldOut:
    """Features of pictures that were not used for training.

    A linear classifier stores up to 5,000 such pictures, each of which was held out in one fold of cross-validation.
    """

    pooled: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    logits: Float[Tensor, "n k"] | None = None
    """Out-of-fold logits, whose softmax is calibrated."""
    groups: Int[Tensor, " n"] | None = None
    """Group numbers; pictures with the same number show the same object."""
    before: Float[Tensor, "n e"] | None = None
    """Features of the encoder before its adaptation, if it was adapted; not saved."""


@torch.no_grad()
def with_logits(head: Head, held: HeldOut | None) -> HeldOut | None:
    """Return a copy of the held-out pictures with the logits of a head."""
    return None if held is None else replace(held, logits=head(held.pooled))


def accuracy_by_words(head: Head, held: HeldOut) -> float:
    """Return the accuracy of predictions from a head's descriptions without the class names."""
    assert isinstance(head.votes, WordDecision)
    found = head.votes.by_words(head.feature(held.pooled) @ head.weight.T)
    return round(float((found == held.labels).float().mean()), 4)


@dataclass(frozen=True, eq=False)
class EncodedSet:
    """Pictures and their features from one encoder, whose fingerprint is ``encoder``.

    Pictures flagged in ``held`` are held out while settings are chosen. The final fit uses them, unless they are the
    user's validation pictures (``validation``). ``folds`` gives the fold in which each picture is held out, or -1.
    Groups of pictures stay together.
    """

    items: Sequence[Sample]
    encoded: Sequence[Encoded]
    classes: tuple[str, ...] = ()
    labels: Int[Tensor, " n"] = None  # type: ignore[assignment]
    held: Bool[Tensor, " n"] = None  # type: ignore[assignment]
    validation: bool = False
    grouping: Grouping | None = None
    folds: Int[Tensor, " n"] | None = None
    encoder: str = ""
    columns: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels is None:
            number = {name: i for i, name in enumerate(self.classes)}
            labels = torch.tensor([number.get(s.label, -1) for s in self.items], dtype=torch.long)
            object.__setattr__(self, "labels", labels)
        if self.held is None:
            object.__setattr__(self, "held", torch.zeros(len(self.labels), dtype=torch.bool))

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        items: Sequence[Sample],
        classes: Sequence[str] = (),
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Encode each picture's centre crop; ``progress`` reports unreadable pictures."""
        progress = progress or Progress()
        pairs = list(
            progress.results(
                items, encode_stream(encoder, [s.source for s in items], store=store), "Looking at pictures"
            )
        )
        _check_any(items, pairs, progress)
        kept, encoded = zip(*pairs, strict=True)
        return cls(kept, encoded, tuple(classes), encoder=encoder.fingerprint)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(one.digest for one in self.encoded)

    @cached_property
    def pooled(self) -> Float[Tensor, "n d"]:
        """Features of the centre crop of each picture."""
        return torch.stack([one.pooled[0] for one in self.encoded])

    @property
    def groups(self) -> Int[Tensor, " n"]:
        """Group number of each picture; pictures of the same object have the same number."""
        return torch.arange(len(self.labels)) if self.grouping is None else self.grouping.groups

    @property
    def final(self) -> Bool[Tensor, " n"]:
        """Mask of the pictures that the final fit uses."""
        return ~self.held if self.validation else torch.ones_like(self.held)

    @property
    def trained(self) -> list[int]:
        """Indices of the training pictures."""
        return (~self.held).nonzero()[:, 0].tolist()

    def subset(self, index: Sequence[int]) -> Self:
        index = list(index)
        return replace(
            self,
            items=[self.items[i] for i in index],
            encoded=[self.encoded[i] for i in index],
            labels=self.labels[index],
            held=self.held[index],
            grouping=None if self.grouping is None else replace(self.grouping, groups=self.grouping.groups[index]),
            folds=None if self.folds is None else self.folds[index],
            columns={name: [texts[i] for i in index] for name, texts in self.columns.items()},
        )

    def first(self, column: str) -> list[str]:
        """Return the first text of each picture in a column, or an empty string."""
        return [texts[0] if texts else "" for texts in self.columns[column]]

    def split(self, fraction: float, seed: int, *, by_class: bool = False) -> tuple[Self, Self]:
        """Split into training and held-out pictures; copies and groups stay together.

        With ``by_class``, the same fraction of every class is held out, if there are classes and no groups.
        """
        labels = [item.label for item in self.items]
        if by_class and all(labels) and not any(item.group for item in self.items):
            out = split(labels, self.digests, fraction, seed)
            own, held = ([i for i, flag in enumerate(out) if flag is side] for side in (False, True))
        else:
            own, held = parted(self.items, self.digests, fraction, seed)
        return self.subset(own), self.subset(held)

    def with_folds(self, n_folds: int, seed: int) -> Self:
        """Return the pictures in folds that keep groups together; the first fold is held out."""
        groups = self.groups.unique(return_inverse=True)[1]
        folds = group_folds(self.labels, groups, n_folds, seed)
        return replace(self, folds=folds, held=folds == 0)

    def rows(self, of: Bool[Tensor, " n"]) -> tuple[Float[Tensor, "r d"], Int[Tensor, " r"], Int[Tensor, " r"]]:
        """Return the features of every view of the pictures, their labels, and the picture index of each row."""
        index = of.nonzero()[:, 0]
        views = [self.encoded[i].pooled for i in index.tolist()]
        count = torch.tensor([len(v) for v in views])
        return torch.cat(views), self.labels[index].repeat_interleave(count), index.repeat_interleave(count)

    def held_out(self, most: int = MAX_HELD_OUT) -> HeldOut | None:
        """Return the features of the held-out pictures, one crop per picture."""
        index = evenly(self.held, most)
        return self.own_crops(index) if len(index) else None

    def own_crops(self, index: Int[Tensor, " m"]) -> HeldOut:
        return HeldOut(self.pooled[index], self.labels[index], groups=self.groups[index])

    def known(self, of: Bool[Tensor, " n"]) -> KnownPictures | None:
        """Return the digests and features that a classifier saves of its training pictures."""
        if not bool(of.any()):
            return None
        part = self.subset(of.nonzero()[:, 0].tolist())
        small = [m for one in part.encoded if (m := one.miniature) is not None]
        names = [s.image for s in part.items]
        miniatures = small if len(small) == len(part) else ()
        return KnownPictures.of(names, part.digests, part.pooled, self.encoder, miniatures)

    def held_by(self, encoder: Encoder, progress: Progress) -> tuple[Int[Tensor, " m"], HeldOut | None]:
        """Encode the held-out pictures with another encoder; return the readable ones' indices and features."""
        index = self.held.nonzero()[:, 0].tolist()
        stream = encode_stream(encoder, [self.items[i].source for i in index])
        again = list(progress.track(stream, "Looking at pictures again", len(index)))
        rows = {i: s.pooled[0] for i, s in zip(index, again, strict=True) if isinstance(s, Encoded)}
        places = torch.tensor([*rows], dtype=torch.long)
        if not rows:
            return places, None
        return places, HeldOut(torch.stack([*rows.values()]), self.labels[places], groups=self.groups[places])


def _check_any(items: Sequence[Sample], kept: Sequence[object], progress: Progress) -> None:
    if items and not kept:
        first = progress.failures[0]
        raise DataError(f"None of the {len(items)} pictures can be read. The first is {first.image}: {first.error}.")


def encode_labelled(
    encoder: Encoder,
    classes: Sequence[str],
    samples: Samples,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
) -> EncodedSet:
    """Encode the pictures of the given classes, and report how many pictures have other classes."""
    progress = progress or Progress()
    items, others = samples.of(classes)
    progress.note_all(others)
    return EncodedSet.of(encoder, items, classes, store, progress)


@dataclass(frozen=True)
class HoldOut(Checked):
    fraction: HeldOutPart = 0.2

    noun = "the split"
    seed: int = 0
    validation: Samples | None = None
    split: Split = "grouped"


def encode_samples(
    encoder: Encoder,
    samples: Samples,
    held_out: HoldOut,
    *,
    store: FeatureStore | None,
    progress: Progress,
    views: Callable[[Sample], Sequence[Crop | None]] = lambda _sample: (None,),
    features: bool = False,
    n_bank: int | None = None,
) -> EncodedSet:
    """Encode pictures, and split them into training and held-out pictures; unreadable pictures are reported and left
    out.

    ``views`` returns the crops of a training picture. With ``features``, all feature maps are stored. Otherwise,
    feature maps and pixels are stored for ``n_bank`` training pictures and ``n_bank`` held-out pictures, to take
    patches from.
    """
    validation = held_out.validation
    others = () if validation is None else validation.items
    if unknown := [c for c in (() if validation is None else validation.classes) if c not in samples.classes]:
        near = nearest(unknown[0], samples.classes, n=3, cutoff=0.4)
        raise DataError(
            f"The validation pictures have the class {unknown[0]!r}, which is not one of the "
            f"{len(samples.classes)} training classes. {suggestion(near, samples.classes)}"
        )
    progress.note_all(samples.notes + (() if validation is None else validation.notes))
    items, n_trained = [*samples.items, *others], len(samples)
    labels, own = [s.label for s in items], [i < n_trained for i in range(len(items))]
    parts = (own, [not flag for flag in own]) if n_bank else ()
    shown = {i for part in parts for i in spread(labels, part, n_bank or 0)}
    request = EncodeRequest(
        lambda i: features or i in shown,
        shown.__contains__,
        miniatures=True,
        views=lambda i: views(items[i]) if i < n_trained else (None,),
    )
    stream = encode_stream(encoder, [s.source for s in items], store=store, request=request)
    pairs = dict(progress.results(range(len(items)), stream, "Looking at pictures"))
    _check_any(items, [*pairs], progress)
    kept, encoded = [items[i] for i in pairs], [*pairs.values()]
    if validation is None:
        pictures = hold_out(kept, encoded, held_out, progress)
    else:
        pictures = _hold_validation(kept, encoded, [i >= n_trained for i in pairs], held_out.split, progress)
    return replace(pictures, encoder=encoder.fingerprint)


def hold_out(items: Sequence[Sample], encoded: Sequence[Encoded], how: HoldOut, progress: Progress) -> EncodedSet:
    """Hold out some of the pictures; pictures of the same object stay together."""
    names, digests, seed = [s.label for s in items], [s.digest for s in encoded], how.seed
    pictures = EncodedSet(items, encoded, _classes(items))
    doubled = under_two_classes(names, digests)
    twice = len({d for d, is_double in zip(digests, doubled, strict=True) if is_double})
    if twice:
        progress.note(f"{twice} picture(s) have exact copies in more than one class; these are never held out")
    with progress.doing("Grouping pictures that look alike"):
        grouping = _grouping(pictures, how.split)
    labels, groups = pictures.labels, grouping.groups
    if how.split == "random":
        held = torch.tensor(split(names, digests, how.fraction, seed))
    else:
        held = hold_out_groups(labels, groups, how.fraction, seed)
    n_folds = 0 if how.fraction <= 0 else min(10, max(2, round(1 / how.fraction)))
    folds = group_folds(labels, groups, n_folds, seed) if n_folds else None
    if twice:
        astray = torch.isin(groups, groups[torch.tensor(doubled)])
        held &= ~astray
        folds = None if folds is None else folds.masked_fill(astray, -1)
    return replace(pictures, held=held, grouping=grouping, folds=folds)


def _hold_validation(
    items: Sequence[Sample], encoded: Sequence[Encoded], held: Sequence[bool], by: Split, progress: Progress
) -> EncodedSet:
    """Hold out the user's validation pictures, except copies of training pictures."""
    own = [i for i, out in enumerate(held) if not out]
    classes, known = _classes([items[i] for i in own]), {encoded[i].digest for i in own}
    names = set(classes)
    copies = [out and s.digest in known for s, out in zip(encoded, held, strict=True)]
    keep = [i for i, s in enumerate(items) if s.label in names and not copies[i]]
    if any(copies):
        progress.note(f"left out {sum(copies)} validation picture(s) that are exact copies of training pictures")
    if len(keep) == len(own):
        raise DataError(
            "Every validation picture is unreadable, or is a copy of a training picture. Give other validation "
            "pictures, or leave validation out."
        )
    pictures = EncodedSet(items, encoded, classes, held=torch.tensor(held), validation=True).subset(keep)
    with progress.doing("Grouping pictures that look alike"):
        grouping = _grouping(pictures, by)
    shared = torch.isin(grouping.groups[pictures.held], grouping.groups[~pictures.held])
    if grouping.by == "given" and bool(shared.any()):  # by looks, chance alone joins more the more pictures there are
        progress.note(
            f"{int(shared.sum())} of {len(shared)} validation pictures are in groups of the training pictures, so the "
            "accuracy is too high"
        )
    return replace(pictures, grouping=grouping)


def _grouping(pictures: EncodedSet, by: Split) -> Grouping:
    """Group pictures with equal bytes and, except for a random split, equal names or looks."""
    copies = numbered(pictures.digests)
    if by == "random":
        return Grouping(copies, "copies")
    if any(s.group is not None for s in pictures.items):
        names = numbered([i if s.group is None else s.group for i, s in enumerate(pictures.items)])
        return Grouping(connected(len(names), links(names), links(copies)), "given")
    kinds = numbered([s.kind for s in pictures.items]) if any(s.kind for s in pictures.items) else None
    return group_by_looks(pictures.pooled, pictures.labels, pictures.digests, kinds)


def _classes(items: Sequence[Sample]) -> tuple[str, ...]:
    classes = tuple(sorted({s.label for s in items}, key=natural_key))
    if len(classes) < 2:
        raise DataError(
            f"At least two classes must have readable pictures, got {len(classes)}. Put the pictures "
            "of each class into one folder."
        )
    return classes


def parted(items: Sequence[Sample], digests: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of training and held-out items; copies and groups stay together."""
    whole = [item.group or digest for item, digest in zip(items, digests, strict=True)]
    distinct = sorted(set(whole))
    if len(distinct) < 4:
        raise DataError(
            f"At least four different pictures with texts are required, got {len(distinct)}. Give more pairs."
        )
    random.Random(f"{seed}|pairs").shuffle(distinct)
    held = set(distinct[: max(2, round(fraction * len(distinct)))])
    rows: tuple[list[int], list[int]] = ([], [])
    for i, one in enumerate(whole):
        rows[one in held].append(i)
    return rows


def evenly(flags: Bool[Tensor, " n"], most: int) -> Int[Tensor, " m"]:
    """Return up to ``most`` indices of true flags, evenly spaced."""
    index = flags.nonzero()[:, 0]
    return index if len(index) <= most else index[torch.linspace(0, len(index) - 1, most).long()]


def spread(labels: Sequence[Hashable], among: Sequence[bool], most: int) -> list[int]:
    """Return the indices of up to ``most`` flagged pictures, spread evenly over the classes."""
    cap = max(1, most // max(len(set(labels)), 1))
    taken: dict[Hashable, int] = defaultdict(int)
    chosen = []
    for i, label in enumerate(labels):
        if among[i] and taken[label] < cap:
            taken[label] += 1
            chosen.append(i)
    return chosen
