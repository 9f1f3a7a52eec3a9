"""The card of an explanation as blocks: the decision, the picture, and every kind of evidence with its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..explanation.base import TOO_LITTLE, Explanation, Where
from ..explanation.part import Part
from ..explanation.prediction import Certainty, Decision, Prediction
from ..explanation.verdict import Level, Missing
from .blocks import (
    Bar,
    Bars,
    Block,
    Def,
    Figure,
    Figures,
    Fold,
    Heat,
    Letter,
    Line,
    Note,
    Section,
    Strong,
    Text,
    Unseen,
    Verdict,
    terms_in,
)
from .evidence import blocks_of, heat_title, place_of, regions_of
from .page import LEVELS, percent, render, terms_of

N_TOP = 5
SMALL = 64
"""Pictures narrower than this are shown as the pixels they are."""
DIMMED = 140
"""How opaque the black is that lies over pixels that are not of a part, of 255."""
SIGNS: dict[Certainty, tuple[Level, str]] = {
    "sure": ("believable", "Sure"),
    "one of few": ("partly", "One of few"),
    "unlike anything it knows": ("do not rely", "Unlike anything it knows"),
    "not measured": ("not measured", "Not measured"),
}
"""The sign of each verdict on a decision, which is that of evidence as far to be relied on, and how it is said."""


@dataclass(frozen=True)
class Card:
    prediction: Prediction
    above: tuple[str, ...]
    judgement: Verdict | None
    heading: str
    odds: str
    nearly: Text
    trust: Fold | None
    aside: str
    summary: tuple[tuple[str, str, Level, str], ...]
    agreement: tuple[Text, str, Fold | None]
    picture: tuple[Block, ...]
    sections: tuple[Section, ...]
    model: dict[str, str]


def render_html(explanation: Explanation) -> str:
    """The card: one page that needs nothing but itself."""
    return render("card.html", "card.js", **card_context(explanation))


def card_context(explanation: Explanation) -> dict[str, Any]:
    """What the card's template shows, for every page that has the card on it."""
    card = card_of(explanation)
    keys = ["right" if explanation.prediction.is_measured else "probability", *terms_in(card)]
    return {"card": card, "terms": terms_of(keys)}


def card_of(e: Explanation) -> Card:
    p, d, agreement = e.prediction, e.prediction.decision, e.agreement
    unknown = d is not None and d.is_unknown
    parts = [Figure("agreement", name, percent(value)) for name, value in agreement.parts.items()]
    score = agreement.score
    return Card(
        p,
        (p.image,) if e.part is None else (p.image, e.part.said),
        None if d is None else Verdict(*SIGNS[d.verdict][:1], d.sentence, word=SIGNS[d.verdict][1]),
        "Unlike anything it knows" if unknown else p.label,
        "" if p.probability is None else percent(p.probability),
        _nearly(p),
        None if d is None else _trust(d),
        e.aside,
        tuple(
            (a.key, a.title.split(",")[0], a.level, "Not here" if isinstance(a.evidence, Missing) else LEVELS[a.level])
            for a in e.answers
            if a.key != "typical"
        ),
        (
            "" if score is None else Def("agreement", agreement.headline(percent(score))),
            agreement.sentence,
            Fold("What agrees with what", [Figures(parts)]) if parts else None,
        ),
        tuple(_picture(e)),
        tuple(Section(a.title, [*blocks_of(a.key, a.evidence, e)], a.key) for a in e.answers),
        e.model,
    )


def own_scores(p: Prediction, space: str = " ") -> str:
    """What the classifier itself says of the first two classes, where the heading says something else."""
    if not p.is_measured or p.n_classes == 1:
        return ""
    return ", ".join(f"{r.label} {percent(r.score, space)}" for r in p.top[:2])


def _nearly(p: Prediction) -> Text:
    if own := own_scores(p):
        return Def("probability", f"the classifier's own score: {own}")
    if len(p.top) > 1:
        return Line(f"rather than {p.top[1].label}, which has ", Def("probability", percent(p.top[1].score)))
    return "the only class this classifier knows" if p.n_classes == 1 else f"of {p.n_classes} classes"


