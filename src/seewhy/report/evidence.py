"""Every kind of evidence, as blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..explanation.base import Answer, Explanation, Region, Where, Word, Words
from ..explanation.kinds import Perceived, Typical
from ..explanation.part import Outside
from ..explanation.similar import Like, Likeness
from ..explanation.verdict import Missing
from .blocks import (
    Badge,
    Bar,
    Bars,
    Block,
    Cell,
    Chart,
    Columns,
    Curve,
    Def,
    Evidence,
    Figure,
    Figures,
    Fold,
    Line,
    Note,
    Picture,
    Pictures,
    Strong,
    Table,
    Text,
    Unseen,
    Verdict,
)
from .page import figure, file_name, level_text, linked, method_name, percent

LEAST_SCALE = 0.1
"""Smallest relative loss of similarity that fills a bar."""
NOT_COMPARED = "not to be compared"
N_WORDS = 2
"""Number of descriptions before the first click."""

Shown = tuple[Sequence[Block], Sequence[Figure], Sequence[Block]]
"""The visible blocks, the figures of the verdict, and the other blocks of the details."""


def evidence_of(answer: Answer, e: Explanation) -> Evidence:
    """Return one kind of evidence for a card."""
    key, title, found = answer
    if isinstance(found, Missing):
        verdict = Verdict("not measured", "Not shown", linked(found.reason))
        return Evidence(key, title, verdict, (), Fold("Details", [Note(linked(found.cure))]))
    shown, figures, more = KINDS[key](found, e)
    judged = found.verdict
    rows = [f for f in figures if f.text]
    behind: list[Block] = [Note(linked(judged.figures))] if judged.figures else []
    behind += [Figures(rows)] if rows else []
    behind += more
    behind += [Note(Line(Strong("The rule. "), judged.rule))] if judged.rule else []
    word = level_text(judged.level, key, e.prediction.title != e.prediction.label)
    verdict = Verdict(judged.level, word, linked(judged.sentence))
    return Evidence(key, title, verdict, shown, Fold("Details", behind) if behind else None)


def _said(value: float | None) -> str:
    """Format a share in per cent; empty for ``None``."""
    return "" if value is None else percent(value)


def heat_title(where: Where | Missing) -> str:
    if isinstance(where, Missing):
        return ""
    return f"{where.target} rather than {where.contrast}" if where.contrast else where.target


def regions_of(e: Explanation) -> tuple[Region, ...]:
    return () if isinstance(e.where, Missing) else e.where.regions


def place_of(region: Region) -> str:
    """Return the position of a region in words: ``upper left``, ``centre``, …"""
    x, y = (region.box[0] + region.box[2]) / 2, (region.box[1] + region.box[3]) / 2
    column = "left" if x < 0.4 else "right" if x > 0.6 else ""
    row = "upper" if y < 0.4 else "lower" if y > 0.6 else "middle" if column else "centre"
    return " ".join(part for part in (row, column or ("" if row == "centre" else "middle")) if part)


def crop(view: np.ndarray, region: Region) -> np.ndarray:
    """Crop a region from the view; the crop has at least one pixel."""
    height, width = view.shape[:2]
    left, top, right, bottom = (min(max(v, 0.0), 1.0) for v in region.box)
    x, y = min(int(left * width), width - 1), min(int(top * height), height - 1)
    return view[y : max(round(bottom * height), y + 1), x : max(round(right * width), x + 1)]


def _where(where: Where, e: Explanation) -> Shown:
    title = heat_title(where)
    more: list[Block] = [Note(Line("Evidence for ", Strong(title), f", by {method_name(where.method)}."))]
    more += [Note(e.cut)] if e.cut else []
    shown: list[Block] = []
    if where.is_zero:
        shown = [
            Note(Line("No part of this picture is evidence for ", Strong(title), ", so no heat is drawn."), "said")
        ]
    if where.regions and not where.is_zero:
        places = [
            Picture(crop(e.view, r), f"Place {r.letter}, {place_of(r)}", [Badge(r.letter)]) for r in where.regions
        ]
        shown.append(Pictures(places, "places"))
        heads = ("place", Def("share", "share"), "where")
        more.append(Table(heads, [(r.letter, percent(r.share), place_of(r)) for r in where.regions]))
    if where.neurons:
        goal = e.subject.of_goal if e.subject else title
        columns = (Def("neuron", "neuron"), f"evidence for {goal} (+) or against it (−)", "name")
        signed = [f"{'+' if n.share > 0 else '−'}{percent(abs(n.share))}" for n in where.neurons]
        rows = [(f"Neuron {n.channel}", s, n.name or "no name") for n, s in zip(where.neurons, signed, strict=True)]
        more.append(Table(columns, rows))
    if charts := [*_charts(where, e)]:
        more.append(Columns([[chart] for chart in charts]))
    if where.outside is not None:
        more.append(Note(Line(Def("outside", where.outside.sentence), f" Masks: {where.outside.masks}.")))
    return shown, (), more


def _charts(where: Where, e: Explanation) -> Iterator[Chart]:
    of_sentence = e.subject is not None and e.subject.sentence is not None
    quantity = f"{'similarity with' if of_sentence else 'probability of'} {heat_title(where)}"
    both = (where.deletion_curve, where.insertion_curve, where.deletion_random_curve, where.insertion_random_curve)
    highest = max((v for curve in both for v in curve), default=1.0)
    top = next((top for top in (0.25, 0.5) if highest <= top), 1.0)
    for key, title, across in (("deletion", "Hiding", "hidden"), ("insertion", "Showing", "shown")):
        curve, random = getattr(where, f"{key}_curve"), getattr(where, f"{key}_random_curve")
        if len(curve) < 2 or len(where.steps) < 2:
            continue
        area, area_random = figure(getattr(where, key)), figure(getattr(where, f"{key}_random"))
        title = f"{title} the hottest first"
        other = Curve(
            [*zip(where.steps, random, strict=False)], "random map", Def("random-map", area_random), "idle", True
        )
        yield Chart(
            title,
            [Curve([*zip(where.steps, curve, strict=False)], key.capitalize(), Def(key, area)), other],
            [*zip(where.steps, random, curve, strict=False)],
            across=f"all {across}",
            x_range=(0.0, 1.0),
            y_range=(0.0, top),
            small=True,
            alt=f"{title}: {quantity} as more of the picture is {across}. Area {area}, random map {area_random}.",
        )


def _like(like: Like, e: Explanation) -> Shown:
    rows = [*_rows(like, e)]
    none = Note("No part of your pictures is similar enough to be shown.", "said")
    return rows or [none], [*_figures_of(like)], [_table(like)] if rows else []


def _table(like: Like) -> Table:
    votes = like.display.votes
    of = Def("vote", "of the vote") if votes else Def("share", "share")
    columns: list[Text] = ["place", "your picture", "class", Def(like.display.similarity, like.display.similarity), of]
    rows: list[list[Any]] = []
    for near in (near for near in like.neighbours if near.times):
        name = file_name(near.image)
        times: Text = Line(name, " ", Def("times", f"×{near.times}")) if near.times > 1 else name
        rows.append([near.letter, times, near.label, figure(near.similarity), percent(near.share)])
        if near.channel is not None:
            logits = "" if near.contribution is None else figure(near.contribution)
            rows[-1] += [str(near.channel), logits]
    if any(len(row) > len(columns) for row in rows):
        columns += [like.display.unit, "logits"]
    return Table(columns, [row + [""] * (len(columns) - len(row)) for row in rows])


def _figures_of(like: Like) -> Iterator[Figure]:
    yield Figure("vote" if like.display.votes else "share", "Share shown", percent(like.share_shown))
    if like.of_target is None:
        yield Figure("held-out", "Held-out precision", _said(like.held_out_precision))
        yield Figure("chance", "chance", _said(like.chance))
    if (purity := like.purity) is not None:
        yield Figure("purity", "Purity, held out", figure(purity.held_out))
        yield Figure("purity", "where fitted", figure(purity.fit))
        yield Figure("purity", "random rotation", figure(purity.random))
    if like.logit_difference is not None:
        yield Figure("fold", "Logits changed by", f"{like.logit_difference:.0e}")


def _rows(like: Like, e: Explanation) -> Iterator[Pictures]:
    """Yield, for each lettered region of the picture, the region and a row of its neighbours."""
    known = {region.letter: region for region in regions_of(e)}
    scale = scale_of(like)
    letters = dict.fromkeys(near.letter for near in like.neighbours)
    for letter in letters:
        group = [near for near in like.neighbours if near.letter == letter]
        first, shown = group[0], [near for near in group if near.times]
        if not shown:
            continue
        region = known.get(letter)
        cut = crop(e.view, region) if region else None
        query = Picture(
            cut if first.query_frame is None else e.view,
            f"Place {letter} of this picture",
            [Badge(letter)],
            first.query_frame,
            bars=bars_of(first, scale) if first.channel is not None else None,
        )
        yield Pictures([_neighbour(near, like, e, scale) for near in shown], query=query)


def _neighbour(near: Likeness, like: Like, e: Explanation, scale: float) -> Picture:
    same = near.label == (like.target or e.prediction.label)
    return Picture(
        near.patch,
        f"{'Your picture' if like.display.votes else 'Part of'} {near.image}",
        (Unseen(near.label) if same else Line(near.label, Unseen(" (another class)")),),
        near.frame,
        "" if same else "other",
        f"{near.image}: {like.display.similarity} {figure(near.similarity)}",
        bars=bars_of(near, scale) if near.channel is None else None,
    )


def scale_of(like: Like) -> float:
    """Return the largest relative loss of similarity on the card."""
    found = [b for near in like.neighbours if (b := near.because)]
    return max([LEAST_SCALE, *(v for b in found for v in b.lost.values())])


def bars_of(near: Likeness, scale: float) -> Bars | None:
    """Return the reasons for a similarity as bars; ``None`` if they were not measured."""
    if (because := near.because) is None:
        return None
    bars = []
    for name, lost in because.lost.items():
        said = _lost(lost)
        colour: Any = "ember" if lost > 0 else "idle"
        bars.append(Bar(name, min(1.0, abs(lost) / scale), said, 0.0, None, colour, f"{name}: {said}"))
    return Bars(bars, "because", Def("because", because.sentence or NOT_COMPARED))


def _lost(value: float) -> str:
    return percent(value) if value >= 0 else f"gains {percent(-value)}"


def _words(words: Words, e: Explanation) -> Shown:
    values = [v for word in words.words for v in (word.score, word.score_other)]
    low, high = min([0.0, *values]), max([0.0, *values])
    labels = sorted(dict.fromkeys(w.label for w in words.words), key=lambda label: label != e.prediction.label)
    tables: list[Table] = []
    for label in labels:
        group = [w for w in words.words if w.label == label]
        says = Line("Descriptions of ", Strong(label))
        rows = [_word_row(word, low, (high - low) or 1.0) for word in group]
        idle = [word.score <= word.score_other for word in group]
        columns = (says, Def("score", "fit"), Def("separates", "separates"))
        tables.append(Table(columns, rows, "sentences", idle=idle))
    first: list[Block] = [Note("These classes have no descriptions.", "said")]
    if tables:
        t = tables[0]
        short = [row[:2] for row in t.rows[:N_WORDS]]
        first = [replace(t, columns=(t.columns[0], Unseen("fit")), rows=short, idle=t.idle[:N_WORDS])]
    choice = Line("The descriptions alone would choose ", Strong(words.decision), f". {words.would_change}")
    return first, (), [*tables, Note(choice)]


def _word_row(word: Word, low: float, span: float) -> tuple[Cell, Cell, Cell]:
    start, end = sorted((0.0, word.score))
    holds = word.score > word.score_other
    origin = [] if word.origin is None else [str(word.origin)]
    origin += [] if word.adds is None else [f"adds {word.adds:.2f}"]
    title = f"{figure(word.score)}; the other class's sentences {figure(word.score_other)}"
    mark = (word.score_other - low) / span
    colour: Any = "good" if holds else "idle"
    bar = Bar("", (end - start) / span, "", (start - low) / span, mark, colour, title)
    idle = word.separates is not None and word.separates <= 0.5
    said = Unseen(f"{figure(word.score)}, {'holds' if holds else 'does not hold'}")
    return (
        Cell(word.text, [", ".join(origin)] if origin else ()),
        Cell(said, bar=bar),
        Cell(Def("separates", figure(word.separates)), ["chance or worse"] if idle else (), "bad" if idle else ""),
    )


def _seen(seen: Perceived, e: Explanation) -> Shown:
    lead = Line(
        "The perceiver redrew the picture from memory in ",
        Def("loop", "loops"),
        f", at a width of {seen.picture.shape[1]} pixels, and classified the last drawing instead of the picture. The "
        "heat shows places in this drawing.",
    )
    pictures = []
    for number, (picture, loops) in enumerate(zip(seen.path, seen.loops, strict=True), 1):
        when = "observed" if loops == 0 else f"after {loops} loop{'' if loops == 1 else 's'}"
        is_last = number == len(seen.path)
        caption = ("seen",) if is_last else (when,)
        pictures.append(Picture(picture, f"What it saw, {when}", caption, on_still=is_last or loops == 0))
    near = seen.nearest
    away = Line(Def("memorised", "memorised"))
    alt = f"The memorised picture nearest to it, {near.image}"
    pictures.append(Picture(near.picture, alt, (near.label, away), kind="known", title=near.image))
    figures = [
        Figure("moved", "Last loop moved it by", f"{255 * seen.moved:.1f} levels"),
        Figure("spread", f"{seen.n_copies} copies, from their mean", f"{seen.spread:.3f}" if seen.n_copies > 1 else ""),
        Figure("memorised", "Nearest memorised picture", f"{near.distance:.3f}"),
    ]
    return [Pictures(pictures, "pixels")], figures, [Note(lead)]


def _part(outside: Outside, e: Explanation) -> Shown:
    part = e.part
    assert part is not None
    lead = Line(
        "The bars show how probable ",
        Strong(part.label),
        f" is in this {part.kind} when pixels are hidden. The heat covers only the {part.kind}, so it cannot show "
        "evidence from outside it.",
    )
    rows = (
        ("as it is", outside.probability),
        ("everything else hidden", outside.without_outside),
        (f"{part.kind} hidden", outside.without_inside),
    )
    bars = [
        Bar(name, value, Def("probability", percent(value)), colour="idle" if i else "ink")
        for i, (name, value) in enumerate(rows)
    ]
    figures = [
        Figure("inside", "Done inside", percent(outside.share_inside)),
        Figure("odds-fall", f"{part.kind.capitalize()} hidden, log-odds fall by", figure(outside.fall_inside)),
        Figure("odds-fall", "as much elsewhere", figure(outside.fall_elsewhere)),
        Figure("odds-fall", "all else hidden", figure(outside.fall_outside)),
    ]
    return [Bars(bars, title=f"Probability of {part.label}")], figures, [Note(lead)]


def _typical(typical: Typical, e: Explanation) -> Shown:
    lead = Note(
        "A generator made these pictures. They are not photographs, and do not depend on this picture. They show what "
        f"{typical.climbed} classifies as {typical.label}, as far as the generator can draw it."
    )
    pictures, rows = [], []
    for number, one in enumerate(typical.pictures, 1):
        judgement = "not judged" if one.seen is None else f"seen as {one.seen}"
        kind: Any = "other" if one.agrees is False else ""
        pictures.append(
            Picture(one.pixels, f"Generated picture {number}, {judgement}", (Unseen(judgement),), kind=kind)
        )
        rows.append((str(number), percent(one.value), judgement))
    table = Table(("picture", f"probability by {typical.climbed}", "judged"), rows)
    return [Pictures(pictures, "pixels")], (), [lead, table, Note(f"The generator was {typical.drawn}.")]


KINDS: dict[str, Callable[[Any, Explanation], Shown]] = {
    "seen": _seen, "part": _part, "where": _where, "like": _like, "words": _words, "typical": _typical,
}  # fmt: skip
"""The content of each kind of evidence."""
