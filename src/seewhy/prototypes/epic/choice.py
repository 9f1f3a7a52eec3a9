"""How far to rotate: prototypes, shrinkage and number of channels, chosen by purity on pictures held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...progress import Progress
from .procrustes import Procrustes
from .purity import Maps, purity, strongest
from .rotation import Rotation

SHRINKAGES = (0.05, 0.1, 0.2)
COUNTS = (20,)
PARTS = (0.5,)
PARAMETERS = ("n_prototypes", "shrinkage", "n_rotated")
FEW_ROUNDS, MOST_ROUNDS = 3, 8
"""While settings are compared, and at most for the one that is best."""
N_MEASURED = 5
"""Prototypes a channel whose purity is measured, as in the paper."""


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        rotation: fitted on the pictures to fit; see :func:`refitted`.
        how: the setting; ``None`` where leaving the channels as they are is best.
        tried: each setting with its purity on the pictures to choose on.
    """

    rotation: Rotation
    how: Procrustes | None
    tried: list[dict[str, Any]]


def mean_purity(maps: Maps, rotation: Rotation, m: int = N_MEASURED) -> float:
    """Mean purity of the ``m`` strongest pictures of every channel."""
    of = strongest(maps.pooled, rotation.matrix, m)
    return float(purity(maps, rotation.matrix, of, orthogonal=rotation.form == "orthogonal").mean())


def choose(fit: Maps, held: Maps, fixed: dict[str, Any], progress: Progress) -> Choice:
    """Try settings one parameter after the other, each from the best so far.

    Where all three are set, there is nothing to choose, and what is set is what is done.

    Args:
        fit: cells of the pictures to fit on.
        held: cells of the pictures to choose on.
        fixed: fields of :class:`Procrustes` the user has set.
        progress: hears of progress.
    """
    width = fit.pooled.shape[1]
    start = Rotation.identity(width)
    before = mean_purity(held, start)
    best = Choice(start, None, [{"rotation": "none", "purity": round(before, 5)}])
    highest = before
    setting = replace(Procrustes(n_prototypes=50, n_rounds=FEW_ROUNDS), **fixed)
    for number, steps in enumerate(_steps(width, fixed)):
        at_start = setting if best.how is None else best.how
        for change in progress.track(steps, f"Choosing {number + 1} of 3"):
            tried = replace(at_start, **change)
            rotation = tried.fit(fit)
            found = mean_purity(held, rotation)
            best.tried.append({**_named(tried, width), "purity": round(found, 5)})
            if found > highest or len(fixed) == len(PARAMETERS):
                highest, best = found, Choice(rotation, tried, best.tried)
    return best if best.how is None else _with_rounds(best, best.how, fit, held)


def refitted(choice: Choice, maps: Maps) -> Choice:
    """The setting that was chosen, fitted to more pictures: those it was chosen on as well."""
    return choice if choice.how is None else replace(choice, rotation=choice.how.fit(maps))


def _with_rounds(best: Choice, how: Procrustes, fit: Maps, held: Maps) -> Choice:
    """The same setting with as many rounds as are best for the pictures to choose on."""
    found = [(mean_purity(held, r), n, r) for n, r in enumerate(replace(how, n_rounds=MOST_ROUNDS).rounds(fit), 1)]
    highest, number, rotation = max(found, key=lambda one: one[:2])
    how = replace(how, n_rounds=number)
    return Choice(rotation, how, [*best.tried, {**_named(how, len(rotation.matrix)), "purity": round(highest, 5)}])


def _steps(width: int, fixed: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    yield [{}] if "shrinkage" in fixed else [{"shrinkage": s} for s in SHRINKAGES]
    yield [] if "n_prototypes" in fixed else [{"n_prototypes": m} for m in COUNTS]
    yield [] if "n_rotated" in fixed else [{"n_rotated": max(2, int(width * p))} for p in PARTS]


def _named(setting: Procrustes, width: int) -> dict[str, Any]:
    return {
        "n_prototypes": setting.n_prototypes,
        "shrinkage": setting.shrinkage,
        "n_rotated": setting.n_rotated or width,
        "n_rounds": setting.n_rounds,
    }


def setting_of(choice: Choice, width: int) -> dict[str, Any]:
    """The setting chosen, for people."""
    return {"n_rotated": 0} if choice.how is None else _named(choice.how, width)


def half_samples(n: int, draws: int, seed: int) -> Iterator[torch.Tensor]:
    """Random halves of ``n`` pictures: what a figure over other pictures of the kind might have been."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        yield torch.randperm(n, generator=draw)[: max(1, n // 2)]
