"""The card as a still picture, drawn with Pillow alone: no browser, no font to install."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..explanation.base import Explanation
from ..explanation.verdict import Missing
from ..types import FractionBox
from . import canvas as colours
from .blocks import (
    Badge,
    Bar,
    Bars,
    Block,
    Chart,
    Columns,
    Heat,
    Letters,
    Line,
    Note,
    Picture,
    Pictures,
    Strong,
    Table,
    Unseen,
    Verdict,
)
from .canvas import EDGE, INK, LEVEL_COLOURS, LINE, MARK, PAPER, QUIET, SHEET, SMOOTH, Canvas, Colour
from .card import Card, card_of
from .charts import draw
from .page import LEVELS
from .palette import COLOURS, blend

WIDTH, MARGIN = 1400, 64
LEFT = 476
RIGHT_X = MARGIN + LEFT + 64
RIGHT = WIDTH - MARGIN - RIGHT_X
TALLEST = 5500
N_ROWS, N_PATCHES, N_WORDS = 4, 4, 6
SIDE = 112
"""Of a patch."""


def render_png(explanation: Explanation) -> bytes:
    """The card as PNG bytes, 1400 pixels wide and as high as its evidence."""
    card, view = card_of(explanation), explanation.view
    c = Canvas(WIDTH, TALLEST + round(LEFT * view.shape[0] / view.shape[1]))
    top = _summary(c, card, _decision(c, card))
    left, right = draw_blocks(c, card.picture, MARGIN, top, LEFT), top
    for number, section in enumerate(card.sections):
        if number:
            c.rule(RIGHT_X, right + 42, RIGHT)
            right += 84
        c.text(RIGHT_X, right + 26, section.title, 32, INK, True)
        right = draw_blocks(c, section.blocks, RIGHT_X, right + 66, RIGHT)
    end = _model(c, card.model, max(left, right) + 34)
    buffer = io.BytesIO()
    c.cut(end).save(buffer, "PNG", compress_level=1)  # a third of the time of level 4
    return buffer.getvalue()


def draw_blocks(c: Canvas, blocks: Sequence[Block], x: float, y: float, width: float) -> float:
    """Blocks one below the other; what is one click away on a page is left out. Returns where they end."""
    rows = 0
    for block in blocks:
        paint = PAINTERS.get(type(block))
        rows += isinstance(block, Pictures) and block.query is not None
        if paint is not None and rows <= N_ROWS:
            y = paint(c, block, x, y, width)
    return y


def _decision(c: Canvas, card: Card) -> float:
    room, y = WIDTH - 2 * MARGIN, 70.0
    c.text(MARGIN, y, c.clipped(": ".join(card.above), room, 21), 21, QUIET)
    if (sure := card.judgement) is not None:
        c.glyph(MARGIN, y + 25, sure.level, 26)
        y = _judgement(c, sure, MARGIN + 38, y + 46, room - 38, 24, 4) - 30
    odds = card.odds.replace("\u202f", " ")
    size = 92 if c.measure(card.heading, 92, True) < room - 280 else 46
    y, end = y + size * 1.12, float(MARGIN)
    for number, line in enumerate(c.lines(card.heading, room - 200, size, 3, True)):
        y += size * 1.1 if number else 0
        end = c.text(MARGIN - size * 0.03, y, line, size, INK, True)
    if odds:
        c.text(end + size * 0.28, y, odds, size, QUIET)
    c.text(MARGIN, y + 52, c.clipped(str(card.nearly), room, 28), 28, QUIET)
    return c.paragraph(MARGIN, y + 94, card.aside, 24, room, 3) + 24 if card.aside else y + 90


def _summary(c: Canvas, card: Card, y: float) -> float:
    c.rule(MARGIN, y, WIDTH - 2 * MARGIN)
    step = 262 if len(card.summary) == 3 else 250
    for number, (_, title, level, word) in enumerate(card.summary):
        x = MARGIN + number * step
        c.glyph(x, y + 28, level, 26)
        c.text(x + 40, y + 46, title, 20, QUIET)
        c.text(x + 40, y + 76, c.clipped(word, step - 44, 24, True), 24, INK, True)
    x = MARGIN + len(card.summary) * step + 24
    c.draw.line((x - 32, y + 1, x - 32, y + 103), fill=LINE)
    width, (headline, sentence, _) = WIDTH - MARGIN - x, card.agreement
    short = len(c.lines(sentence, width, 20, 2)) == 1
    if not str(headline):
        c.paragraph(x, y + 46, sentence, 20, width, 2)
    else:
        base = y + (46 if short else 36)
        c.text(x, base, c.clipped(str(headline), width, 24, True), 24, INK, True)
        c.paragraph(x, base + (30 if short else 27), sentence, 18, width, 2, QUIET)
    c.rule(MARGIN, y + 104, WIDTH - 2 * MARGIN)
    return y + 148


def _model(c: Canvas, model: dict[str, str], y: float) -> float:
    line = "  ·  ".join(f"{key.replace('_', ' ')} {value}" for key, value in model.items())
    c.rule(MARGIN, y, WIDTH - 2 * MARGIN)
    c.text(MARGIN, y + 40, c.clipped(line, WIDTH - 2 * MARGIN - 130, 19), 19, QUIET)
    c.text(WIDTH - MARGIN, y + 40, "SeeWhy", 19, QUIET, True, right=True)
    return y + 76


def _judgement(c: Canvas, v: Verdict, x: float, y: float, width: float, size: int, most: int) -> float:
    """The level in its colour, then the sentence; where the next line would stand."""
    level, height = f"{v.word or LEVELS[v.level]}.", size + 10
    indent = c.measure(level, size, True) + 10
    c.text(x, y, level, size, LEVEL_COLOURS[v.level], True)
    lines = c.lines(v.sentence, width, size, most, indent=indent)
    for number, line in enumerate(lines):
        c.text(x + (0 if number else indent), y + number * height, line, size)
    return y + height * max(1, len(lines))


def _verdict(c: Canvas, v: Verdict, x: float, y: float, width: float) -> float:
    """On a sheet of its own."""
    indent = c.measure(f"{v.word or LEVELS[v.level]}.", 22, True) + 10
    height = 38 + 32 * max(1, len(c.lines(v.sentence, width - 92, 22, 5, indent=indent)))
    c.panel(x, y, width, height, 14, SHEET, LINE)
    c.glyph(x + 22, y + 22, v.level, 26)
    _judgement(c, v, x + 62, y + 43, width - 92, 22, 5)
    return y + height


def _missing(c: Canvas, missing: Missing, x: float, y: float, width: float) -> float:
    end = c.paragraph(x + 40, y, missing.reason, 22, width - 40, 4)
    c.glyph(x, y - 20, "not measured", 26)
    return c.paragraph(x + 40, end, f"What it takes: {missing.cure}", 22, width - 40, 4, QUIET)


def _note(c: Canvas, note: Note, x: float, y: float, width: float) -> float:
    if note.kind == "rest":
        c.text(x, y, c.clipped(str(note.text), width, 19), 19, QUIET)
        return y + 39
    return c.paragraph(x, y, str(note.text), 22, width, 4, QUIET) + 8


def _letters(c: Canvas, block: Letters, x: float, y: float, width: float) -> float:
    start, end = x, x + width
    for name, text, remark in block.items:
        room = c.measure(f"{name}{text}{remark}", 22) + 60
        if x > start and x + room > end:
            x, y = start, y + 36
        x = c.badge(x, y, name) if block.are_letters else c.text(x, y, name, 20, INK, True)
        x = c.text(x + 10, y, str(text), 22)
        x = c.text(x + 10, y, remark, 19, QUIET) + 28
    return y + 42


def _columns(c: Canvas, block: Columns, x: float, y: float, width: float) -> float:
    n, gap = len(block.columns), 40
    each = (width - gap * (n - 1)) / n
    return max(draw_blocks(c, column, x + i * (each + gap), y, each) for i, column in enumerate(block.columns))


def _chart(c: Canvas, chart: Chart, x: float, y: float, width: float) -> float:
    c.text(x, y + 6, chart.title, 21, INK, True)
    drawing, top = draw(chart), y + 18
    scale = width / drawing.width
    height = drawing.height * scale

    def paint(d: ImageDraw.ImageDraw) -> None:
        for shape in drawing.shapes:
            place = [v * scale * SMOOTH for v in shape.place]
            ink = _ink(shape.colour)
            if shape.kind == "area":
                d.polygon(place, fill=(*ink, 30))
            elif shape.kind == "dot":
                px, py, r = place
                d.ellipse((px - r, py - r, px + r, py + r), fill=ink)
            elif shape.kind == "line" and shape.dashed:
                for px, py in zip(place[::2], place[1::2], strict=True):
                    d.ellipse((px - 7, py - 7, px + 7, py + 7), fill=ink)
            elif shape.kind == "line":
                d.line(place, fill=ink, width=round(1.5 * shape.width * SMOOTH), joint="curve")

    c.smooth(x, top, width, height, paint)
    for shape in drawing.shapes:
        if shape.kind == "text":
            left = x + shape.place[0] * scale
            at = left - c.measure(shape.text, 17) / 2 if shape.anchor == "middle" else left
            c.text(at, top + shape.place[1] * scale, shape.text, 17, QUIET, right=shape.anchor == "end")
    at = x + 56
    for curve in chart.curves:
        ink = QUIET if curve.dashed else _ink(curve.colour)
        at = c.text(at, top + height + 26, f"{curve.name} ", 19, ink)
        at = c.text(at, top + height + 26, str(curve.value), 19, ink, not curve.dashed) + 14
    return top + height + 56


def _ink(name: str) -> Colour:
    return getattr(colours, name.upper()) if name else INK


def _pictures(c: Canvas, block: Pictures, x: float, y: float, width: float) -> float:
    if block.query is None:
        shown = [p for p in block.pictures if p.on_still]
        gap, n = 28.0, max(3, len(shown))
        side = round((width - (n - 1) * gap) / n)
        for number, picture in enumerate(shown):
            left = x + number * (side + gap)
            _photo(c, picture, left, y - 8, side, Image.Resampling.NEAREST)
            for line, text in enumerate(picture.caption):
                size, is_name, ink = (18, False, QUIET) if line else (20, True, INK)
                shown_text = c.clipped(str(text), side, size, is_name)
                c.text(left, y + side + 20 + 26 * line, shown_text, size, ink, is_name)
        return y + side + 76
    y, query, below = y - 14, block.query, y + SIDE + 60
    if query.pixels is not None:
        c.panel(x - 5, y - 5, SIDE + 10, SIDE + 10, 16, INK)
        c.panel(x - 2, y - 2, SIDE + 4, SIDE + 4, 13, SHEET)
        _photo(c, query, x, y, SIDE)
    first, *rest = query.caption
    _line(c, first, x, y + SIDE + 30, 20)
    for number, text in enumerate(rest):
        c.text(x, y + SIDE + 52 + 20 * number, c.clipped(str(text), SIDE + 40, 16), 16, QUIET)
    c.text(x + SIDE + 24, y + SIDE / 2 + 6, "looks like", 19, QUIET)
    step = SIDE + 16
    start = x + width - N_PATCHES * step + 16
    for number, picture in enumerate(block.pictures[:N_PATCHES]):
        left = start + number * step
        _photo(c, picture, left, y, SIDE)
        name = c.clipped(str(picture.caption[0]), SIDE, 18, not picture.kind)
        under = c.clipped(str(picture.caption[1]), SIDE, 17)
        end = c.text(left, y + SIDE + 25, name, 18, QUIET if picture.kind else INK, not picture.kind)
        if picture.kind == "other":
            c.draw.line((left, y + SIDE + 29, end, y + SIDE + 29), fill=QUIET)
        c.text(left, y + SIDE + 48, under, 17, QUIET)
        bars = picture.bars or (query.bars if number == 0 else None)
        if bars is not None:
            below = max(below, _bars(c, bars, left, y + SIDE + 68, SIDE) + 22)
    return below + 14


def _line(c: Canvas, text: Any, x: float, y: float, size: int) -> float:
    """Text with badges and strong words in it; where it ends."""
    for part in text if isinstance(text, Line) else (text,):
        if isinstance(part, Badge):
            x = c.badge(x, y, part.text) + 3
        else:
            x = c.text(x, y, str(part), size, INK, isinstance(part, Strong))
    return x


def _photo(c: Canvas, p: Picture, x: float, y: float, side: int, how: Any = Image.Resampling.BICUBIC) -> None:
    """A square with round corners; what is of another class steps back, and a place is framed."""
    if not isinstance(p.pixels, np.ndarray):
        return
    picture = Image.fromarray(p.pixels).convert("RGB")
    if how == Image.Resampling.NEAREST:
        picture = picture.resize((side, side), how)
    if p.kind == "other":
        grey = Image.blend(picture, picture.convert("L").convert("RGB"), 0.55)
        picture = Image.blend(grey, Image.new("RGB", grey.size, PAPER), 0.5)
    c.photo(x, y, picture if p.frame is None else _framed(picture, side, p.frame), side, side, 12)


def _framed(picture: Image.Image, side: int, box: FractionBox) -> Image.Image:
    large = picture.resize((side * SMOOTH, side * SMOOTH), Image.Resampling.BICUBIC)
    left, top, right, bottom = (v * side * SMOOTH for v in box)
    pen = ImageDraw.Draw(large)
    pen.rectangle((left, top, right, bottom), outline=EDGE, width=4 * SMOOTH)
    inner = (left + SMOOTH, top + SMOOTH, right - SMOOTH, bottom - SMOOTH)
    pen.rectangle(inner, outline=MARK, width=2 * SMOOTH)
    return large


def _bars(c: Canvas, block: Bars, x: float, y: float, width: float) -> float:
    if block.kind == "because":
        y = c.paragraph(x, y, str(block.title), 15, width, 3, INK) + 1
        for bar in block.bars:
            c.text(x, y, bar.name, 14, QUIET)
            _bar(c, bar, x + 72, y - 4.5, width - 72, 7)
            y += 18
        return y
    if not isinstance(block.title, Unseen) and str(block.title):
        c.text(x, y, str(block.title), 19, QUIET)
        y += 39
    for bar in block.bars:
        ink, first = (INK, True) if bar.colour == "ink" else (QUIET, False)
        c.text(x, y, c.clipped(bar.name, width - 250, 23, first), 23, ink, first)
        _bar(c, bar, x + width - 232, y - 8, 150, 10)
        c.text(x + width, y, str(bar.text), 23, ink, first, right=True)
        y += 39
    return y


def _bar(c: Canvas, bar: Bar, x: float, y: float, width: float, height: float) -> None:
    c.bar(x, y, width, bar.start, bar.start + bar.value, _ink(bar.colour), height)
    if bar.mark is not None:
        at = x + bar.mark * (width - 2)
        c.draw.rectangle((at, y - height / 2 - 3, at + 1, y + height / 2 + 3), fill=INK)


def _sentences(c: Canvas, table: Table, x: float, y: float, width: float) -> float:
    if table.kind != "sentences":
        return y
    says, *others = table.columns
    _line(c, says, x, y, 21)
    c.text(x + 450, y, str(others[0]), 18, QUIET)
    c.text(x + width, y, str(others[1]), 18, QUIET, right=True)
    y += 38
    for row, idle in zip(table.rows[:N_WORDS], table.idle, strict=False):
        text, fit, separates = row
        c.text(x, y, c.clipped(str(text.text), 430, 22), 22, QUIET if idle else INK)
        _bar(c, fit.bar, x + 450, y - 7, 150, 10)
        c.text(x + width, y, str(separates.text), 22, _ink(separates.colour), right=True)
        y += 36
    return y + 14


def _heat(c: Canvas, block: Heat, x: float, y: float, width: float) -> float:
    width = round(0.6 * width) if block.is_whole else round(width)
    height = max(1, round(width * block.view.shape[0] / block.view.shape[1]))
    picture = Image.fromarray(block.view).convert("RGB")
    if block.dark is not None:
        layer = Image.fromarray(block.dark).resize(picture.size)
        picture.paste(layer.convert("RGB"), (0, 0), layer.getchannel("A"))
    if block.heat is not None:
        large = picture.resize((width, height), Image.Resampling.BICUBIC)
        picture = Image.fromarray(blend(np.asarray(large), block.heat))
    c.photo(x, y, picture, width, height, 12 if block.is_whole else 18)
    for letter, box in [(one.letter, one.box) for one in block.letters] + ([("", block.frame)] if block.frame else []):
        _mark(c, x, y, width, height, letter, box)
    y += height + 36
    if block.heat is not None:
        ramp = Image.fromarray(np.repeat(COLOURS[None], 10, axis=0))
        c.text(x + width, y, "strong", 19, QUIET, right=True)
        c.photo(x + width - 166, y - 12, ramp, 96, 10, 5)
        c.text(x + width - 176, y, "weak", 19, QUIET, right=True)
        c.text(x, y, c.clipped(str(block.caption), width - 230, 21), 21)
        return y + 52
    if block.is_whole:
        c.text(x, y - 6, c.clipped(str(block.caption), width, 19), 19, QUIET)
    return y + (36 if block.is_whole else 0)


def _mark(c: Canvas, x: float, y: float, width: float, height: float, letter: str, box: FractionBox) -> None:
    left, top = x + box[0] * width, y + box[1] * height
    wide, tall = max(8.0, (box[2] - box[0]) * width), max(8.0, (box[3] - box[1]) * height)

    def paint(d: ImageDraw.ImageDraw) -> None:
        right, bottom = round(wide) * SMOOTH - 1, round(tall) * SMOOTH - 1
        d.rounded_rectangle((0, 0, right, bottom), 6 * SMOOTH, outline=(*EDGE, 150), width=5 * SMOOTH)
        inner = (SMOOTH, SMOOTH, right - SMOOTH, bottom - SMOOTH)
        d.rounded_rectangle(inner, 5 * SMOOTH, outline=MARK, width=3 * SMOOTH)
        if letter:
            d.rounded_rectangle((SMOOTH, SMOOTH, 25 * SMOOTH, 26 * SMOOTH), 5 * SMOOTH, fill=MARK)

    c.smooth(left, top, wide, tall, paint)
    c.text(round(left) + 13 - c.measure(letter, 19, True) / 2, round(top) + 20, letter, 19, INK, True)


PAINTERS: dict[Any, Callable[..., float]] = {
    Note: _note,
    Letters: _letters,
    Columns: _columns,
    Chart: _chart,
    Verdict: _verdict,
    Missing: _missing,
    Pictures: _pictures,
    Bars: _bars,
    Table: _sentences,
    Heat: _heat,
}
