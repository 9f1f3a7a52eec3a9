"""The card as a still picture, drawn with Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from ..explanation.base import Explanation
from ..storage.output import CARD
from ..types import FractionBox
from . import canvas as colours
from .blocks import Bar, Bars, Block, Evidence, Heat, Note, Picture, Pictures, Table, Unseen
from .canvas import EDGE, EMBER, INK, LEVEL_COLOURS, MARK, PAPER, QUIET, SHEET, SMOOTH, Canvas, Colour
from .card import Card, card_of
from .palette import COLOURS, blend

WIDTH, MARGIN = 1400, 64
LEFT, GAP = 540, 56
RIGHT_X = MARGIN + LEFT + GAP
RIGHT = WIDTH - MARGIN - RIGHT_X
TALLEST = 5500
N_ROWS, N_PATCHES, N_WORDS = 4, 4, 6
SIDE = 112
"""Side of a patch, in pixels."""


def render_png(explanation: Explanation) -> bytes:
    """Return the card as PNG bytes, 1400 pixels wide."""
    card, view = card_of(explanation), explanation.view
    c = Canvas(WIDTH, TALLEST + round(LEFT * view.shape[0] / view.shape[1]))
    y = max(draw_blocks(c, card.picture, MARGIN, 56, LEFT), _decision(c, card)) + 20
    alone = [one for one in card.evidence if not one.shown]
    for one in card.evidence:
        if one.shown:
            c.rule(MARGIN, y, WIDTH - 2 * MARGIN)
            y = max(_said(c, one, MARGIN, y + 56, LEFT), draw_blocks(c, one.shown, RIGHT_X, y + 44, RIGHT)) + 24
    for pair in (alone[n : n + 2] for n in range(0, len(alone), 2)):
        c.rule(MARGIN, y, WIDTH - 2 * MARGIN)
        places = ((MARGIN, LEFT), (RIGHT_X, RIGHT)) if len(pair) > 1 else ((MARGIN, WIDTH - 2 * MARGIN),)
        ends = [_said(c, one, x, y + 56, width) for one, (x, width) in zip(pair, places, strict=True)]
        y = max(ends) + 24
    buffer, mark = io.BytesIO(), PngInfo()
    mark.add_text("Software", CARD)
    # A third of the time of level 4.
    c.cut(_model(c, card.model, y)).save(buffer, "PNG", compress_level=1, pnginfo=mark)
    return buffer.getvalue()


def draw_blocks(c: Canvas, blocks: Sequence[Block], x: float, y: float, width: float) -> float:
    """Draw blocks one below the other, without folded content, and return the y of their end."""
    rows = 0
    for block in blocks:
        paint = PAINTERS.get(type(block))
        rows += isinstance(block, Pictures) and block.query is not None
        if paint is not None and rows <= N_ROWS:
            y = paint(c, block, x, y, width)
    return y


def _decision(c: Canvas, card: Card) -> float:
    """Draw the decision to the right of the picture."""
    x, y = RIGHT_X, 72.0
    c.text(x, y, c.clipped(": ".join(filter(None, (card.name, card.part))), RIGHT, 21), 21, QUIET)
    if (sign := card.sign) is not None and sign.word != card.heading:
        c.glyph(x, y + 26, sign.level, 26)
        y = c.paragraph(x + 38, y + 48, sign.word, 25, RIGHT - 38, 2, LEVEL_COLOURS[sign.level], True) - 36
    odds = card.odds.replace("\u202f", " ")
    size = next((s for s in (80, 60) if c.measure(f"{card.heading} {odds}", s, True) < RIGHT), 42)
    y, end = y + size * 1.2, float(x)
    for number, line in enumerate(c.lines(card.heading, RIGHT - 130, size, 3, True)):
        y += size * 1.1 if number else 0
        end = c.text(x - size * 0.03, y, line, size, INK, True)
    if odds:
        c.text(end + size * 0.28, y, odds, size, QUIET)
    y += 50
    if sign is not None:
        y = c.paragraph(x, y, str(sign.sentence), 26, RIGHT, 5) + 6
    if card.aside:
        y = c.paragraph(x, y, card.aside, 22, RIGHT, 3, QUIET) + 6
    if str(card.next):
        c.text(x, y, "→", 24, EMBER, True)
        y = c.paragraph(x + 36, y, str(card.next), 24, RIGHT - 36, 4, EMBER) + 14
    return _bars(c, card.scores, x, y + 8, min(RIGHT, 520))


def _said(c: Canvas, one: Evidence, x: float, y: float, width: float) -> float:
    """Draw title and verdict of a kind of evidence, and return the y of their end."""
    c.text(x, y, c.clipped(one.title, width, 30, True), 30, INK, True)
    c.glyph(x, y + 22, one.verdict.level, 26)
    level, indent = f"{one.verdict.word}.", 38.0
    c.text(x + indent, y + 44, level, 23, LEVEL_COLOURS[one.verdict.level], True)
    first = c.measure(level, 23, True) + 10
    lines = c.lines(str(one.verdict.sentence), width - indent, 23, 6, indent=first)
    for number, line in enumerate(lines):
        c.text(x + indent + (0 if number else first), y + 44 + number * 33, line, 23)
    return y + 44 + 33 * max(1, len(lines))


def _model(c: Canvas, model: dict[str, str], y: float) -> float:
    line = "  ·  ".join(f"{key.replace('_', ' ')} {value}" for key, value in model.items())
    c.rule(MARGIN, y, WIDTH - 2 * MARGIN)
    c.text(WIDTH - MARGIN, y + 40, "SeeWhy", 19, QUIET, True, right=True)
    return max(y + 48, c.paragraph(MARGIN, y + 40, line, 19, WIDTH - 2 * MARGIN - 130, 3, QUIET)) + 28


def _note(c: Canvas, note: Note, x: float, y: float, width: float) -> float:
    if note.kind == "rest":
        c.text(x, y, c.clipped(str(note.text), width, 19), 19, QUIET)
        return y + 39
    return c.paragraph(x, y, str(note.text), 22, width, 4, QUIET) + 8


def _ink(name: str) -> Colour:
    return getattr(colours, name.upper()) if name else INK


def _pictures(c: Canvas, block: Pictures, x: float, y: float, width: float) -> float:
    if block.query is None:
        shown = [p for p in block.pictures if p.on_still]
        gap, n = 28.0, max(3, len(shown))
        side = round(min((width - (n - 1) * gap) / n, 170))
        for number, picture in enumerate(shown):
            left = x + number * (side + gap)
            how = Image.Resampling.NEAREST if block.kind == "pixels" else Image.Resampling.BICUBIC
            _photo(c, picture, left, y - 8, side, how)
            for line, text in enumerate(picture.caption):
                size, is_name, ink = (18, False, QUIET) if line else (20, True, INK)
                shown_text = c.clipped(str(text), side, size, is_name)
                c.text(left, y + side + 20 + 26 * line, shown_text, size, ink, is_name)
        return y + side + 76
    y, query, below = y - 14, block.query, y + SIDE + 34
    if query.pixels is not None:
        c.panel(x - 5, y - 5, SIDE + 10, SIDE + 10, 16, INK)
        c.panel(x - 2, y - 2, SIDE + 4, SIDE + 4, 13, SHEET)
        _photo(c, query, x, y, SIDE)
    c.badge(x, y + SIDE + 30, str(query.caption[0]))
    c.text(x + SIDE + 20, y + SIDE / 2 + 8, "→", 22, QUIET)
    step = SIDE + 16
    start = x + width - N_PATCHES * step + 16
    for number, picture in enumerate(block.pictures[:N_PATCHES]):
        left = start + number * step
        _photo(c, picture, left, y, SIDE)
        end = y + SIDE + 24
        for words in c.lines(str(picture.caption[0]), SIDE, 17, 4):
            width_of = c.text(left, end, words, 17, QUIET)
            c.draw.line((left, end + 4, width_of, end + 4), fill=QUIET)
            end += 22
        bars = picture.bars or (query.bars if number == 0 else None)
        if bars is not None:
            end = _bars(c, bars, left, end, SIDE) + 22
        below = max(below, end)
    return below + 14


def _photo(c: Canvas, p: Picture, x: float, y: float, side: int, how: Any = Image.Resampling.BICUBIC) -> None:
    """Draw a square picture with rounded corners; a picture of another class is drawn pale."""
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
        _bar(c, bar, x + width - 232, y - 8, 150, 10)
        c.text(x + width, y, str(bar.text), 23, ink, first, right=True)
        y = c.paragraph(x, y, bar.name, 23, width - 250, 4, ink, first) + 6
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
    c.text(x + width - 150, y, str(others[0]), 18, QUIET)
    y = c.paragraph(x, y, str(says), 21, width - 180, 4, INK, True) + 8
    for row, idle in zip(table.rows[:N_WORDS], table.idle, strict=False):
        text, fit = row[:2]
        _bar(c, fit.bar, x + width - 150, y - 7, 150, 10)
        y = c.paragraph(x, y, str(text.text), 22, width - 180, 4, QUIET if idle else INK) + 6
    return y + 8


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
        return c.paragraph(x, y, str(block.caption), 21, width - 230, 4) + 22
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
    Note: _note, Pictures: _pictures, Bars: _bars, Table: _sentences, Heat: _heat,
}  # fmt: skip
