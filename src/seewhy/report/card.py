"""The card of an explanation, as blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Any

import numpy as np

from ..explanation.base import TOO_LITTLE, Agreement, Explanation, Where
from ..explanation.part import Part
from ..explanation.prediction import Decision, Prediction
from ..explanation.similar import Like
from ..explanation.verdict import Level, Missing
from .blocks import (
    Bar,
    Bars,
    Block,
    Code,
    Def,
    Evidence,
    Figure,
    Figures,
    Fold,
    Heat,
    Letter,
    Line,
    Note,
    Strong,
    Text,
    Unseen,
    Verdict,
    terms_in,
)
from .evidence import evidence_of, heat_title, place_of, regions_of
from .page import file_name, level_text, linked, percent, render, terms_of

N_TOP, N_OPEN = 5, 2
"""Number of classes listed, and number shown before the first click."""
HALF = 0.5
"""Share of a picture; if the network looks at less, the card says so before the first click."""
SMALL = 64
"""Pictures narrower than this are shown pixel by pixel."""
DIMMED = 140
"""Opacity, 0 to 255, of the layer over pixels outside a part."""
UNKNOWN = "Unlike anything it knows"


@dataclass(frozen=True)
class Card:
    prediction: Prediction
    name: str
    """The file's name, without its folders."""
    part: str
    sign: Verdict | None
    """Level of the decision, with a sentence."""
    heading: str
    odds: str
    next: Text
    """Next step for the user."""
    href: str
    rival: str
    """The class to compare the prediction with, if the decision is open between them."""
    aside: str
    picture: tuple[Block, ...]
    scores: Bars
    trust: Fold
    evidence: tuple[Evidence, ...]
    model: dict[str, str]


def render_html(explanation: Explanation) -> str:
    """Return the card as one self-contained page."""
    return render("card.html", "card.js", **card_context(explanation))


def card_context(explanation: Explanation) -> dict[str, Any]:
    """Return the variables of the card's template."""
    card = card_of(explanation)
    keys = ["right" if explanation.prediction.is_measured else "probability", *terms_in(card)]
    return {"card": card, "terms": terms_of(keys)}


def card_of(e: Explanation) -> Card:
    p, d = e.prediction, e.prediction.decision
    bars = [
        Bar(r.label, r.score, Def("probability", percent(r.score)), colour="idle" if i else "ink")
        for i, r in enumerate(p.top[:N_TOP])
    ]
    own = "Its own scores"
    evidence = tuple(evidence_of(answer, e) for answer in e.answers)
    return Card(
        p,
        file_name(p.image),
        "" if e.part is None else e.part.said,
        None if d is None else Verdict(*sign_of(d), linked(d.sentence)),
        p.title,
        "" if p.probability is None or (d is not None and d.is_open) else percent(p.probability),
        *_next(e),
        _rival(e),
        e.aside,
        tuple(_picture(e)),
        Bars(bars[:N_OPEN], title=own if p.is_measured else Unseen(own)),
        Fold("Details", [*_trust(e, Bars(bars, title=own) if p.is_measured else Bars(bars[N_OPEN:]))]),
        tuple(sorted((*evidence, *_agreement(e.agreement)), key=lambda one: not one.shown)),
        e.model,
    )


def sign_of(d: Decision) -> tuple[Level, str]:
    """Return the level of a decision, and a short text."""
    if d.fits_poorly:
        return "do not rely", "None of these names fits well"
    levels: dict[str, Level] = {
        "sure": "believable",
        "not sure": "partly",
        "unlike anything it knows": "do not rely",
        "not measured": "not measured",
    }
    return levels[d.verdict], d.word


def _rival(e: Explanation) -> str:
    p, d = e.prediction, e.prediction.decision
    is_compared = e.subject is not None and e.subject.contrast is not None
    return p.names[1] if d is not None and d.verdict == "not sure" and len(p.names) > 1 and not is_compared else ""


def _next(e: Explanation) -> tuple[Text, str]:
    """Return the next step for the user, and the place on the card to which it links."""
    if rival := _rival(e):
        return Line(f"Is it {rival}? Compare: ", Code(f"seewhy … --contrast {quote(rival)}")), ""
    if e.prediction.decision is not None and e.prediction.decision.cure:
        return linked(e.prediction.decision.cure), ""
    if isinstance(e.like, Like) and e.like.neighbours:
        return "Looks right? See your pictures that are most similar to it.", "#like"
    return ("", "") if isinstance(e.where, Missing) else ("Looks right? See where the classifier looked.", "#where")


def own_scores(p: Prediction, space: str = " ") -> str:
    """Return the classifier's scores of the first two classes, beside a decision."""
    if p.decision is None or p.n_classes == 1:
        return ""
    return ", ".join(f"{r.label} {percent(r.score, space)}" for r in p.top[:2])


def _nearly(p: Prediction) -> Text:
    if own := own_scores(p):
        return Def("probability", f"the classifier's own score: {own}")
    if len(p.top) > 1:
        return Line(f"rather than {p.top[1].label}, which has ", Def("probability", percent(p.top[1].score)))
    return "the only class this classifier knows" if p.n_classes == 1 else f"of {p.n_classes} classes"


