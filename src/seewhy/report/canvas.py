"""Drawing with Pillow: wrapped text, antialiased shapes, and fonts.

Characters without a glyph in any font lose their accent, or are written as their code point.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont

from ..explanation.verdict import Level
from .palette import LIGHT, OVER_PHOTO, Colour, rgb

PAPER, SHEET, INK, QUIET, LINE, WELL, IDLE, EMBER, GOOD, PART, BAD = (
    rgb(LIGHT[name])
    for name in ("paper", "sheet", "ink", "quiet", "line", "well", "idle", "ember", "good", "part", "bad")
)
MARK, EDGE = rgb(OVER_PHOTO["mark"]), rgb(OVER_PHOTO["edge"])
LEVEL_COLOURS: dict[Level, Colour] = {"believable": GOOD, "partly": PART, "do not rely": BAD, "not measured": QUIET}

SMOOTH = 4
_SYSTEM_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arialuni.ttf",
    "msyh.ttc", "segoeui.ttf", "arial.ttf",
)  # fmt: skip
_PLAIN = str.maketrans({"\u202f": " ", "\u00a0": " ", "\u2009": " ", "−": "-", "–": "-", "—": "-", "×": "x", "\t": " "})


@cache
def _font(name: str | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont | None:
    if name is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@cache
def _has(name: str | None, sign: str) -> bool:
    font = _font(name, 32)
    if font is None:
        return False
    if sign.isspace():
        return sign == " "
    drawn, absent = font.getmask(sign), font.getmask("\uffff")
    return drawn.size != absent.size or bytes(drawn) != bytes(absent)


@cache
def _fitted(text: str) -> tuple[str, str | None]:
    """Return the text as the best font can draw it, and this font."""
    text = " ".join(unicodedata.normalize("NFC", text.translate(_PLAIN)).split(" "))
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    names: tuple[str | None, ...] = (None, *_SYSTEM_FONTS)
    best = max(names, key=lambda name: sum(_has(name, sign) for sign in text))
    if all(_has(best, sign) for sign in text):
        return text, best
    bare = unicodedata.normalize("NFKD", text)
    letters = (c for c in bare if unicodedata.category(c)[0] != "M")
    return "".join(c if _has(best, c) else f"[{ord(c):X}]" for c in letters), best


@lru_cache(8192)
def _length(drawn: str, name: str | None, size: int) -> float:
    font = _font(name, size)
    assert font is not None
    return font.getlength(drawn)


class Canvas:
    """A drawing surface of fixed width, cropped to its height by :meth:`cut`."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def cut(self, height: float) -> Image.Image:
        return self.image.crop((0, 0, self.image.width, min(self.image.height, round(height))))

    def measure(self, text: str, size: int, bold: bool = False) -> float:
        return _length(*_fitted(text), size) + (size * 0.035 if bold else 0.0)

    def text(
        self, x: float, y: float, text: str, size: int, fill: Colour = INK, bold: bool = False, right: bool = False
    ) -> float:
        """Draw a line of text with its baseline at ``y``, and return the x of its end."""
        drawn, name = _fitted(text)
        font = _font(name, size)
        width = self.measure(text, size, bold)
        left = x - width if right else x
        for shift in (0.0, size * 0.018, size * 0.035) if bold else (0.0,):
            self.draw.text((left + shift, y), drawn, font=font, fill=fill, anchor="ls")
        return left + width

    def clipped(self, text: str, width: float, size: int, bold: bool = False) -> str:
        """Return the text, shortened with an ellipsis to fit ``width``."""
        if self.measure(text, size, bold) <= width:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.measure(text[:middle].rstrip() + "…", size, bold) <= width:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + "…"

    def lines(
        self, text: str, width: float, size: int, most: int, bold: bool = False, indent: float = 0.0
    ) -> list[str]:
        """Wrap text into at most ``most`` lines; ``indent`` shortens the first line."""
        words = text.split()
        lines: list[str] = []
        while words and len(lines) < most:
            room = width - (indent if not lines else 0.0)

            def width_of(n: int, words: list[str] = words) -> float:
                return self.measure(" ".join(words[:n]), size, bold)

            count = bisect_right(range(1, len(words) + 1), room, key=width_of)
            if len(lines) == most - 1:
                lines.append(self.clipped(" ".join(words), room, size, bold))
                break
            if count:
                lines.append(" ".join(words[:count]))
                words = words[count:]
                continue
            word = words[0]
            head = next((n for n in range(len(word), 1, -1) if self.measure(word[:n], size, bold) <= room), 1)
            lines.append(word[:head])
            words[0] = word[head:]
        return lines

    def paragraph(
        self, x: float, y: float, text: str, size: int, width: float, most: int, fill: Colour = INK, bold: bool = False
    ) -> float:
        """Draw wrapped text with its first baseline at ``y``, and return the next baseline."""
        for line in self.lines(text, width, size, most, bold):
            self.text(x, y, line, size, fill, bold)
            y += size * 1.45
        return y

    def rule(self, x: float, y: float, width: float) -> None:
        self.draw.rectangle((round(x), round(y), round(x + width), round(y)), fill=LINE)

    def smooth(
        self, x: float, y: float, width: float, height: float, paint: Callable[[ImageDraw.ImageDraw], None]
    ) -> None:
        """Draw antialiased: ``paint`` draws at :data:`SMOOTH` times the size."""
        size = (max(1, round(width)), max(1, round(height)))
        layer = Image.new("RGBA", (size[0] * SMOOTH, size[1] * SMOOTH), (*PAPER, 0))
        paint(ImageDraw.Draw(layer))
        small = layer.resize(size, Image.Resampling.BOX)
        self.image.paste(small, (round(x), round(y)), small)

    def panel(self, x: float, y: float, width: float, height: float, radius: float, fill: Colour) -> None:
        edge = (0, 0, width * SMOOTH - 1, height * SMOOTH - 1)
        self.smooth(x, y, width, height, lambda d: d.rounded_rectangle(edge, radius * SMOOTH, fill))

    def photo(self, x: float, y: float, picture: Image.Image, width: int, height: int, radius: float) -> None:
        mask = Image.new("L", (width * SMOOTH, height * SMOOTH), 0)
        edge = (0, 0, width * SMOOTH - 1, height * SMOOTH - 1)
        ImageDraw.Draw(mask).rounded_rectangle(edge, radius * SMOOTH, fill=255)
        small = picture.resize((width, height), Image.Resampling.BICUBIC)
        self.image.paste(small, (round(x), round(y)), mask.resize((width, height), Image.Resampling.BOX))

    def bar(self, x: float, y: float, width: float, start: float, end: float, fill: Colour, height: float = 10) -> None:
        """Draw a bar from ``start`` to ``end`` (0…1), with its middle at ``y``."""
        long, top = (end - start) * width, y - height / 2
        self.panel(x, top, width, height, height / 2, WELL)
        self.panel(x + start * width, top, max(3.0, long), height, min(height / 2, max(1.5, long / 2)), fill)

    def badge(self, x: float, y: float, letter: str, size: int = 20) -> float:
        """Draw a letter on a dark tile, and return the x of the tile's end."""
        width = max(size * 1.5, self.measure(letter, size, True) + size * 0.7)
        self.panel(x, y - size * 1.08, width, size * 1.45, 5, INK)
        self.text(x + (width - self.measure(letter, size, True)) / 2, y, letter, size, PAPER, True)
        return x + width

    def glyph(self, x: float, y: float, level: Level, size: int) -> None:
        colour = LEVEL_COLOURS[level]
        unit = size * SMOOTH / 16

        def at(*values: float) -> list[float]:
            return [v * unit for v in values]

        def paint(d: ImageDraw.ImageDraw) -> None:
            stroke = round(1.7 * unit)
            if level == "believable":
                d.ellipse(at(1, 1, 15, 15), fill=colour)
                d.line(at(4.8, 8.2, 7.0, 10.5, 11.2, 5.8), fill=SHEET, width=stroke, joint="curve")
            elif level == "partly":
                d.ellipse(at(1, 1, 15, 15), outline=colour, width=stroke)
                d.pieslice(at(1, 1, 15, 15), -90, 90, fill=colour)
            elif level == "do not rely":
                d.ellipse(at(1, 1, 15, 15), outline=colour, width=stroke)
                d.line(at(3.6, 12.4, 12.4, 3.6), fill=colour, width=stroke)
            else:
                for start in range(0, 360, 45):
                    d.arc(at(1, 1, 15, 15), start, start + 25, fill=colour, width=stroke)

        self.smooth(x, y, size, size, paint)
