"""Measure what a classifier gains and forgets by adaptation, on the same pictures before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifiers.base import Classifier
from ..classifiers.certainty import linear_fit
from ..classifiers.encoded_set import encode_labelled
from ..classifiers.fitting import PictureRecipe, recipe_named
from ..classifiers.network import NamesClasses, ReadsPooled
from ..encoders.base import Encoder
from ..errors import DataError, InputError, ModelError
from ..learning.adaptation.prompts import other_names
from ..learning.way import AGREES
from ..pictures.samples import Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from ..trust.measure import trust_features
from .bootstrap import CALIBRATION, accuracy_sums, harmonic, measure_row, told_rows
from .study import Row

NEW, LEARNT, BESIDE_FIT = "new classes", "these classes", "these classes, beside seewhy fit"
N_READ = 20_000
"""Largest number of texts encoded for the original classes, if each picture has its own texts."""


@dataclass(frozen=True, eq=False)
class Told:
    """Pictures of one task, encoded before and after adaptation."""

    name: str
    pooled: tuple[Float[Tensor, "n p"], Float[Tensor, "n q"]]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    groups: Int[Tensor, " n"] | None = None

    @classmethod
    def held(cls, name: str, of: Classifier) -> list[Told]:
        if (held := of.held_out) is None:
            return []
        before = held.pooled if held.before is None or name != LEARNT else held.before
        return [cls(name, (before, held.pooled), held.labels, of.classes, held.groups)]

    def logits(self, networks: Sequence[NamesClasses]) -> list[Float[Tensor, "n k"]]:
        with torch.no_grad():
            both = zip(networks, self.pooled, strict=True)
            return [network.classifier(self.classes).head(pooled) for network, pooled in both]

    def right(self, networks: Sequence[NamesClasses]) -> list[Float[Tensor, "n 2"]]:
        return [accuracy_sums(logits.argmax(1) == self.labels) for logits in self.logits(networks)]


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
    """Return a row for each measure: the values before and after adaptation, and the difference with its interval.

    Accuracy and calibration are measured on learnt classes (held-out pictures), on other classes, on both together, and
    on the encoder's original classes.
    """
    progress = progress or Progress()
    network = after.network
    if not isinstance(network, NamesClasses):
        raise ModelError(
            f"Forgetting can be measured only for a classifier with a learnt prompt, got {after.recipe!r}. Fit one "
            f"with seewhy adapt DATA --method coop -o {{folder}}"
        )
    both: tuple[NamesClasses, NamesClasses] = (against or network.untrained(), network)
    looks = (both[0].classifier(after.classes).encoder, after.encoder)
    tasks = Told.held(LEARNT, after)
    for name, samples in (also or {}).items():
        if len(samples.classes) < 2:
            raise DataError(f"The pictures of {name} must have at least two classes, got {len(samples.classes)}.")
        before = now = encode_labelled(looks[0], samples.classes, samples, store, progress)
        if looks[0].looks != looks[1].looks:
            now = encode_labelled(looks[1], samples.classes, samples, store)
        tasks.append(Told(name, (before.pooled, now.pooled), before.labels, samples.classes))
    if old is not None and old.held_out is not None:
        if looks[0].looks == looks[1].looks:
            tasks += Told.held("the model's own classes", old)
        else:
            progress.note(
                "The encoder has changed, so the original classes of the model are measured only on pictures of --also"
            )
    rows = []
    for task in tasks:
        found = [logits.softmax(1).max(1) for logits in task.logits(both)]
        rows += told_rows(task.name, [(decided == task.labels, p) for p, decided in found], task.groups, seed)
    known, new = (next((t for t in tasks if t.name == name), None) for name in (LEARNT, NEW))
    if known is not None and new is not None:
        rows += _together(known, new, both, seed)
    return rows + _own_classes(tasks, both, seed)


def _together(known: Told, new: Told, both: Sequence[NamesClasses], seed: int) -> list[Row]:
    """Return the rows of all classes together, and of the harmonic mean."""
    pooled = (torch.cat([known.pooled[0], new.pooled[0]]), torch.cat([known.pooled[1], new.pooled[1]]))
    labels, n = torch.cat([known.labels, len(known.classes) + new.labels]), len(known.labels)
    whole = Told("all classes together", pooled, labels, (*known.classes, *new.classes))
    sums = []
    for learnt, other in zip(known.right(both), new.right(both), strict=True):
        one = torch.zeros(len(labels), 4)
        one[:n, :2], one[n:, 2:] = learnt, other
        sums.append(one)
    strata = (torch.arange(len(labels)) >= n).long()
    return [
        measure_row(whole.name, whole.right(both), seed=seed),
        measure_row("harmonic mean", sums, None, seed, harmonic, strata),
    ]


def _own_classes(tasks: Sequence[Told], both: Sequence[NamesClasses], seed: int) -> list[Row]:
    """Return the agreement of zero-shot predictions with the encoder's original classifier."""
    on = both[0].base
    layer = on.classifier
    if layer is None or len(on.classes) != layer.out_features or not tasks:
        return []
    first, last = (torch.cat([t.pooled[i] for t in tasks]) for i in (0, 1))
    if isinstance(both[1], ReadsPooled):  # every picture has its own texts, which are slow to encode
        some = torch.linspace(0, len(first) - 1, max(2, min(len(first), N_READ // len(on.classes)))).long()
        first, last = first[some], last[some]
    own = Told(AGREES, (first, last), layer(first).argmax(1), tuple(on.classes))
    return [measure_row(own.name, own.right(both), seed=seed)]


def base_and_new(samples: Samples) -> tuple[Samples, Samples]:
    """Split the classes into a first half and the rest, as CoCoOp does; the first half is the larger half."""
    if len(samples.classes) < 4:
        raise DataError(f"--base-to-new needs at least four classes, got {len(samples.classes)}.")
    cut = (len(samples.classes) + 1) // 2
    return of_classes(samples, samples.classes[:cut]), of_classes(samples, samples.classes[cut:])


def of_classes(samples: Samples, classes: Sequence[str]) -> Samples:
    return replace(samples, items=samples.of(classes)[0], classes=tuple(classes))


@dataclass(frozen=True)
class AdaptingData:
    """Training pictures, and pictures for measurement."""

    samples: Samples
    validation: Samples | None = None
    base_to_new: bool = False
    new_names: tuple[str, ...] | None = None
    also: Mapping[str, Samples] = field(default_factory=dict)

    def parted(self) -> AdaptingData:
        """Return the data with the new classes separated, if ``base_to_new`` is set."""
        if not self.base_to_new:
            return self
        base, new = base_and_new(self.samples)
        validation = self.validation
        if validation is not None:
            there = [c for c in new.classes if c in validation.classes]
            if not there:
                raise DataError(
                    f"`validation` must have pictures of the {len(new.classes)} new classes ({new.classes[0]!r}, …), "
                    "and has none. Add some, or leave validation out."
                )
            new = of_classes(validation, there)
            validation = of_classes(validation, [c for c in base.classes if c in validation.classes])
        return replace(self, samples=base, validation=validation, also={NEW: new, **self.also})


def adapt_names(
    recipe: PictureRecipe,
    on: Encoder,
    data: AdaptingData,
    *,
    old: Classifier | None = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Classifier:
    """Fit a classifier by a recipe, with its forgetting table among the measures."""
    progress = progress or Progress()
    parts = data.parted()
    how: dict[str, Any] = {"validation": parts.validation, "store": store}
    recipe = unaware(recipe, [name for samples in parts.also.values() for name in samples.classes])
    plain: Classifier | None = None
    if data.new_names is not None:
        with_names = _learning_for(recipe, data.new_names, parts.samples.classes)
        if data.new_names:
            aside = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.plain")
            plain = recipe.fit(on, parts.samples, **how, checkpoint=aside)
        recipe = with_names
    made = recipe.fit(on, parts.samples, **how, progress=progress, checkpoint=checkpoint)
    rows = forgetting(made, also=parts.also, old=old, store=store, seed=recipe.seed, progress=progress)
    rows += (beside := _beside_fit(made, on, parts.samples, store, recipe.seed))
    if beside and beside[0]["real"] and beside[0]["difference"] > 0:
        progress.note(
            f"A linear classifier (seewhy fit) on the same pictures has an accuracy of {100 * beside[0]['after']:.1f} "
            f"%, and this classifier {100 * beside[0]['before']:.1f} %. Use fit, unless you want to name other classes"
        )
    if plain is not None and isinstance(plain.network, NamesClasses):
        told = forgetting(made, against=plain.network, also=parts.also, store=store, seed=recipe.seed)
        told = [row for row in told if not row["measure"].startswith(CALIBRATION)]
        rows += [{**row, "measure": f"by the new names: {row['measure']}"} for row in told]
        progress.note(
            "In rows that begin with “by the new names”, “before” is without these names and “after” is with them"
        )
    return replace(made, measures={**made.measures, "forgetting": rows})


def _beside_fit(
    made: Classifier, on: Encoder, samples: Samples, store: FeatureStore | None, seed: int
) -> list[dict[str, Any]]:
    """Return the accuracy of a linear classifier on the same features, compared with the adapted classifier."""
    held, names = made.held_out, set(made.known.names if made.known is not None else ())
    own = replace(samples, items=tuple(item for item in samples.items if item.image in names))
    if held is None or held.logits is None or not own.items:
        return []
    seen = encode_labelled(on, made.classes, own, store)
    fit = linear_fit(trust_features(seen.pooled.float()), seen.labels, len(made.classes))
    pooled = held.pooled if held.before is None else held.before
    both = [held.logits, fit(trust_features(pooled.float()))]
    right = [accuracy_sums(logits.argmax(1) == held.labels) for logits in both]
    return [measure_row(BESIDE_FIT, right, held.groups, seed)]


def unaware(recipe: PictureRecipe, names: Sequence[str]) -> PictureRecipe:
    """Return a copy of the method that does not choose the names of tested classes as unknown names."""
    own: Any = recipe
    if not hasattr(own, "excluded"):
        return recipe
    return replace(own, excluded=tuple(dict.fromkeys([*own.excluded, *names])))


def _learning_for(recipe: PictureRecipe, names: tuple[str, ...], classes: tuple[str, ...]) -> PictureRecipe:
    """Return a copy of the method with the names of classes without pictures."""
    if not hasattr(recipe, "new_names"):
        raise InputError(
            f"{recipe.name!r} cannot use the names of classes without pictures. Use a method that can, such as ogen, "
            "or leave the names out."
        )
    return recipe_named(recipe, {"new_names": other_names(names, classes)})
