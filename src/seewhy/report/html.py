"""The card as a page: what the template needs, laid out from an explanation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..explanation.base import Explanation, Region, Where, Word, Words
from ..explanation.similar import Display, Like, Likeness
from ..explanation.verdict import Missing
from ..types import FractionBox
from .because import bars_of, scale_of
from .certainty import figures_of as decision_figures
from .certainty import heading, odds, own_scores, sign_of
from .curve import Chart, ceiling, points
from .glossary import TERMS
from .heat import overlay
from .page import figure, layer_uri, percent, photo_uri, render
from .part import part_page, part_terms
from .perceived import SMALL, seen_page, seen_terms
from .typical import typical_page

N_TOP = 5
QUESTIONS = (
    ("where", "Where it looked"),
    ("like", Display.title),
    ("words", "In words"),
)
OVERLAY_SIDE = 256


def render_html(explanation: Explanation) -> str:
    """The card: one page that needs nothing but itself."""
    return render("card.html", "card.js", **card_context(explanation))


def card_context(e: Explanation) -> dict[str, Any]:
    """What the card's template shows, for every page that has the card on it."""
    regions = regions_of(e)
    return {
        "prediction": e.prediction,
        "runner_up": runner_up(e),
        "decision": e.prediction.decision,
        "sign": sign_of(e.prediction.decision),
        "heading": heading(e),
        "odds": odds(e),
        "own_scores": own_scores(e.prediction),
        "decision_figures": decision_figures(e.prediction.decision),
        "top": e.prediction.top[:N_TOP],
        "n_classes": e.prediction.n_classes,
        "photo": photo_uri(e.view),
        "size": e.view.shape[:2],
        "heat": _heat_uri(e),
        "heat_title": heat_title(e.where),
        "regions": [_region(region) for region in regions],
        "questions": [(key, title, getattr(e, key)) for key, title in questions_of(e)],
        "where": _present(e.where),
        "charts": charts_of(e.where),
        "like": _present(e.like),
        "rows": like_rows(e),
        "words": _present(e.words),
        "groups": word_groups(e),
        "figures": figures_of(e),
        "agreement": e.agreement,
        "aside": e.aside,
        "heat_of": e.subject.of_goal if e.subject else heat_title(e.where),
        "of_curves": f"{_quantity(e)} {heat_title(e.where)}",
        "model": e.model,
        "terms": TERMS + seen_terms(e.seen) + part_terms(e.part),
        "alt": picture_alt(e),
        "seen": seen_page(e.seen),
        "typical": typical_page(e.typical),
        "part": part_page(e),
        "is_small": e.view.shape[1] < SMALL,
    }


def _present(evidence: Where | Like | Words | Missing) -> Where | Like | Words | None:
    return None if isinstance(evidence, Missing) else evidence


def questions_of(e: Explanation) -> tuple[tuple[str, str], ...]:
    """The kinds of evidence with their titles; likenesses have one of their own where their method says so."""
    like = QUESTIONS[1][1] if isinstance(e.like, Missing) else e.like.display.title
    return tuple((key, like if key == "like" else title) for key, title in QUESTIONS)


def regions_of(e: Explanation) -> tuple[Region, ...]:
    return () if isinstance(e.where, Missing) else e.where.regions


def runner_up(e: Explanation) -> Any:
    """What it was nearly, or None when there is one class only."""
    return e.prediction.top[1] if len(e.prediction.top) > 1 else None


def heat_title(where: Where | Missing) -> str:
    """What the heat speaks for, and against what when it is a contrast."""
    if isinstance(where, Missing):
        return ""
    return f"{where.target} rather than {where.contrast}" if where.contrast else where.target


def picture_alt(e: Explanation) -> str:
    """The picture in a sentence, for who cannot see it."""
    text = f"The picture {e.prediction.image} as the network saw it"
    if e.part is not None:
        text = f"The {e.part.kind} {e.part.number} of {e.part.n} in {e.prediction.image}"
    if isinstance(e.where, Missing):
        return f"{text}."
    if e.where.is_zero:
        return f"{text}; nothing on it speaks for {heat_title(e.where)}."
    places = ", ".join(f"{r.letter} {place_of(r)} ({percent(r.share, ' ')})" for r in e.where.regions)
    return f"{text}; what speaks for {heat_title(e.where)} is strongest at {places}." if places else f"{text}."


