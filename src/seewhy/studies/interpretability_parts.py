"""Pictures in three sets, train, choose and test, as several encoders see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..classifiers.encoded_set import EncodedSet, encode_labelled
from ..encoders.base import Encoder
from ..errors import DataError
from ..pictures.samples import Sample, Samples, split
from ..progress import Progress
from ..storage.features import FeatureStore
from .interpretability_score import Parts

TESTED, CHOOSING = 0.25, 0.2
"""Part of all pictures to test on, and of the others to choose on."""


@dataclass(frozen=True, eq=False)
class Seen:
    """The same pictures, in the same order, by every encoder.

    Attributes:
        items: pictures that every encoder could look at.
        digests: of their files.
        labels: index of each one's class.
        pooled: features, an encoder each.
        is_test: which were given to test on, where some were.
    """

    items: tuple[Sample, ...]
    digests: tuple[str, ...]
    labels: Int[Tensor, " n"]
    pooled: tuple[Float[Tensor, "n _"], ...]
    is_test: Bool[Tensor, " n"] | None


def look(
    encoders: Sequence[Encoder], samples: Samples, test: Samples | None, store: FeatureStore | None, progress: Progress
) -> Seen:
    """Look with every encoder; what one of them cannot look at is left out for all, and told once.

    Raises:
        DataError: fewer than two classes, or no picture that all can look at.
    """
    if len(samples.classes) < 2:
        given = f"one class, {samples.classes[0]}" if samples.classes else "no classes"
        raise DataError(f"The pictures have {given}. Two or more were expected. Add pictures of another class.")
    both = [samples] if test is None else [samples, test]
    quiet = Progress()
    found: list[list[EncodedSet]] = []
    for i, encoder in enumerate(encoders):
        heard = progress if i == 0 else quiet
        found.append([encode_labelled(encoder, samples.classes, one, store, heard) for one in both])
    for failure in quiet.failures:
        if failure.image not in {f.image for f in progress.failures}:
            progress.failed(failure)
    shared = set.intersection(*({id(s) for one in looked for s in one.items} for looked in found))
    if not shared:
        raise DataError("No picture can be looked at by all encoders. Some were expected. Compare fewer encoders.")
    kept = [[[i for i, s in enumerate(one.items) if id(s) in shared] for one in looked] for looked in found]
    first = list(zip(found[0], kept[0], strict=True))
    return Seen(
        tuple(one.items[i] for one, rows in first for i in rows),
        tuple(one.digests[i] for one, rows in first for i in rows),
        torch.cat([one.labels[rows] for one, rows in first]),
        tuple(
            torch.cat([one.pooled[rows] for one, rows in zip(looked, own, strict=True)])
            for looked, own in zip(found, kept, strict=True)
        ),
        None if test is None else torch.cat([torch.full((len(r),), bool(j)) for j, (_, r) in enumerate(first)]),
    )


def divide(seen: Seen, classes: Sequence[str], seed: int, progress: Progress) -> Parts:
    """Three sets; copies of a picture, and pictures of one group, are in one of them.

    Raises:
        DataError: a class has too few pictures, or a set has fewer than two classes.
    """
    labels = [item.label for item in seen.items]
    things = [item.group or digest for item, digest in zip(seen.items, seen.digests, strict=True)]
    given = seen.is_test
    needed = 3 if given is None else 2
    for name in classes:
        mine = [i for i, label in enumerate(labels) if label == name and (given is None or not given[i])]
        n = len({things[i] for i in mine})
        if n < needed:
            raise DataError(
                f"The class {name} has {n} different picture{'' if n == 1 else 's'}. {needed} or more were expected, "
                f"to train on{', to choose on and to test on' if given is None else ' and to choose on'}. Add pictures "
                "of it, or leave it out."
            )
    test = torch.tensor(split(labels, things, TESTED, seed)) if given is None else given
    shown = {thing for thing, held in zip(things, test.tolist(), strict=True) if held}
    twice = torch.tensor([thing in shown for thing in things]) & ~test
    if bool(twice.any()):
        progress.note(f"{int(twice.sum())} picture(s) are also among the test pictures; they were not trained on.")
    rest = (~test & ~twice).nonzero()[:, 0].tolist()
    chosen = split([labels[i] for i in rest], [things[i] for i in rest], CHOOSING, seed + 1)
    selection = torch.zeros_like(test)
    selection[[i for i, is_chosen in zip(rest, chosen, strict=True) if is_chosen]] = True
    parts = Parts(~test & ~twice & ~selection, selection, test)
    for rows, what in ((parts.train, "train on"), (parts.selection, "choose on"), (parts.test, "test on")):
        there = set(seen.labels[rows].tolist())
        if len(there) < 2:
            raise DataError(
                f"There are {int(rows.sum())} pictures of {len(there)} class(es) to {what}. Two classes or more were "
                "expected. Add pictures."
            )
        if absent := [c for i, c in enumerate(classes) if i not in there]:
            progress.note(f"The class {absent[0]} has no picture to {what}: what is said is said of the others.")
    return parts
