"""What a classifier is fitted on and measured on: pictures after one look, some of them held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..encoders.base import Encoder
from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..errors import DataError
from ..heads.head import Head
from ..pictures.samples import Sample, Samples, copies_under_two_classes, split, under_two_classes
from ..progress import Progress
from ..spelling import nearest
from ..storage.features import FeatureStore
from ..trust.groups import Grouping, group_by_copies, group_by_looks, group_by_names, group_folds, hold_out_groups
from ..types import Crop
from .base import HeldOut
from .known_pictures import KnownPictures

MAX_HELD_OUT = 5000
MAX_FRACTION = 0.9
Split = Literal["grouped", "random"]
"""Pictures of the same thing on one side, or each picture by itself."""


@dataclass(frozen=True)
class Pictures:
    """Pictures that could be read.

    Attributes:
        items: with their classes' names.
        seen: what the encoder saw, all views.
        classes: of the pictures to train on.
        labels: index of each one's class.
        held: not trained on while choosing.
        validation: whether those held are the user's own validation pictures, which the final fit leaves out too.
        grouping: which of them show the same thing.
        seen_by: fingerprint of what saw them.
        folds: of each picture, for classifiers that are fitted several times, so that each picture is held out once;
            -1 is never held out. Groups are whole in them, as in ``held``.
    """

    items: Sequence[Sample]
    seen: Sequence[Encoded]
    classes: tuple[str, ...]
    labels: Int[Tensor, " n"]
    held: Bool[Tensor, " n"]
    validation: bool = False
    grouping: Grouping | None = None
    folds: Int[Tensor, " n"] | None = None
    seen_by: str = ""

    @property
    def groups(self) -> Int[Tensor, " n"]:
        """Pictures of the same thing have the same number."""
        return torch.arange(len(self.labels)) if self.grouping is None else self.grouping.groups

    @property
    def final(self) -> Bool[Tensor, " n"]:
        """Trained on in the end."""
        return ~self.held if self.validation else torch.ones_like(self.held)

    @property
    def trained(self) -> list[int]:
        """Places of those trained on while choosing."""
        return (~self.held).nonzero()[:, 0].tolist()

    def only(self, index: Sequence[int]) -> Pictures:
        """Those in these places."""
        return Pictures(
            [self.items[i] for i in index],
            [self.seen[i] for i in index],
            self.classes,
            self.labels[index],
            self.held[index],
            self.validation,
            None if self.grouping is None else replace(self.grouping, groups=self.grouping.groups[index]),
            None if self.folds is None else self.folds[index],
            self.seen_by,
        )

    def rows(self, of: Bool[Tensor, " n"]) -> tuple[Float[Tensor, "r d"], Int[Tensor, " r"], Int[Tensor, " r"]]:
        """Features of every view of these pictures, their labels, and which picture each row is of."""
        index = of.nonzero()[:, 0]
        views = [self.seen[i].pooled for i in index.tolist()]
        count = torch.tensor([len(v) for v in views])
        return torch.cat(views), self.labels[index].repeat_interleave(count), index.repeat_interleave(count)

    def held_out(self, most: int = MAX_HELD_OUT) -> HeldOut | None:
        """The held-out pictures, each by its own crop alone, as it is predicted."""
        index = some_of(self.held, most)
        return self.own_crops(index) if len(index) else None

    def known(self, encoder: Encoder, of: Bool[Tensor, " n"]) -> KnownPictures | None:
        """What is remembered of these pictures, once a classifier was fitted on them; looked at with this encoder."""
        index = of.nonzero()[:, 0].tolist()
        if not index:
            return None
        pooled = torch.stack([self.seen[i].pooled[0] for i in index])
        names, digests = [self.items[i].image for i in index], [self.seen[i].digest for i in index]
        small = [m for i in index if (m := self.seen[i].miniature) is not None]
        return KnownPictures.of(names, digests, pooled, encoder.fingerprint, small if len(small) == len(index) else ())

    def own_crops(self, index: Int[Tensor, " m"]) -> HeldOut:
        """These pictures, each by its own crop alone."""
        pooled = torch.stack([self.seen[i].pooled[0] for i in index.tolist()])
        return HeldOut(pooled, self.labels[index], groups=self.groups[index])

    def looked_again(self, encoder: Encoder, progress: Progress) -> tuple[Int[Tensor, " m"], HeldOut | None]:
        """The held-out pictures as another encoder sees them: places of those that can still be read, and these."""
        index = self.held.nonzero()[:, 0].tolist()
        stream = encode_stream(encoder, [self.items[i].source for i in index])
        looked = list(progress.track(stream, "Looking again", len(index)))
        found = [(i, s.pooled[0]) for i, s in zip(index, looked, strict=True) if isinstance(s, Encoded)]
        places = torch.tensor([i for i, _ in found], dtype=torch.long)
        if not found:
            return places, None
        pooled = torch.stack([row for _, row in found])
        return places, HeldOut(pooled, self.labels[places], groups=self.groups[places])


@dataclass(frozen=True)
class HoldOut:
    """Which pictures are measured on, and not trained on.

    Attributes:
        fraction: of the pictures themselves, where no others are given.
        seed: of that draw.
        validation: the user's own for it.
        split: whether pictures of the same thing stay together.
    """

    fraction: float = 0.2
    seed: int = 0
    validation: Samples | None = None
    split: Split = "grouped"

    def __post_init__(self) -> None:
        if self.split not in ("grouped", "random"):
            raise DataError(f"There is no split called {self.split!r}. Use grouped or random.")
        if not 0 <= self.fraction <= MAX_FRACTION:
            raise DataError(
                f"The part of the pictures to hold out is {self.fraction}. A number from 0 to {MAX_FRACTION} was "
                "expected. Give 0.2, say."
            )


def look_at(
    encoder: Encoder,
    samples: Samples,
    held_out: HoldOut,
    *,
    store: FeatureStore | None,
    progress: Progress,
    views: Callable[[Sample], Sequence[Crop | None]] = lambda _sample: (None,),
    features: bool = False,
    n_bank: int | None = None,
) -> Pictures:
    """See pictures once, and hold some of them out; a broken one is reported and left out."""
    validation = held_out.validation
    if validation is not None:
        check_labels(samples, validation)
    for note in samples.notes + (() if validation is None else validation.notes):
        progress.note(note)
    items = list(samples.items) + ([] if validation is None else list(validation.items))

    def views_of(index: int) -> Sequence[Crop | None]:
        return views(items[index]) if index < len(samples) else (None,)

    kept: list[Sample] = []
    found: list[Encoded] = []
    held: list[bool] = []
    shown = _patched(items, len(samples), n_bank or 0)
    request = EncodeRequest(lambda i: features or i in shown, shown.__contains__, miniatures=True, views=views_of)
    stream = encode_stream(encoder, [s.source for s in items], store=store, request=request)
    for i, seen in progress.results(range(len(items)), stream, "Looking"):
        kept.append(items[i])
        found.append(seen)
        held.append(i >= len(samples))
    if items and not kept:
        first = progress.failures[0]
        raise DataError(f"None of the {len(items)} pictures can be read; the first, {first.image}: {first.error}.")
    if validation is None:
        pictures = hold_out(kept, found, held_out, progress)
    else:
        pictures = hold_validation(kept, found, held, held_out.split, progress)
    return replace(pictures, seen_by=encoder.fingerprint)


def _patched(items: Sequence[Sample], n_trained: int, n_bank: int) -> set[int]:
    """Places of the pictures that evidence is made of, should all be readable."""
    labels = [s.label for s in items]
    trained = [i < n_trained for i in range(len(items))]
    parts = (trained, [not mine for mine in trained]) if n_bank else ()
    return {i for part in parts for i in spread(labels, part, n_bank)}


def check_labels(samples: Samples, validation: Samples) -> None:
    """Refuse validation pictures of a class that is not trained on."""
    trained_on = set(samples.classes)
    strange = [c for c in validation.classes if c not in trained_on]
    if strange:
        near = nearest(strange[0], samples.classes, n=3, cutoff=0.4)
        raise DataError(
            f"The validation pictures have the class {strange[0]!r}, which is not among the {len(samples.classes)} to "
            f"train on. {'Did you mean' if near else 'The first are'} "
            f"{', '.join(map(repr, near or samples.classes[:5]))}? Name the classes alike in both."
        )


def hold_out(items: Sequence[Sample], seen: Sequence[Encoded], how: HoldOut, progress: Progress) -> Pictures:
    """Hold out part of the pictures themselves, those of the same thing together."""
    classes = _classes(items)
    names, digests = [s.label for s in items], [s.digest for s in seen]
    twice = copies_under_two_classes(names, digests)
    if twice:
        progress.note(f"{twice} picture(s) lie in more than one class, byte for byte; neither copy is held out")
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number[n] for n in names])
    grouping = _grouping(items, seen, labels, how.split)
    groups, seed = grouping.groups, how.seed
    if how.split == "random":
        held = torch.tensor(split(names, digests, how.fraction, seed))
    else:
        held = hold_out_groups(labels, groups, how.fraction, seed)
    n_folds = 0 if how.fraction <= 0 else min(10, max(2, round(1 / how.fraction)))
    folds = group_folds(labels, groups, n_folds, seed) if n_folds else None
    if twice:
        astray = torch.isin(groups, groups[torch.tensor(under_two_classes(names, digests))])
        held &= ~astray
        folds = None if folds is None else folds.masked_fill(astray, -1)
    return Pictures(items, seen, classes, labels, held, grouping=grouping, folds=folds)


def _grouping(items: Sequence[Sample], seen: Sequence[Encoded], labels: Int[Tensor, " n"], by: Split) -> Grouping:
    digests = [s.digest for s in seen]
    if by == "random":
        return group_by_copies(digests)
    if any(s.group is not None for s in items):
        names = [f"picture {i}" if s.group is None else f"group {s.group}" for i, s in enumerate(items)]
        return group_by_names(names, digests)
    return group_by_looks(torch.stack([s.pooled[0] for s in seen]), labels, digests)


@torch.no_grad()
def said_of(head: Head, held: HeldOut | None) -> HeldOut | None:
    """The same, with the logits of a head that saw none of these pictures."""
    return None if held is None else replace(held, logits=head(held.pooled))


def some_of(flags: Bool[Tensor, " n"], most: int) -> Int[Tensor, " m"]:
    """Places of true flags, of too many as many as wanted, evenly."""
    index = flags.nonzero()[:, 0]
    return index if len(index) <= most else index[torch.linspace(0, len(index) - 1, most).long()]


def hold_validation(
    items: Sequence[Sample], seen: Sequence[Encoded], held: Sequence[bool], by: Split, progress: Progress
) -> Pictures:
    """Hold out the user's validation pictures, without those that are training pictures too."""
    train = [s for s, out in zip(items, held, strict=True) if not out]
    classes = _classes(train)
    known = {s.digest for s, out in zip(seen, held, strict=True) if not out}
    copies = [out and s.digest in known for s, out in zip(seen, held, strict=True)]
    number = {name: i for i, name in enumerate(classes)}
    keep = [i for i, s in enumerate(items) if s.label in number and not copies[i]]
    if any(copies):
        progress.note(f"{sum(copies)} validation picture(s) are training pictures too, byte for byte, and left out")
    if len(keep) == len(train):
        raise DataError(
            "No validation picture can be used: none can be read, or all are training pictures too. "
            "Give pictures that are not trained on, or leave validation out."
        )
    labels = torch.tensor([number[items[i].label] for i in keep])
    flags = torch.tensor([held[i] for i in keep])
    kept, looked = [items[i] for i in keep], [seen[i] for i in keep]
    grouping = _grouping(kept, looked, labels, by)
    shared = torch.isin(grouping.groups[flags], grouping.groups[~flags])
    if bool(shared.any()):
        progress.note(
            f"{int(shared.sum())} of {len(shared)} validation pictures look like shots of things that are trained on, "
            "and flatter the figures"
        )
    return Pictures(kept, looked, classes, labels, flags, True, grouping)


def _classes(items: Sequence[Sample]) -> tuple[str, ...]:
    from ..pictures.listing import natural_key

    classes = tuple(sorted({s.label for s in items}, key=natural_key))
    if len(classes) < 2:
        raise DataError(
            f"Only {len(classes)} class has a readable picture; at least two are needed. "
            "Put the pictures of each class into a folder of its own."
        )
    return classes


def spread(labels: Sequence[Hashable], among: Sequence[bool], most: int) -> list[int]:
    """Up to ``most`` pictures of those flagged, as evenly spread over the classes as can be, in order.

    Example:
        >>> spread([0, 0, 0, 1, 2, 2], [True] * 6, 3)
        [0, 3, 4]
    """
    cap = max(1, most // max(len(set(labels)), 1))
    taken: dict[Hashable, int] = defaultdict(int)
    found = []
    for i, label in enumerate(labels):
        if among[i] and taken[label] < cap:
            taken[label] += 1
            found.append(i)
    return found