def _trust(e: Explanation, scores: Bars) -> Iterator[Block]:
    """Yield what the card shows after a click: the figures of the decision, the scores and the rule."""
    p, d = e.prediction, e.prediction.decision
    if d is not None and d.figures:
        yield Note(linked(d.figures))
    if d is not None and d.cure and _rival(e):
        yield Note(linked(d.cure))
    yield Note(_nearly(p))
    if scores.bars:
        yield scores
    if (rest := p.n_classes - len(p.top[:N_TOP])) > 0:
        yield Note(f"and {rest} more {'class' if rest == 1 else 'classes'}", "rest")
    if len(e.agreement.parts) < 2 and e.agreement.sentence != TOO_LITTLE:
        yield from _agreed(e.agreement)
    if d is not None:
        yield Note(Line(Strong("The rule. "), d.rule))


def _agreement(a: Agreement) -> Iterator[Evidence]:
    """Yield the agreement of the kinds of evidence, if there are at least two."""
    if len(a.parts) < 2 or a.score is None:
        return
    words: dict[Level, str] = {"believable": "Yes", "partly": "In part", "do not rely": "No"}
    reason = a.sentence.partition(": ")[2] or a.sentence
    verdict = Verdict(a.level, words[a.level], linked(reason[:1].upper() + reason[1:]))
    yield Evidence("agreement", "Do they agree?", verdict, (), Fold("Details", [*_agreed(a)]))


def _agreed(a: Agreement) -> Iterator[Block]:
    yield Note(linked(a.sentence))
    if a.score is None:
        return
    yield Note(Def("agreement", a.headline(percent(a.score))))
    yield Figures([Figure("agreement", name, percent(value)) for name, value in a.parts.items()])
    if a.notes:
        yield Note(linked(a.notes))


def _picture(e: Explanation) -> Iterator[Block]:
    where = e.where
    has_heat = isinstance(where, Where) and not where.is_zero
    yield Heat(
        e.view,
        where.heat if isinstance(where, Where) and has_heat else None,
        [Letter(r.letter, r.box, percent(r.share), place_of(r)) for r in regions_of(e)] if has_heat else [],
        _alt(e),
        Line(Def("heat", "Heat"), " for ", Strong(heat_title(where))) if has_heat else "",
        None if e.part is None else dimming(e.part, e.view.shape[:2], e.part.frame),
        small=e.view.shape[1] < SMALL,
    )
    if e.in_view < HALF:
        yield Note(e.cut, "rest")
    if (part := e.part) is not None:
        width, height = part.size
        dark = None if part.mask is None else dimming(part, part.picture.shape[:2], (0.0, 0.0, width, height))
        box = (part.box[0] / width, part.box[1] / height, part.box[2] / width, part.box[3] / height)
        alt, caption = f"The whole picture with the {part.kind} in it", f"The {part.kind} in the whole picture"
        yield Heat(part.picture, None, (), alt, caption, dark, box if dark is None else None, is_whole=True)


def _alt(e: Explanation) -> str:
    text = f"The picture {e.prediction.image} as the network saw it"
    if e.part is not None:
        text = f"The {e.part.kind} {e.part.number} of {e.part.n} in {e.prediction.image}"
    if isinstance(e.where, Missing):
        return f"{text}."
    if e.where.is_zero:
        return f"{text}; no part of it is evidence for {heat_title(e.where)}."
    places = ", ".join(f"{r.letter} {place_of(r)} ({percent(r.share, ' ')})" for r in e.where.regions)
    return f"{text}; the evidence for {heat_title(e.where)} is strongest at {places}." if places else f"{text}."


def dimming(part: Part, size: tuple[int, ...], frame: tuple[float, float, float, float]) -> np.ndarray | None:
    """Return an RGBA layer that darkens everything outside the part; ``None`` if the part fills the frame."""
    inside = part.inside(size[0], size[1], frame)
    if inside.all():
        return None
    layer = np.zeros((*inside.shape, 4), np.uint8)
    layer[~inside, 3] = DIMMED
    return layer


NAMES = {"seen": "saw", "part": "inside", "like": "like what", "words": "in words"}
"""Names of the kinds of evidence in a terminal, if they differ from their keys."""


def card_lines(e: Explanation) -> Iterator[str]:
    """Yield the lines of the card for a terminal."""
    p, d = e.prediction, e.prediction.decision
    label = p.label if p.probability is None else f"{p.label} {percent(p.probability, ' ')}"
    word = "" if d is None else sign_of(d)[1]
    if d is None:
        nearly = f", then {p.top[1].label} {percent(p.top[1].score, ' ')}" if len(p.top) > 1 else ""
        yield f"{p.image}: {label}{nearly}"
    else:
        sure = f"{p.title} {word}" if d.is_open else f"{label}, {word.lower()}"
        yield f"{p.image}: {f'{UNKNOWN}, or {p.label}' if d.is_unknown else sure}"
    step, href = _next(e)
    rows = [] if d is None else [("decision", f"{word}. {d.sentence}"), ("next", "" if href else str(step))]
    rows += [("own score", own_scores(p)), ("about", e.aside), ("picture", e.cut if e.in_view < HALF else "")]
    for key, _, evidence in e.answers:
        if isinstance(evidence, Missing):
            rows.append((NAMES.get(key, key), f"Not shown. {evidence.reason} {evidence.cure}"))
            continue
        level = level_text(evidence.verdict.level, key, p.title != p.label)
        rows.append((NAMES.get(key, key), f"{level}. {evidence.verdict.sentence}"))
        rows += [("", remark) for remark in getattr(evidence, "remarks", ())]
    if e.agreement.sentence != TOO_LITTLE:
        rows.append(("agreement", e.agreement.sentence))
    yield from (f"  {name:<10} {text}" for name, text in rows if text)
