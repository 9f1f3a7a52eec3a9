"""Pages of many pictures: the index of cards, detected boxes and masks, and the findings of a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..explanation.base import Explanation
from ..explanation.prediction import Certainty
from ..explanation.verdict import Level, Missing
from ..types import Failure
from .card import sign_of
from .page import LEVELS, layer_uri, photo_uri, render
from .palette import blend, class_colours, named_colours

THUMBNAIL_SIDE = 256
QUESTIONS = ("Where it looked", "What it looks like", "In words")
SHORT = ("where", "like", "words")
DOUBT: tuple[Level, ...] = ("do not rely", "partly", "not measured", "believable")
"""Levels from most to least doubtful."""
MOST_SHOWN = 200
"""Largest number of pictures on a page."""
MOST_BOXES = 300
"""Largest number of boxes drawn on a picture."""
LAYER_SIDE, OPACITY = 900, 150
"""Longer side of a mask layer in pixels, and its opacity, 0 to 255."""
FINDINGS_SHOWN = 200
"""Largest number of findings per kind on the page."""
FINDING_SIDE = 128


@dataclass(frozen=True)
class IndexEntry:
    """The fields of an explanation that the index page shows."""

    href: str
    image: str
    label: str
    score: float
    second: tuple[str, float] | None
    levels: tuple[Level, ...]
    thumbnail: str
    aside: str = ""
    verdict: Certainty = "not measured"
    sign: tuple[Level, str] = ("not measured", LEVELS["not measured"])
    """Level of the decision, with a short text."""
    probability: float | None = None
    is_measured: bool = False
    trouble: float | None = None
    title: str = ""
    """First line of the card, if it is not the class."""

    @property
    def doubt(self) -> tuple[float, int, float]:
        """Sort key of the index, most doubtful first."""
        worst = min(DOUBT.index(level) for level in self.levels)
        return -(1.0 if self.trouble is None else self.trouble), worst, self.score


def index_entry(explanation: Explanation, href: str) -> IndexEntry:
    """Return the index entry of an explanation; ``href`` is the address of its card."""
    e = explanation
    picture = Image.fromarray(e.view if isinstance(e.where, Missing) else blend(e.view, e.where.heat, 0.7))
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    levels: dict[str, Level] = {} if e.part is None else {"part": "not measured"}  # for a part, this level comes first
    levels |= {answer.key: answer.level for answer in e.answers if answer.key not in ("seen", "typical")}
    second, decision = next(iter(e.prediction.top[1:]), None), e.prediction.decision
    return IndexEntry(
        href=href,
        image=e.prediction.image,
        label=e.prediction.label,
        score=e.prediction.score,
        second=(second.label, second.score) if second else None,
        levels=tuple(levels.values()),
        thumbnail=photo_uri(np.asarray(picture), quality=82),
        aside=". ".join(said for said in (e.part.name if e.part else "", e.aside) if said),
        verdict="not measured" if decision is None else decision.verdict,
        sign=("not measured", LEVELS["not measured"]) if decision is None else sign_of(decision),
        probability=e.prediction.probability,
        is_measured=e.prediction.is_measured,
        trouble=None if decision is None else decision.doubt,
        title=e.prediction.title,
    )


def render_index(
    entries: Sequence[IndexEntry],
    failures: Sequence[Failure] = (),
    title: str = "Explanations",
    nouns: tuple[str, str] = ("picture", "pictures"),
    classes: Sequence[str] = (),
) -> str:
    """Return the index page of a batch; a folder with the name of one of the ``classes`` has pictures of this class."""
    of_parts = any(len(entry.levels) > len(QUESTIONS) for entry in entries)
    ordered = sorted(entries, key=lambda entry: (*entry.doubt, entry.image))
    by_name = sorted(ordered, key=lambda entry: entry.image.casefold())
    by_score = sorted(ordered, key=lambda entry: -1.0 if entry.probability is None else entry.probability)
    names = {id(entry): rank for rank, entry in enumerate(by_name)}
    scores = {id(entry): rank for rank, entry in enumerate(by_score)}
    labels = sorted({entry.label for entry in entries}, key=str.casefold)
    outcomes = {id(entry): _outcomes(entry, classes) for entry in entries}
    return render(
        "index.html",
        "index.js",
        title=title,
        nouns=nouns,
        cards=[
            (entry, rank, names[id(entry)], scores[id(entry)], *outcomes[id(entry)])
            for rank, entry in enumerate(ordered)
        ],
        outcomes=Counter(outcome for _, every in outcomes.values() for outcome in every if outcome),
        classes=[(label, sum(entry.label == label for entry in entries)) for label in labels],
        failures=failures,
        questions=[*(["Inside it, or outside"] if of_parts else []), *QUESTIONS],
        short=[*(["inside"] if of_parts else []), *SHORT],
        of_parts=of_parts,
        n_unknown=sum(entry.verdict == "unlike anything it knows" for entry in entries),
        n_unreliable=sum("do not rely" in entry.levels for entry in entries),
    )


def _outcomes(entry: IndexEntry, classes: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the class by which a folder of the picture is named, if any, and what the prediction is: right, sure, …"""
    true = next((name for name in reversed(Path(entry.image).parts[:-1]) if name in classes), "")
    outcome = "" if not true or entry.verdict == "unlike anything it knows" else ("wrong", "right")[true == entry.label]
    return true, (outcome, entry.verdict)


