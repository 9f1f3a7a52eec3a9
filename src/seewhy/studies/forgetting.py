"""What an adaptation gained and what it lost: the same pictures before and after, for every task it may touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifiers.base import Classifier
from ..classifiers.encoded_set import encode_labelled
from ..classifiers.network import NamesClasses, ReadsPooled
from ..errors import DataError, ModelError
from ..learning.way import AGREES
from ..pictures.samples import Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from .before_after import accuracy_sums, calibration_sums, gap, harmonic, measure_row

Row = dict[str, Any]
NEW = "new classes"


@dataclass(frozen=True, eq=False)
class Told:
    """Pictures of one task, told by a network before and after.

    Attributes:
        name: of the task.
        pooled: pictures, before and after.
        labels: indices among ``classes``.
        classes: that they are told among.
        groups: pictures of the same thing have the same number.
    """

    name: str
    pooled: tuple[Float[Tensor, "n p"], Float[Tensor, "n q"]]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    groups: Int[Tensor, " n"] | None = None

    def logits(self, networks: Sequence[NamesClasses]) -> list[Float[Tensor, "n k"]]:
        """Before and after."""
        with torch.no_grad():
            both = zip(networks, self.pooled, strict=True)
            return [network.classifier(self.classes).head(pooled) for network, pooled in both]


def forgetting(
    after: Classifier,
    *,
    also: Mapping[str, Samples] | None = None,
    old: Classifier | None = None,
    against: NamesClasses | None = None,
    store: FeatureStore | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Row]:
    """A line per measure: before, after, the difference and its interval by resampling pictures, the same for both.

    Of the classes that were learnt, on the held-out pictures that nothing was chosen on; of other classes by their
    names; of both together, with the harmonic mean; of the encoder's own classes; and of the calibration (expected
    calibration error, 15 bins) of each.

    Args:
        after: the adapted classifier, as its recipe fitted it.
        also: labelled pictures of other classes, by a name for each set; those under ``"new classes"`` are also told
            among the learnt classes and theirs together.
        against: what stands before; left out, the encoder as it was.
        old: the classifier whose task was there before, with held-out pictures of its own.
        store: where looks are kept.
        seed: of the resampling.
        progress: hears of progress and failures.

    Raises:
        ModelError: the classifier tells no classes by name.
        DataError: none of a set's pictures can be read.
    """
    progress = progress or Progress()
    network = after.network
    if not isinstance(network, NamesClasses):
        raise ModelError(
            f"What {after.recipe!r} forgets of other classes was asked for, and it tells none by name. A classifier of "
            "a learnt prompt was expected. Make one with: seewhy adapt DATA --method coop -o {folder}"
        )
    both: tuple[NamesClasses, NamesClasses] = (against or network.untrained(), network)
    looks = (both[0].classifier(after.classes).encoder, after.encoder)
    tasks = [] if after.held_out is None else [_learnt(after)]
    tasks += [_other(name, s, looks, store, progress) for name, s in (also or {}).items()]
    if old is not None and old.held_out is not None:
        if looks[0].looks == looks[1].looks:
            tasks.append(_old(old))
        else:
            progress.note("pictures are seen otherwise now: the model's own classes are measured where --also has them")
    rows = [row for task in tasks for row in _rows(task, task.logits(both), seed)]
    known = next((t for t in tasks if t.name == LEARNT), None)
    new = next((t for t in tasks if t.name == NEW), None)
    if known is not None and new is not None:
        rows += _together(known, new, both, seed)
    return rows + _own_classes(tasks, both, seed, progress)


N_READ = 20_000
"""Texts read for the encoder's own classes, at most, where each picture has texts of its own."""
LEARNT = "these classes"
CALIBRATION = "calibration error, "


def is_calibration(row: Row) -> bool:
    """Whether less is better."""
    return str(row["measure"]).startswith(CALIBRATION)


def _learnt(after: Classifier) -> Told:
    held = after.held_out
    assert held is not None
    return Told(
        LEARNT,
        (held.pooled if held.before is None else held.before, held.pooled),
        held.labels,
        after.classes,
        held.groups,
    )


def _old(old: Classifier) -> Told:
    held = old.held_out
    assert held is not None
    return Told("the model's own classes", (held.pooled, held.pooled), held.labels, old.classes, held.groups)