def place_of(region: Region) -> str:
    """Where a region lies, in words: ``upper left``, ``centre``, …"""
    x, y = (region.box[0] + region.box[2]) / 2, (region.box[1] + region.box[3]) / 2
    column = "left" if x < 0.4 else "right" if x > 0.6 else ""
    row = "upper" if y < 0.4 else "lower" if y > 0.6 else "middle" if column else "centre"
    return " ".join(part for part in (row, column or ("" if row == "centre" else "middle")) if part)


def _heat_uri(e: Explanation) -> str | None:
    if isinstance(e.where, Missing):
        return None
    height, width = e.view.shape[:2]
    scale = OVERLAY_SIDE / max(height, width)
    layer = overlay(e.where.heat, max(1, round(height * scale)), max(1, round(width * scale)))
    return None if layer is None else layer_uri(layer)


def crop(view: np.ndarray, region: Region) -> np.ndarray:
    """The region cut out of the view, never empty."""
    height, width = view.shape[:2]
    left, top, right, bottom = (min(max(v, 0.0), 1.0) for v in region.box)
    x, y = min(int(left * width), width - 1), min(int(top * height), height - 1)
    return view[y : max(round(bottom * height), y + 1), x : max(round(right * width), x + 1)]


def _region(region: Region) -> dict[str, Any]:
    return {
        "letter": region.letter,
        "share": region.share,
        "place": place_of(region),
        "css": frame_css(region.box),
    }


def frame_css(box: FractionBox) -> str:
    """Where a box lies on what it is drawn over."""
    left, top, right, bottom = box
    return f"left:{left:.2%};top:{top:.2%};width:{right - left:.2%};height:{bottom - top:.2%}"


def _query_uri(view: np.ndarray, region: Region | None, near: Likeness) -> str | None:
    """The whole view where the place is drawn on it; else the lettered region cut out."""
    if near.query_frame is not None:
        return photo_uri(view)
    return photo_uri(crop(view, region)) if region else None


def charts_of(where: Where | Missing) -> list[Chart]:
    """The deletion and insertion curves, those that were measured."""
    if isinstance(where, Missing):
        return []
    charts = []
    for key, title, across in (
        ("deletion", "Hiding the hottest first", "hidden"),
        ("insertion", "Showing the hottest first", "shown"),
    ):
        curve, random = getattr(where, f"{key}_curve"), getattr(where, f"{key}_random_curve")
        if len(curve) < 2 or len(where.steps) < 2:
            continue
        top = ceiling(
            where.deletion_curve,
            where.insertion_curve,
            where.deletion_random_curve,
            where.insertion_random_curve,
        )
        line, shuffled = points(where.steps, curve, top), points(where.steps, random, top)
        between = " ".join(line + shuffled[::-1]) if shuffled else ""
        area, area_random = getattr(where, key), getattr(where, f"{key}_random")
        charts.append(Chart(key, title, across, top, " ".join(line), " ".join(shuffled), between, area, area_random))
    return charts


def _quantity(e: Explanation) -> str:
    """What the curves show of the one explained."""
    return "similarity with" if e.subject is not None and e.subject.sentence is not None else "probability of"


def figures_of(e: Explanation) -> dict[str, list[tuple[str, str, str]]]:
    """The figures under each verdict that were measured: ``(definition, name, text)``."""
    found: dict[str, list[tuple[str, str, str | None]]] = {"where": [], "match": [], "like": [], "words": []}
    if not isinstance(e.where, Missing):
        found["match"] = [
            ("match", "Match", _said(e.where.match, figure)),
            ("centre", "bump in the middle", _said(e.where.match_centre, figure)),
        ]
        found["where"] = [
            ("deletion", "Deletion", _said(e.where.deletion, figure)),
            ("random-map", "random map", _said(e.where.deletion_random, figure)),
            ("insertion", "Insertion", _said(e.where.insertion, figure)),
            ("random-map", "random map", _said(e.where.insertion_random, figure)),
        ]
    if not isinstance(e.like, Missing):
        found["like"] = [
            *_class_figures(e.like),
            ("vote" if e.like.display.votes else "share", "Share shown", percent(e.like.share_shown)),
            *_like_figures(e.like),
        ]
    if not isinstance(e.words, Missing):
        name = f"Words accuracy on {e.words.accuracy_on}" if e.words.accuracy_on else "Words accuracy"
        found["words"] = [("words-accuracy", name, _said(e.words.accuracy, percent))]
        if (control := e.words.control) is not None:
            found["words"] += [
                ("other-words", "Wrong words fit as well in", percent(control.as_good)),
                ("other-words", "Fits this picture better than", percent(control.picture_beats)),
            ]
    return {key: [(term, name, text) for term, name, text in rows if text is not None] for key, rows in found.items()}


