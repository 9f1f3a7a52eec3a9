"""The one look: a picture goes in, an :class:`~seewhy.explanation.Explanation` comes out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..attributions import attributions
from ..attributions.shares import cell_evidence, shares, strongest_cells
from ..classifiers.head import Target
from ..encoders.base import Look
from ..explanation import Explanation
from ..features import Seen, Wish, see
from ..store import FeatureStore
from ..types import Failure
from .agreement import agree
from .like import show_like
from .where import regions, show_where
from .words import show_words, words_heat

if TYPE_CHECKING:
    from ..classifiers.base import Classifier


@dataclass(frozen=True)
class ExplainOptions:
    """What to explain and how.

    Attributes:
        where: registered attribution.
        target: class to explain; left out, the predicted one.
        contrast: class to explain the target against; left out, none.
        measure: whether deletion and insertion are run.
        n_regions: lettered regions.
        top: classes listed.
        seed: of shuffled maps and ties.
    """

    where: str = "grad_cam"
    target: str | None = None
    contrast: str | None = None
    measure: bool = True
    n_regions: int = 3
    top: int = 5
    seed: int = 0


def explain_all(
    classifier: Classifier,
    sources: Iterable[Any],
    options: ExplainOptions,
    *,
    store: FeatureStore | None = None,
    batch_size: int = 16,
) -> Iterator[Explanation | Failure]:
    """Explain pictures as a stream, in order."""
    method = attributions[options.where]()
    target = None if options.target is None else classifier.index_of(options.target)
    contrast = None if options.contrast is None else classifier.index_of(options.contrast)
    wish = Wish(features=lambda _index: True, pictures=True)
    stream = see(classifier.encoder, sources, store=store, wish=wish, batch_size=batch_size)
    while batch := list(itertools.islice(stream, batch_size)):
        good = [s for s in batch if isinstance(s, Seen)]
        made = iter(_explain_batch(classifier, good, options, method, target, contrast)) if good else iter(())
        for one in batch:
            yield one if isinstance(one, Failure) else next(made)


def _explain_batch(
    classifier: Classifier,
    seen: Sequence[Seen],
    options: ExplainOptions,
    method: Any,
    target: int | None,
    contrast: int | None,
) -> Iterator[Explanation]:
    look = Look(torch.stack([s.features for s in seen if s.features is not None]), torch.cat([s.pooled for s in seen]))
    probabilities = classifier.head.probabilities(look.pooled)
    index = probabilities.argmax(1) if target is None else torch.full((len(seen),), target)
    goal = Target(index, None if contrast is None else torch.full((len(seen),), contrast))
    heats = method(classifier, look, goal)
    share = shares(cell_evidence(classifier, look, goal))
    grids = classifier.encoder.layout.to_grid(look.features)
    for i, one in enumerate(seen):
        yield _assemble(
            classifier, one, options, probabilities[i], int(index[i]), contrast, heats[i], share[i], grids[i]
        )


def _assemble(
    classifier: Classifier,
    one: Seen,
    options: ExplainOptions,
    probabilities: torch.Tensor,
    target: int,
    contrast: int | None,
    heat: torch.Tensor,
    share: torch.Tensor,
    grid: torch.Tensor,
) -> Explanation:
    assert one.picture is not None
    other = contrast if contrast is not None else _runner_up(probabilities, target)
    cells = strongest_cells(share, options.n_regions)
    parts = regions(share, cells, one.picture)
    pixels = classifier.encoder.pixels([one.picture.pixels])[0] if options.measure else None
    where = show_where(
        classifier,
        heat,
        pixels,
        method=options.where,
        target=target,
        contrast=contrast,
        parts=parts,
        seed=options.seed,
    )
    pooled = one.pooled[0]
    like = show_like(classifier, grid, pooled, one.digest, cells, parts, target)
    words = show_words(classifier, pooled, target, other)
    spoken = words_heat(classifier, grid, pooled, target, other)
    label = classifier.classes[target]
    return Explanation(
        classifier.prediction(one.name, probabilities, options.top),
        one.picture.pixels,
        where,
        like,
        words,
        agree(label, heat, spoken, like, words, classifier.decided_by_words),
        classifier.provenance(),
    )


def _runner_up(probabilities: torch.Tensor, target: int) -> int:
    """The most probable class beside the target; the target itself when it is the only one."""
    if len(probabilities) == 1:
        return target
    rest = probabilities.clone()
    rest[target] = -1
    return int(rest.argmax())
