"""Learning a few classes by their names, and what becomes of all others: the protocol around one recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from ..classifiers import classifiers
from ..classifiers.base import Classifier
from ..classifiers.encoded_set import encode_labelled
from ..classifiers.figures import linear_fit
from ..classifiers.fitting import PictureRecipe
from ..classifiers.network import NamesClasses
from ..encoders.base import Encoder
from ..errors import DataError, InputError
from ..pictures.samples import Samples
from ..progress import Progress
from ..storage.features import FeatureStore
from ..trust.measure import trust_features
from .before_after import accuracy_sums, measure_row
from .forgetting import NEW, base_and_new, forgetting, is_calibration, of_classes


@dataclass(frozen=True)
class AdaptingData:
    """What is learnt from, and what it is measured on.

    Attributes:
        samples: labelled pictures.
        validation: others of the same classes, to choose and to measure on; left out, a part of ``samples``.
        base_to_new: whether the first half of the classes alone is learnt, and the rest measured by name.
        new_names: of classes without pictures, for methods that learn for them; none is read unless given.
        also: labelled pictures of other classes, by a name for each set.
    """

    samples: Samples
    validation: Samples | None = None
    base_to_new: bool = False
    new_names: tuple[str, ...] = ()
    also: Mapping[str, Samples] = field(default_factory=dict)

    def parted(self) -> AdaptingData:
        """With the new classes among those that are also measured, where they are to be."""
        if not self.base_to_new:
            return self
        base, new = base_and_new(self.samples)
        validation = self.validation
        if validation is not None:
            missing = [c for c in new.classes if c not in validation.classes]
            if len(missing) == len(new.classes):
                raise DataError(
                    f"The validation pictures have none of the {len(new.classes)} new classes ({new.classes[0]!r}, …). "
                    "Pictures of them were expected, as they are measured there. Add some, or leave validation out."
                )
            new = of_classes(validation, [c for c in new.classes if c not in missing])
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
    """A classifier by a recipe, with the forgetting table among its measures."""
    progress = progress or Progress()
    parts = data.parted()
    plain: Classifier | None = None
    if data.new_names:
        with_names = learning_for(recipe, data.new_names, parts.samples.classes)
        beside = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.plain")
        plain = recipe.fit(on, parts.samples, validation=parts.validation, store=store, checkpoint=beside)
        recipe = with_names
    made = recipe.fit(
        on, parts.samples, validation=parts.validation, store=store, progress=progress, checkpoint=checkpoint
    )
    rows = forgetting(made, also=parts.also, old=old, store=store, seed=recipe.seed, progress=progress)
    if (row := beside_fit(made, on, parts.samples, store=store, seed=recipe.seed)) is not None:
        rows.append(row)
        if row["real"] and row["difference"] > 0:
            progress.note(
                f"seewhy fit with the same pictures, even without its crops, is right for {100 * row['after']:.1f} % "
                f"where this is for {100 * row['before']:.1f} %: take fit, unless other classes are to be named"
            )
    if plain is not None and isinstance(plain.network, NamesClasses):
        told = forgetting(made, against=plain.network, also=parts.also, store=store, seed=recipe.seed)
        rows += [{**row, "measure": f"by the new names: {row['measure']}"} for row in told if not is_calibration(row)]
        progress.note("by the new names: before is the same without them, after is with them")
    return replace(made, measures={**made.measures, "forgetting": rows})


BESIDE_FIT = "these classes, beside seewhy fit"


def beside_fit(
    made: Classifier, on: Encoder, samples: Samples, *, store: FeatureStore | None = None, seed: int = 0
) -> dict[str, Any] | None:
    """What ``fit`` with the same pictures, without its crops, tells of those held out, beside the adapted one.

    ``None`` where nothing was held out.
    """
    held, names = made.held_out, set(made.known.names if made.known is not None else ())
    own = replace(samples, items=tuple(item for item in samples.items if item.image in names))
    if held is None or held.logits is None or not own.items:
        return None
    seen = encode_labelled(on, made.classes, own, store)
    fit = linear_fit(trust_features(seen.pooled.float()), seen.labels, len(made.classes))
    pooled = held.pooled if held.before is None else held.before
    right = [held.logits.argmax(1) == held.labels, fit(trust_features(pooled.float())).argmax(1) == held.labels]
    groups = None if held.groups is None else held.groups.unique(return_inverse=True)[1]
    return measure_row(BESIDE_FIT, [accuracy_sums(one) for one in right], groups, seed)


def recipe_named(method: str | PictureRecipe, **parameters: Any) -> PictureRecipe:
    """A recipe by its name, with these of its fields; or the one that was given."""
    if not isinstance(method, str):
        return replace(cast(Any, method), **parameters) if parameters else method
    kind = classifiers[method]
    if not issubclass(kind, PictureRecipe):
        able = ", ".join(n for n in classifiers if issubclass(classifiers[n], PictureRecipe))
        raise InputError(f"{method} is not made from pictures. One of {able} was expected. Take one of those.")
    own = {f.name for f in fields(cast(Any, kind))}
    if strange := [name for name in parameters if name not in own]:
        raise InputError(
            f"{method} was given {strange[0]}. It has {', '.join(sorted(own))}. Leave it out, or take another method."
        )
    return kind(**parameters)


def learning_for(recipe: PictureRecipe, names: tuple[str, ...], classes: tuple[str, ...]) -> PictureRecipe:
    """The recipe with names of classes that have no pictures."""
    made = cast(Any, recipe)
    if "new_names" not in {f.name for f in fields(made)}:
        raise InputError(
            f"Names of new classes were given to {recipe.name!r}, which learns nothing for classes without pictures. A "
            "method that does was expected, ogen for one. Take that, or drop the names."
        )
    same = [name for name in names if name in classes]
    if same:
        raise InputError(
            f"The new name {same[0]!r} is one of the {len(classes)} classes with pictures. Names of other classes were "
            "expected. Drop it."
        )
    found: PictureRecipe = replace(made, new_names=names)
    return found