def _class_figures(like: Like) -> list[tuple[str, str, str | None]]:
    """How many are of the class, or how often such ones are, where that is what counts."""
    of = like.of_target
    if of is None:
        return [
            ("held-out", "Held-out precision", _said(like.held_out_precision, percent)),
            ("chance", "chance", _said(like.chance, percent)),
        ]
    return [
        ("of-class", "Of the class", percent(of.share)),
        ("of-class", "a wrong class, 1 in 20", percent(min(of.limit, 1.0))),
        ("such", "Such pictures, right", f"{percent(of.right / of.n)} of {of.n}" if of.n else None),
    ]


def _like_figures(like: Like) -> list[tuple[str, str, str | None]]:
    """What hiding the places did, and how pure the channels are."""
    rows: list[tuple[str, str, str | None]] = []
    if like.deletion is not None:
        rows += [
            ("hidden", "Hidden, the lead falls by", figure(like.deletion.fall)),
            ("hidden", "elsewhere by", figure(like.deletion.fall_random)),
        ]
    if like.removal is not None:
        rows += [
            ("removed", "Without them it changes", _said(like.removal.changed, percent)),
            ("removed", "without as many at random", _said(like.removal.changed_random, percent)),
        ]
    if like.purity is not None:
        rows += [
            ("purity", "Purity, held out", figure(like.purity.held_out)),
            ("purity", "where fitted", figure(like.purity.fit)),
            ("purity", "random rotation", figure(like.purity.random)),
        ]
    if like.logit_difference is not None:
        rows.append(("fold", "Logits changed by", f"{like.logit_difference:.0e}"))
    return rows


def _said(value: float | None, how: Callable[[float], str]) -> str | None:
    return None if value is None else how(value)


def row_share(like: Like, letter: str) -> float:
    """What a row's likenesses have in common; of pictures that voted, each has its own part."""
    shares = [near.share for near in like.neighbours if near.letter == letter]
    return sum(shares) if like.display.votes else shares[0]


def like_rows(e: Explanation) -> list[dict[str, Any]]:
    """Neighbours by letter, each row beginning with the region of this picture."""
    if isinstance(e.like, Missing):
        return []
    known = {region.letter: region for region in regions_of(e)}
    rows: dict[str, dict[str, Any]] = {}
    scale = scale_of(e.like)
    for near in e.like.neighbours:
        region = known.get(near.letter)
        row = rows.setdefault(
            near.letter,
            {
                "letter": near.letter,
                "share": row_share(e.like, near.letter),
                "crop": _query_uri(e.view, region, near),
                "frame": None if near.query_frame is None else frame_css(near.query_frame),
                "channel": near.channel,
                "contribution": near.contribution,
                "because": None if near.channel is None else bars_of(near, scale),
                "neighbours": [],
            },
        )
        if near.times:
            row["neighbours"].append(
                {
                    "near": near,
                    "same": near.label == (e.like.target or e.prediction.label),
                    "patch": None if near.patch is None else photo_uri(near.patch),
                    "frame": None if near.frame is None else frame_css(near.frame),
                    "because": bars_of(near, scale) if near.channel is None else None,
                }
            )
    return [row for row in rows.values() if row["neighbours"]]


def word_groups(e: Explanation) -> list[dict[str, Any]]:
    """Sentences by class, the predicted class as it comes first, all bars on one scale."""
    if isinstance(e.words, Missing) or not e.words.words:
        return []
    values = [v for word in e.words.words for v in (word.score, word.score_other)]
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    groups: dict[str, dict[str, Any]] = {}
    for word in e.words.words:
        group = groups.setdefault(
            word.label, {"label": word.label, "decided": word.label == e.prediction.label, "rows": []}
        )
        group["rows"].append(_word_row(word, low, span))
    return sorted(groups.values(), key=lambda group: not group["decided"])


def _word_row(word: Word, low: float, span: float) -> dict[str, Any]:
    start, end = sorted((0.0, word.score))
    return {
        "word": word,
        "origin": ", ".join(
            [
                *([] if word.origin is None else [str(word.origin)]),
                *([] if word.adds is None else [f"adds {word.adds:.2f}"]),
            ]
        ),
        "holds": word.score > word.score_other,
        "idle": word.separates is not None and word.separates <= 0.5,
        "left": (start - low) / span,
        "width": (end - start) / span,
        "tick": (word.score_other - low) / span,
    }