def _other(name: str, samples: Samples, looks: Sequence[Any], store: FeatureStore | None, progress: Progress) -> Told:
    if len(samples.classes) < 2:
        raise DataError(
            f"The pictures of {name} have {len(samples.classes)} class. Two or more were expected, as they are told "
            "from one another. Give more classes, or leave it out."
        )
    before = encode_labelled(looks[0], samples.classes, samples, store, progress)
    if looks[0].looks == looks[1].looks:
        pooled = (before.pooled, before.pooled)
    else:
        pooled = (before.pooled, encode_labelled(looks[1], samples.classes, samples, store).pooled)
    return Told(name, pooled, before.labels, samples.classes)


def _rows(task: Told, logits: Sequence[Float[Tensor, "n k"]], seed: int) -> list[Row]:
    """Accuracy and calibration."""
    found = [one.softmax(1).max(1) for one in logits]
    right = [decided == task.labels for _, decided in found]
    gaps = [calibration_sums(confidence, r) for (confidence, _), r in zip(found, right, strict=True)]
    groups = None if task.groups is None else task.groups.unique(return_inverse=True)[1]
    return [
        measure_row(task.name, [accuracy_sums(r) for r in right], groups, seed),
        measure_row(f"{CALIBRATION}{task.name}", gaps, groups, seed, gap),
    ]


def _together(known: Told, new: Told, both: Sequence[NamesClasses], seed: int) -> list[Row]:
    """Learnt and new classes at once: told among all of them, and the harmonic mean of each among its own."""
    pooled = (torch.cat([known.pooled[0], new.pooled[0]]), torch.cat([known.pooled[1], new.pooled[1]]))
    labels = torch.cat([known.labels, len(known.classes) + new.labels])
    whole = Told("all classes together", pooled, labels, (*known.classes, *new.classes))
    right = [one.argmax(1) == labels for one in whole.logits(both)]
    parts = [[one.argmax(1) == t.labels for one in t.logits(both)] for t in (known, new)]
    n = len(known.labels)
    strata = torch.arange(len(labels)) >= n
    sums = []
    for k, other in zip(*parts, strict=True):
        one = torch.zeros(len(labels), 4)
        one[:n, :2], one[n:, 2:] = accuracy_sums(k), accuracy_sums(other)
        sums.append(one)
    return [
        measure_row(whole.name, [accuracy_sums(r) for r in right], None, seed),
        measure_row("harmonic mean", sums, None, seed, harmonic, strata.long()),
    ]


def _own_classes(tasks: Sequence[Told], both: Sequence[NamesClasses], seed: int, progress: Progress) -> list[Row]:
    """Is the encoder's own class still the one whose name is nearest?"""
    on = both[0].base
    layer = on.classifier
    if layer is None or len(on.classes) != layer.out_features or not tasks:
        return []
    first, last = (torch.cat([t.pooled[i] for t in tasks]) for i in (0, 1))
    if isinstance(both[1], ReadsPooled):  # every picture has texts of its own, and reading them takes its time
        some = torch.linspace(0, len(first) - 1, max(2, min(len(first), N_READ // len(on.classes)))).long()
        first, last = first[some], last[some]
    own = Told(AGREES, (first, last), layer(first).argmax(1), tuple(on.classes))
    logits = own.logits(both)
    right = [one.argmax(1) == own.labels for one in logits]
    return [measure_row(own.name, [accuracy_sums(r) for r in right], None, seed)]


def base_and_new(samples: Samples) -> tuple[Samples, Samples]:
    """The first half of the classes, the larger one, and the rest, as the protocol of CoCoOp cuts them."""
    if len(samples.classes) < 4:
        raise DataError(
            f"{len(samples.classes)} classes were given to be cut in learnt and new ones. Two of each or more were "
            "expected. Give more classes, or leave --base-to-new out."
        )
    cut = (len(samples.classes) + 1) // 2
    return of_classes(samples, samples.classes[:cut]), of_classes(samples, samples.classes[cut:])


def of_classes(samples: Samples, classes: Sequence[str]) -> Samples:
    """Those of these classes alone."""
    return replace(samples, items=samples.of(classes)[0], classes=tuple(classes))