def render_regions(results: Sequence[Any], n: int | None = None) -> str:
    """Return a page of pictures with boxes or masks; ``n`` is the number of all pictures."""
    figures, n = [_figure(result) for result in results[:MOST_SHOWN]], n or len(results)
    first = results[0]
    about = {"about": first.about, "classes": first.classes, "masks": hasattr(first, "mask")}
    return render("regions.html", None, figures=figures, n=n, n_left_out=n - len(figures), **about)


def _figure(result: Any) -> dict[str, Any]:
    (width, height), name = result.size, Path(result.image).name
    head = {"name": name, "image": result.image, "width": width, "height": height, "not_found": result.not_found}
    return {**head, "photo": photo_uri(result.pixels), **(_layer if hasattr(result, "mask") else _boxes)(result)}


def _layer(result: Any) -> dict[str, Any]:
    named = named_colours(result.classes)
    step = max(1, -(-max(result.size) // LAYER_SIDE))
    mask = result.mask[::step, ::step]
    layer = np.zeros((*mask.shape, 4), np.uint8)
    for index, colour in enumerate(class_colours(len(result.classes))):
        layer[mask == index] = (*colour, OPACITY)
    rows = [{"label": s.label, "colour": named[s.label], "share": s.share, "score": s.score} for s in result.regions]
    return {"layer": layer_uri(layer), "boxes": [], "rows": rows, "unnamed": result.unnamed, "n_not_drawn": 0}


def _boxes(result: Any) -> dict[str, Any]:
    (width, height), named = result.size, named_colours(result.classes)
    boxes = []
    for d in result.regions[:MOST_BOXES]:
        left, top, right, bottom = d.box
        place = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        boxes.append({"label": d.label, "score": d.score, "colour": named[d.label], "place": [100 * v for v in place]})
    counts = Counter(d.label for d in result.regions)
    rows = [{"label": label, "n": n, "colour": named[label]} for label, n in counts.most_common()]
    # The box with the highest score is drawn last.
    return {"boxes": boxes[::-1], "rows": rows, "unnamed": 0, "n_not_drawn": len(result.regions) - len(boxes)}


def check_context(
    check: dict[str, Any], kinds: Mapping[str, tuple[str, str]], read: Callable[[str], np.ndarray | None]
) -> dict[str, Any]:
    """Return the template variables of the page of a check."""

    @cache
    def uri(name: str) -> str | None:
        pixels = read(name)
        if pixels is None:
            return None
        small = Image.fromarray(pixels)
        small.thumbnail((FINDING_SIDE, FINDING_SIDE))
        return photo_uri(np.asarray(small), 75)

    parts = []
    for kind, (name, todo) in kinds.items():
        found = [f for f in check["findings"] if f["kind"] == kind]
        if found:
            shown = found[:FINDINGS_SHOWN]
            parts.append({"kind": kind, "name": name, "todo": todo, "n": len(found), "findings": shown})
    headline = check["sentence"].rstrip(".").partition(": ")[0]
    looked_for = ", ".join(name.lower() for name, _ in kinds.values())
    return {**check, "headline": headline, "looked_for": looked_for, "parts": parts, "uri": uri}