def _trust(d: Decision) -> Fold:
    rows: list[Figure] = []
    if d.probability is not None and d.interval is not None:
        rows.append(Figure("right", "Right", _with_interval(d.probability, d.interval)))
        if d.fit is not None:
            rows.append(Figure("fit-known", "As strange or stranger", f"{percent(d.fit, ' ')} of held-out pictures"))
        if d.sure_right is not None:
            sure = f"{percent(d.sure_right, ' ')} of {d.n_sure:,}"
            rows.append(Figure("sure", "Of those called sure, right", sure))
        if (u := d.unknowns) is not None:
            left_out = _with_interval(u.near_found, u.near_interval)
            far = "" if u.far_found is None else percent(u.far_found, " ")
            rows += [
                Figure("unknown", "Of classes left out, noticed", left_out),
                Figure("unknown", "called sure", _with_interval(u.near_sure, u.near_sure_interval)),
                Figure("unknown", "Of noise and patterns, noticed", far),
            ]
    rows = [row for row in rows if row.text]
    notes = [Note(d.unknowns.sentence)] if d.unknowns is not None else []
    return Fold("How far to trust the decision", [*([Figures(rows)] if rows else []), *notes, Note(d.rule)])


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return ""
    low, high = (percent(v, " ") for v in interval)
    return f"{percent(value, ' ')} ({low} to {high})"


def _picture(e: Explanation) -> Iterator[Block]:
    p, where = e.prediction, e.where
    has_heat = isinstance(where, Where) and not where.is_zero
    yield Heat(
        e.view,
        where.heat if isinstance(where, Where) and has_heat else None,
        [Letter(r.letter, r.box, percent(r.share), place_of(r)) for r in regions_of(e)],
        _alt(e),
        Line(Def("heat", "Heat"), " for ", Strong(heat_title(where))) if has_heat else "",
        None if e.part is None else dimming(e.part, e.view.shape[:2], e.part.frame),
        small=e.view.shape[1] < SMALL,
    )
    if (part := e.part) is not None:
        width, height = part.size
        dark = None if part.mask is None else dimming(part, part.picture.shape[:2], (0.0, 0.0, width, height))
        box = (part.box[0] / width, part.box[1] / height, part.box[2] / width, part.box[3] / height)
        alt, caption = f"The whole picture with the {part.kind} in it", f"The {part.kind} in the whole picture"
        yield Heat(part.picture, None, (), alt, caption, dark, box if dark is None else None, is_whole=True)
    bars = [
        Bar(r.label, r.score, Def("probability", percent(r.score)), colour="idle" if i else "ink")
        for i, r in enumerate(p.top[:N_TOP])
    ]
    own = "The classifier's own scores"
    yield Bars(bars, title=own if own_scores(p) else Unseen(own))
    if (rest := p.n_classes - len(bars)) > 0:
        yield Note(f"and {rest} more {'class' if rest == 1 else 'classes'}", "rest")


def _alt(e: Explanation) -> str:
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


def dimming(part: Part, size: tuple[int, ...], frame: tuple[float, float, float, float]) -> np.ndarray | None:
    """A layer that darkens what is not of the part on a view of the frame; ``None`` where all is of it."""
    inside = part.inside(size[0], size[1], frame)
    if inside.all():
        return None
    layer = np.zeros((*inside.shape, 4), np.uint8)
    layer[~inside, 3] = DIMMED
    return layer


NAMES = {"seen": "saw", "part": "inside", "like": "like what", "words": "in words"}
"""How kinds of evidence are called at the beginning of a line, where not by their keys."""


def card_lines(e: Explanation) -> Iterator[str]:
    """The answer as a person would read it."""
    p = e.prediction
    label = p.label if p.probability is None else f"{p.label} {percent(p.probability, '')}"
    if p.decision is None or not p.is_measured:
        nearly = f", nearly {p.top[1].label} {percent(p.top[1].score, '')}" if len(p.top) > 1 else ""
        yield f"{p.image}: {label}{nearly}"
    else:
        yield f"{p.image}: {p.decision.headline if p.probability is None else f'{label}, {p.decision.verdict}'}"
    rows = [] if p.decision is None else [("decision", f"{p.decision.verdict}: {p.decision.sentence}")]
    rows += [("own score", own_scores(p, "")), ("about", e.aside)]
    for key, _, evidence in e.answers:
        if isinstance(evidence, Missing):
            rows.append((NAMES.get(key, key), f"{evidence.reason} {evidence.cure}"))
            continue
        rows.append((NAMES.get(key, key), f"{evidence.verdict.level}: {evidence.verdict.sentence}"))
        rows += [("", remark) for remark in getattr(evidence, "remarks", ())]
    if e.agreement.sentence != TOO_LITTLE:
        rows.append(("agreement", e.agreement.sentence))
    yield from (f"  {name:<10} {text}" for name, text in rows if text)
