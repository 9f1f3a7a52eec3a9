"""Shortcuts that an audit looks for: what lies around the object, and one place of the frame."""

from __future__ import annotations

import random
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ...classifiers.base import Classifier
from ...errors import DataError
from ...explanation.base import Explanation, Where
from ...pictures.samples import gathered
from ..background import BackgroundStudy
from ..background_verdict import Pixels
from ..bootstrap import paired_means
from .contract import Figure, Limit, Material, missing

GRID, WINDOW = 8, 2
"""The frame is cut into 8 by 8 cells; a place is 2 by 2 of them, a sixteenth of the frame."""
N_ELSEWHERE = 3
"""Other places that are exchanged beside it, for each picture."""
FEWEST = 10


def background(material: Material, limit: Limit) -> Figure:
    """Score on backgrounds of the own class less that on those of others (:class:`~seewhy.studies.background`)."""
    if material.masks is None:
        return missing("Nobody says where the objects are. Give --masks or --object.")
    study, samples = BackgroundStudy(n_draws=200, seed=material.seed), gathered(list(material.items))
    try:
        found = study.run(material.classifier, samples, material.masks, progress=material.progress)
    except DataError as error:
        return missing(str(error))
    masks, difference = found.data["masks"], found.data["all"]["difference"]
    if not masks["by_hand"] and not masks["check"]["hit"]:
        return missing(
            f"Filling what the masks ({masks['source']}) cover costs no more than filling as much "
            "elsewhere, so they may miss the object. Give masks that people drew."
        )
    low, high = difference["interval"]
    return Figure(difference["value"], (low, high), found.data["n"], found.sentence)


def one_place(material: Material, limit: Limit) -> Figure:
    """Decisions that follow one place of the frame, whatever the object: a watermark, a date, a border.

    The place is the sixteenth of the frame, outside its middle, that holds most of the heat on average; it is looked
    for on one half of the cards and tried on the other, and the other way round, so that it is not chosen where it is
    measured. There the pixels are exchanged with those of a picture that is decided otherwise. The figure is the part
    of decisions that change, less that where other places of the same size, outside the middle too, are exchanged with
    the same picture; interval by paired resampling of pictures. A mark in the middle of the frame, where objects are,
    or at a place that changes is not found.

    Cost: 4 forward passes a card.
    """
    heated = [(c, c.where.heat) for c in material.explained if isinstance(c.where, Where) and not c.where.is_zero]
    cards = [card for card, _ in heated]
    if len(cards) < FEWEST:
        return missing(f"{len(cards)} cards have a map. {FEWEST}, at least, are needed. Explain more pictures.")
    if len({c.prediction.label for c in cards}) < 2:
        return missing("All cards decide for one class, so that nothing can be exchanged. Explain more pictures.")
    mass = torch.stack([_mass(torch.from_numpy(heat)) for _, heat in heated])
    halves = [list(range(0, len(cards), 2)), list(range(1, len(cards), 2))]
    places = [_place(mass[other].mean(0)) for other in reversed(halves)]
    changed = torch.zeros(len(cards), 2)
    for half, place in zip(halves, places, strict=True):
        for i in half:
            changed[i] = torch.tensor(_changed(material.classifier, cards, i, place, material.seed + i))
    found = paired_means(changed, seed=material.seed)
    value, interval, _ = found.difference(0, 1)
    here, elsewhere = found.values.tolist()
    boxes = [_box(place) for place in places]
    said = f"When {_told(boxes)} is exchanged, {here:.1%} of decisions change, and {elsewhere:.1%} when others are."
    held = [mass[half][:, row, column].mean() for half, (row, column) in zip(halves, places, strict=True)]
    return Figure(value, interval, len(cards), said, {
        "boxes": [list(b) for b in boxes], "share": round(float(torch.stack(held).mean()), 4),
        "changed": round(here, 4), "changed_elsewhere": round(elsewhere, 4),
    })  # fmt: skip


def _mass(heat: Float[Tensor, "h w"]) -> Float[Tensor, "r c"]:
    """Part of what speaks for the class in each place; 0 in the middle, where objects are."""
    full = interpolate(heat.clamp(min=0)[None, None].float(), size=(GRID * 4, GRID * 4), mode="nearest-exact")
    cells = avg_pool2d(full, 4)[0, 0]
    return avg_pool2d((cells / cells.sum().clamp(min=1e-12))[None, None], WINDOW, 1)[0, 0] * WINDOW**2


def _border() -> list[tuple[int, int]]:
    """Places that are not in the middle half of the frame, both ways."""
    middle = range(GRID // 4, GRID - GRID // 4 - WINDOW + 1)
    n = GRID - WINDOW + 1
    return [(r, c) for r in range(n) for c in range(n) if r not in middle or c not in middle]


def _place(mass: Float[Tensor, "r c"]) -> tuple[int, int]:
    return max(_border(), key=lambda place: float(mass[place]))


def _changed(
    classifier: Classifier, cards: list[Explanation], i: int, place: tuple[int, int], seed: int
) -> tuple[float, float]:
    """Whether the decision changes with the place, and how often with others; by one picture decided otherwise."""
    rng = random.Random(seed)
    other = rng.choice([c for c in cards if c.prediction.label != cards[i].prediction.label])
    apart = [p for p in _border() if max(abs(p[0] - place[0]), abs(p[1] - place[1])) >= WINDOW]
    views = [_exchanged(cards[i].view, other.view, p) for p in (place, *rng.sample(apart, N_ELSEWHERE))]
    encoder = classifier.encoder
    with torch.no_grad():
        decided = classifier.head.probabilities(encoder.pooled(encoder.pixels(views))).argmax(1)
    changed = [float(classifier.classes[k] != cards[i].prediction.label) for k in decided.tolist()]
    return changed[0], sum(changed[1:]) / N_ELSEWHERE


def _exchanged(view: Pixels, other: Pixels, place: tuple[int, int]) -> Pixels:
    height, width = view.shape[:2]
    left, top, right, bottom = _box(place)
    rows = slice(round(top * height), round(bottom * height))
    columns = slice(round(left * width), round(right * width))
    found = view.copy()
    found[rows, columns] = other[rows, columns]
    return found


def _box(place: tuple[int, int]) -> tuple[float, float, float, float]:
    row, column = place
    return (column / GRID, row / GRID, (column + WINDOW) / GRID, (row + WINDOW) / GRID)


def _told(boxes: list[Any]) -> str:
    """Where a place is, in words."""
    names = []
    for left, top, right, bottom in boxes:
        across, down = (left + right) / 2, (top + bottom) / 2
        side = "left" if across < 0.4 else "right" if across > 0.6 else "middle"
        names.append(f"the {'upper' if down < 0.4 else 'lower' if down > 0.6 else 'middle'} {side}")
    return names[0] if names[0] == names[1] else f"{names[0]} (in one half of the cards, {names[1]} in the other)"
