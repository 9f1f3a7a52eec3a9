"""The card as a still picture, drawn with Pillow alone: no browser, no font to install."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..explanation.base import Explanation, Where, Words
from ..explanation.similar import Like
from ..explanation.verdict import Level, Missing, Verdict
from .because import bars_of, draw_bars, scale_of
from .canvas import (
    BAD,
    EDGE,
    EMBER,
    GOOD,
    IDLE,
    INK,
    LEVEL_COLOURS,
    LINE,
    MARK,
    QUIET,
    SHEET,
    SMOOTH,
    Canvas,
    Points,
)
from .certainty import draw_certainty, heading, own_scores
from .certainty import odds as odds_of
from .curve import ceiling
from .heat import COLOURS, blend
from .html import (
    QUESTIONS,
    crop,
    heat_title,
    place_of,
    questions_of,
    regions_of,
    row_share,
    runner_up,
    word_groups,
)
from .page import LEVELS, figure, method_name, percent
from .part import TITLE as PART_TITLE
from .part import draw_whole
from .patches import faded, framed
from .perceived import TITLE, draw_seen
from .typical import draw_typical, typical_title

WIDTH = 1400
MARGIN = 64
LEFT = 476
RIGHT_X = MARGIN + LEFT + 64
RIGHT = WIDTH - MARGIN - RIGHT_X
TALLEST = 5500
N_TOP, N_ROWS, N_PATCHES, N_WORDS = 5, 4, 4, 6


def render_png(explanation: Explanation) -> bytes:
    """The card as PNG bytes, 1400 pixels wide and as high as its evidence."""
    canvas = Canvas(WIDTH, TALLEST + _height(explanation))
    top = _summary(canvas, explanation, _decision(canvas, explanation))
    left = _picture(canvas, explanation, top)
    right = _where(canvas, explanation, _seen(canvas, explanation, top))
    right = _like(canvas, explanation, _divide(canvas, right))
    right = _words(canvas, explanation, _divide(canvas, right))
    if (made := explanation.typical) is not None:
        right = _heading(canvas, typical_title(made), _divide(canvas, right))
        right = _verdict(canvas, made.verdict, draw_typical(canvas, made, RIGHT_X, right, RIGHT))
    end = _model(canvas, explanation, max(left, right) + 34)
    buffer = io.BytesIO()
    canvas.cut(end).save(buffer, "PNG", compress_level=1)  # a third of the time of level 4
    return buffer.getvalue()


def _decision(c: Canvas, e: Explanation) -> float:
    room = WIDTH - 2 * MARGIN
    file = e.prediction.image if e.part is None else f"{e.prediction.image}: {e.part.said}"
    c.text(MARGIN, 70, c.clipped(file, room, 21), 21, QUIET)
    only = e.prediction.n_classes == 1
    odds, title = odds_of(e).replace("\u202f", " "), heading(e)
    top = draw_certainty(c, e, MARGIN, 116, room) - (46 if e.prediction.decision is None else 30)
    size = 92 if c.measure(title, 92, True) < room - 280 else 46
    lines = c.lines(title, room - 200, size, 3, True)
    y, end = top + size * 1.12, float(MARGIN)
    for number, line in enumerate(lines):
        end = c.text(MARGIN - size * 0.03, y + number * size * 1.1, line, size, INK, True)
    y += (len(lines) - 1) * size * 1.1
    if odds:
        c.text(end + size * 0.28, y, odds, size, QUIET)
    second = runner_up(e)
    tail = "the only class this classifier knows" if only else f"of {e.prediction.n_classes} classes"
    if second:
        name = c.clipped(second.label, room - 420, 28)
        tail = f"rather than {name}, which has {percent(second.score, ' ')}"
    if own := own_scores(e.prediction):
        tail = c.clipped(f"the classifier's own score: {own}", room, 28)
    c.text(MARGIN, y + 52, tail, 28, QUIET)
    return c.paragraph(MARGIN, y + 94, e.aside, 24, room, 3) + 24 if e.aside else y + 90


def _summary(c: Canvas, e: Explanation, y: float) -> float:
    c.rule(MARGIN, y, WIDTH - 2 * MARGIN)
    asked = questions_of(e) if e.seen is None else (("seen", TITLE), *questions_of(e))
    asked = asked if e.part is None or e.part.outside is None else (("part", PART_TITLE), *asked)
    step = 262 if len(asked) == 3 else 250
    for number, (key, title) in enumerate(asked):
        x = MARGIN + number * step
        evidence: Any = e.part.outside if key == "part" and e.part else getattr(e, key)
        missing = isinstance(evidence, Missing)
        level: Level = "not measured" if missing else evidence.verdict.level
        c.glyph(x, y + 28, level, 26)
        c.text(x + 40, y + 46, title.split(",")[0], 20, QUIET)
        c.text(x + 40, y + 76, "Not here" if missing else LEVELS[level], 24, INK, True)
    x = MARGIN + len(asked) * step + 24
    c.draw.line((x - 32, y + 1, x - 32, y + 103), fill=LINE)
    width = WIDTH - MARGIN - x
    lines = c.lines(e.agreement.sentence, width, 20, 2)
    if e.agreement.score is None:
        c.paragraph(x, y + 46, e.agreement.sentence, 20, width, 2)
    else:
        base = y + (46 if len(lines) == 1 else 36)
        c.text(
            x, base, c.clipped(e.agreement.headline(percent(e.agreement.score, " ")), width, 24, True), 24, INK, True
        )
        c.paragraph(x, base + (30 if len(lines) == 1 else 27), e.agreement.sentence, 18, width, 2, QUIET)
    c.rule(MARGIN, y + 104, WIDTH - 2 * MARGIN)
    return y + 148


def _picture(c: Canvas, e: Explanation, y: float) -> float:
    height = _height(e)
    shown = e.view if isinstance(e.where, Missing) else _with_heat(e.view, e.where.heat, height)
    c.photo(MARGIN, y, Image.fromarray(shown), LEFT, height, 18)
    for region in regions_of(e):
        _mark(c, MARGIN, y, height, region.letter, region.box)
    y += height + 36
    if not isinstance(e.where, Missing) and not e.where.is_zero:
        ramp = Image.fromarray(np.repeat(COLOURS[None], 10, axis=0))
        c.text(MARGIN + LEFT, y, "strong", 19, QUIET, right=True)
        c.photo(MARGIN + LEFT - 166, y - 12, ramp, 96, 10, 5)
        c.text(MARGIN + LEFT - 176, y, "weak", 19, QUIET, right=True)
        label = c.clipped(heat_title(e.where), LEFT - 314, 21, True)
        c.text(c.text(MARGIN, y, "Heat for ", 21, QUIET), y, label, 21, INK, True)
        y += 16
    y = draw_whole(c, e.part, MARGIN, y + 36, LEFT)
    if own_scores(e.prediction):
        c.text(MARGIN, y, "The classifier's own scores", 19, QUIET)
        y += 39
    for number, (label, score) in enumerate(e.prediction.top[:N_TOP]):
        first = number == 0
        c.text(MARGIN, y, c.clipped(label, 226, 23, first), 23, INK if first else QUIET, first)
        c.bar(MARGIN + 244, y - 8, 150, 0.0, score, INK if first else IDLE)
        c.text(MARGIN + LEFT, y, percent(score, " "), 23, INK if first else QUIET, first, right=True)
        y += 39
    rest = len(e.prediction.top) - N_TOP
    if rest > 0:
        c.text(MARGIN, y, f"and {rest} more {'class' if rest == 1 else 'classes'}", 19, QUIET)
        y += 39
    return y


def _height(e: Explanation) -> int:
    """Of the picture on the still, its proportions kept."""
    return max(1, round(LEFT * e.view.shape[0] / e.view.shape[1]))


def _with_heat(view: np.ndarray, heat: np.ndarray, height: int) -> np.ndarray:
    large = Image.fromarray(view).resize((LEFT, height), Image.Resampling.BICUBIC)
    return blend(np.asarray(large), heat)


def _mark(c: Canvas, x: float, y: float, height: float, letter: str, box: tuple[float, float, float, float]) -> None:
    left, top = x + box[0] * LEFT, y + box[1] * height
    width, tall = max(8.0, (box[2] - box[0]) * LEFT), max(8.0, (box[3] - box[1]) * height)

    def paint(d: ImageDraw.ImageDraw) -> None:
        edge = (round(width) * SMOOTH - 1, round(tall) * SMOOTH - 1)
        d.rounded_rectangle((0, 0, *edge), 6 * SMOOTH, outline=(*EDGE, 150), width=5 * SMOOTH)
        d.rounded_rectangle(
            (SMOOTH, SMOOTH, edge[0] - SMOOTH, edge[1] - SMOOTH), 5 * SMOOTH, outline=MARK, width=3 * SMOOTH
        )
        d.rounded_rectangle((SMOOTH, SMOOTH, 25 * SMOOTH, 26 * SMOOTH), 5 * SMOOTH, fill=MARK)

    c.smooth(left, top, width, tall, paint)
    c.text(round(left) + 13 - c.measure(letter, 19, True) / 2, round(top) + 20, letter, 19, INK, True)


def _divide(c: Canvas, y: float) -> float:
    c.rule(RIGHT_X, y + 42, RIGHT)
    return y + 84


def _heading(c: Canvas, title: str, y: float) -> float:
    c.text(RIGHT_X, y + 26, title, 32, INK, True)
    return y + 66


def _missing(c: Canvas, evidence: Missing, y: float) -> float:
    end = c.paragraph(RIGHT_X + 40, y, evidence.reason, 22, RIGHT - 40, 4)
    c.glyph(RIGHT_X, y - 20, "not measured", 26)
    return c.paragraph(RIGHT_X + 40, end, f"What it takes: {evidence.cure}", 22, RIGHT - 40, 4, QUIET)


def _verdict(c: Canvas, verdict: Verdict, y: float) -> float:
    """The measured line on a sheet of its own."""
    level = f"{LEVELS[verdict.level]}."
    indent = c.measure(level, 22, True) + 10
    lines = c.lines(verdict.sentence, RIGHT - 92, 22, 5, indent=indent)
    height = 44 + 32 * max(1, len(lines)) - 6
    c.panel(RIGHT_X, y, RIGHT, height, 14, SHEET, LINE)
    c.glyph(RIGHT_X + 22, y + 22, verdict.level, 26)
    x, base = RIGHT_X + 62, y + 43
    c.text(x, base, level, 22, LEVEL_COLOURS[verdict.level], True)
    for number, line in enumerate(lines):
        c.text(x + (0 if number else indent), base + number * 32, line, 22)
    return y + height


def _seen(c: Canvas, e: Explanation, y: float) -> float:
    if e.seen is not None:
        end = draw_seen(c, e.seen, RIGHT_X, _heading(c, TITLE, y), RIGHT)
        y = _divide(c, _verdict(c, e.seen.verdict, end))
    if e.part is not None and e.part.outside is not None:
        y = _divide(c, _verdict(c, e.part.outside.verdict, _heading(c, PART_TITLE, y)))
    return y


def _where(c: Canvas, e: Explanation, y: float) -> float:
    y = _heading(c, QUESTIONS[0][1], y)
    if isinstance(e.where, Missing):
        return _missing(c, e.where, y)
    title = heat_title(e.where)
    said = f"What speaks for {title}, by {method_name(e.where.method)}."
    if e.where.is_zero:
        said = f"Nothing on this picture speaks for {title}, so no heat is drawn."
    y = c.paragraph(RIGHT_X, y, said, 22, RIGHT, 3, QUIET) + 8
    x = float(RIGHT_X)
    for region in regions_of(e)[:N_ROWS]:
        end = c.text(c.badge(x, y, region.letter) + 10, y, percent(region.share, " "), 22)
        x = c.text(end + 10, y, place_of(region), 19, QUIET) + 28
    y += 42 if regions_of(e) else 0
    if e.where.outside is not None:
        y = c.paragraph(RIGHT_X, y, e.where.outside.sentence, 20, RIGHT, 2, QUIET) + 8
    return _verdict(c, e.where.verdict, _curves(c, e.where, y))


def _curves(c: Canvas, where: Where, y: float) -> float:
    w = where
    curves = [
        ("Hiding", "Deletion", w.deletion_curve, w.deletion_random_curve, w.deletion, w.deletion_random),
        ("Showing", "Insertion", w.insertion_curve, w.insertion_random_curve, w.insertion, w.insertion_random),
    ]
    if len(where.steps) < 2 or not (where.deletion_curve or where.insertion_curve):
        return y
    top = ceiling(*(curve for row in curves for curve in row[2:4]))
    gap = 40
    width = (RIGHT - gap) / 2
    for number, (title, name, curve, random, area, area_random) in enumerate(curves):
        x = RIGHT_X + number * (width + gap)
        c.text(x, y + 6, f"{title} the hottest first", 21, INK, True)
        c.text(x + 56, y + 40, percent(top, " "), 17, QUIET, right=True)
        c.text(x + 56, y + 160, "0", 17, QUIET, right=True)
        _plot(c, x + 68, y + 26, width - 68, 134, _scaled(where, curve, top), _scaled(where, random, top))
        end = c.text(x + 68, y + 192, f"{name} ", 19, EMBER)
        end = c.text(end, y + 192, figure(area), 19, EMBER, True)
        end = c.text(end + 12, y + 192, "random map ", 19, QUIET)
        c.text(end, y + 192, figure(area_random), 19, QUIET)
    return y + 222


def _scaled(where: Where, curve: tuple[float, ...], top: float) -> Points:
    return [(x, 1 - min(max(v / top, 0.0), 1.0)) for x, v in zip(where.steps, curve, strict=False)]


def _plot(c: Canvas, x: float, y: float, width: float, height: float, curve: Points, random: Points) -> None:
    pad = 4

    def place(line: Points) -> Points:
        return [((a * width + pad) * SMOOTH, (b * height + pad) * SMOOTH) for a, b in line]

    def paint(d: ImageDraw.ImageDraw) -> None:
        mine, other = place(curve), place(random)
        if mine and other:
            d.polygon(mine + other[::-1], fill=(*EMBER, 26))
        for a, b in other:
            d.ellipse((a - 7, b - 7, a + 7, b + 7), fill=IDLE)
        if len(mine) > 1:
            d.line(mine, fill=EMBER, width=3 * SMOOTH, joint="curve")

    c.draw.line((x, y, x, y + height), fill=LINE, width=2)
    c.draw.line((x, y + height, x + width, y + height), fill=LINE, width=2)
    c.smooth(x - pad, y - pad, width + 2 * pad, height + 2 * pad, paint)


def _like(c: Canvas, e: Explanation, y: float) -> float:
    y = _heading(c, questions_of(e)[1][1], y)
    if isinstance(e.like, Missing):
        return _missing(c, e.like, y)
    letters = list(dict.fromkeys(near.letter for near in e.like.neighbours if near.times))
    if not letters:
        y = c.paragraph(RIGHT_X, y, "No patch of your pictures comes near enough to be shown.", 22, RIGHT, 2, QUIET)
    y -= 14
    for letter in letters[:N_ROWS]:
        y = _patches(c, e, e.like, letter, y)
    return _verdict(c, e.like.verdict, y + 12)


def _patches(c: Canvas, e: Explanation, like: Like, letter: str, y: float) -> float:
    side, step = 112, 128
    known = {region.letter: region for region in regions_of(e)}
    near = [n for n in like.neighbours if n.letter == letter and n.times][:N_PATCHES]
    place = near[0].query_frame
    if place is not None or letter in known:
        c.panel(RIGHT_X - 5, y - 5, side + 10, side + 10, 16, INK)
        c.panel(RIGHT_X - 2, y - 2, side + 4, side + 4, 13, SHEET)
        cut = crop(e.view, known[letter]) if place is None else e.view
        c.photo(RIGHT_X, y, framed(Image.fromarray(cut), side, place), side, side, 12)
    end = c.badge(RIGHT_X, y + side + 30, letter)
    c.text(end + 9, y + side + 30, percent(row_share(like, letter), " "), 20)
    c.text(RIGHT_X + side + 24, y + side / 2 + 6, "looks like", 19, QUIET)
    start = RIGHT_X + RIGHT - N_PATCHES * step + (step - side)
    below, scale = y + side + 74, scale_of(like)
    for number, patch in enumerate(near):
        x = start + number * step
        same = patch.label == (like.target or e.prediction.label)
        if patch.patch is not None:
            c.photo(x, y, framed(faded(patch.patch, same), side, patch.frame), side, side, 12)
        label = c.clipped(patch.label, side, 18, same)
        end = c.text(x, y + side + 25, label, 18, INK if same else QUIET, same)
        if not same:
            c.draw.line((x, y + side + 29, end, y + side + 29), fill=QUIET)
        more = f"  ×{patch.times}" if patch.times > 1 else ""
        more = f"  vote {percent(patch.share, ' ')}" if like.display.votes else more
        c.text(x, y + side + 48, figure(patch.similarity) + more, 17, QUIET)
        why = bars_of(patch, scale)
        if why is not None and (patch.channel is None or number == 0):
            below = max(below, draw_bars(c, x, y + side + 68, side, why) + 22)
    return below


def _words(c: Canvas, e: Explanation, y: float) -> float:
    y = _heading(c, QUESTIONS[2][1], y)
    if isinstance(e.words, Missing):
        return _missing(c, e.words, y)
    groups = word_groups(e)
    if not groups:
        y = c.paragraph(RIGHT_X, y, "No sentences are written for these classes yet.", 22, RIGHT, 2, QUIET)
    for group in groups:
        y = _group(c, group, y) + 14
    return _verdict(c, e.words.verdict, _choice(c, e.words, y + 6))


def _choice(c: Canvas, words: Words, y: float) -> float:
    said = f"The words alone would choose {words.decision}. {words.would_change}"
    return c.paragraph(RIGHT_X, y, said, 22, RIGHT, 4, QUIET) - 8


def _group(c: Canvas, group: dict[str, Any], y: float) -> float:
    end = c.text(RIGHT_X, y, "Says " if group["decided"] else "Would say ", 21, QUIET)
    c.text(end, y, c.clipped(group["label"], 300, 21, True), 21, INK, True)
    c.text(RIGHT_X + 450, y, "fit", 18, QUIET)
    c.text(RIGHT_X + RIGHT, y, "separates", 18, QUIET, right=True)
    y += 38
    for row in group["rows"][:N_WORDS]:
        word = row["word"]
        text = c.clipped(word.text, 430, 22)
        c.text(RIGHT_X, y, text, 22, INK if row["holds"] else QUIET)
        x, width = RIGHT_X + 450, 150
        c.bar(x, y - 7, width, row["left"], row["left"] + row["width"], GOOD if row["holds"] else IDLE)
        tick = x + row["tick"] * width
        c.draw.rectangle((tick - 1, y - 16, tick + 1, y + 2), fill=INK)
        c.text(RIGHT_X + RIGHT, y, figure(word.separates), 22, BAD if row["idle"] else INK, right=True)
        y += 36
    return y


def _model(c: Canvas, e: Explanation, y: float) -> float:
    line = "  ·  ".join(f"{key.replace('_', ' ')} {value}" for key, value in e.model.items())
    c.rule(MARGIN, y, WIDTH - 2 * MARGIN)
    c.text(MARGIN, y + 40, c.clipped(line, WIDTH - 2 * MARGIN - 130, 19), 19, QUIET)
    c.text(WIDTH - MARGIN, y + 40, "SeeWhy", 19, QUIET, True, right=True)
    return y + 76
