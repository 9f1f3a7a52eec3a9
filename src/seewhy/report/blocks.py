"""The blocks of a page, which are rendered as HTML, as a still picture, or in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from html import escape
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from ..explanation.verdict import Level
from ..types import FractionBox

Colour = Literal["good", "part", "bad", "ember", "ink", "idle", "quiet", "line", ""]
"""Name of a colour of the palette."""


@dataclass(frozen=True)
class Span:
    """Text with a role, such as bold or code."""

    text: str
    tags: ClassVar[tuple[str, str]] = ("<b>", "</b>")

    def __str__(self) -> str:
        return self.text

    def __html__(self) -> str:
        return f"{self.tags[0]}{escape(self.text, quote=False)}{self.tags[1]}"


class Strong(Span):
    """Bold text."""


class Code(Span):
    """A command or an option."""

    tags = ("<code>", "</code>")


class Badge(Span):
    """Letter of a region."""

    tags = ('<b class="letter">', "</b>")


class Unseen(Span):
    """Text for screen readers only."""

    tags = ('<span class="unseen">', "</span>")

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True)
class Def:
    key: str
    text: str

    def __str__(self) -> str:
        return self.text

    def __html__(self) -> str:
        return f'<a class="def" href="#def-{escape(self.key)}">{escape(self.text, quote=False)}</a>'


class Line(tuple[Any, ...]):
    __slots__ = ()

    def __new__(cls, *parts: Any) -> Line:
        return super().__new__(cls, parts)

    def __str__(self) -> str:
        return "".join(map(str, self))

    def __html__(self) -> str:
        return "".join(p.__html__() if hasattr(p, "__html__") else escape(str(p), quote=False) for p in self)


Text = str | Span | Def | Line


@dataclass(frozen=True)
class Note:
    text: Text
    kind: Literal["lead", "said", "rest", "aside", "next"] = "lead"


class Figure(NamedTuple):
    """A number with its name; ``term`` is the glossary key of the name, or empty."""

    term: str
    name: str
    text: str


@dataclass(frozen=True)
class Figures:
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Verdict:
    """A verdict: level, short text, and a sentence."""

    level: Level
    word: str
    sentence: Text = ""


class Bar(NamedTuple):
    """A horizontal bar from ``start`` to ``start + value``, in 0…1; ``mark`` is the position of a tick."""

    name: str
    value: float
    text: Text = ""
    start: float = 0.0
    mark: float | None = None
    colour: Colour = "idle"
    title: str = ""


@dataclass(frozen=True)
class Bars:
    bars: Sequence[Bar]
    kind: Literal["ranks", "because"] = "ranks"
    title: Text = ""


@dataclass(frozen=True)
class Cell:
    """A table cell with small lines, a colour, a bar or pictures."""

    text: Text = ""
    small: Sequence[str] = ()
    colour: Colour = ""
    tint: float = 0.0
    strong: bool = False
    title: str = ""
    bar: Bar | None = None
    pictures: Sequence[Picture] = ()

    def __str__(self) -> str:
        return " ".join([str(self.text), *self.small])


@dataclass(frozen=True)
class Table:
    """A table; ``None`` is shown as a dash, and integers have thousands separators."""

    columns: Sequence[Text]
    rows: Sequence[Sequence[Any]]
    kind: Literal["plain", "matrix", "sentences"] = "plain"
    title: str = ""
    idle: Sequence[bool] = ()
    """Whether each row is pale."""

    def is_number(self, column: int) -> bool:
        """Return whether a column has numbers, which are right-aligned."""
        texts = [text_of(row[column]).strip() for row in self.rows]
        return column > 0 and all(not t or t[0] in "–−-+<>±" or t[0].isdigit() for t in texts) and any(texts)


class Dot(NamedTuple):
    """A point of a chart."""

    x: float
    y: float
    size: float = 3.0
    title: str = ""
    colour: Colour = "ink"


class Curve(NamedTuple):
    points: Sequence[tuple[float, float]]
    name: str = ""
    value: Text = ""
    colour: Colour = "ember"
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    title: str
    curves: Sequence[Curve] = ()
    band: Sequence[tuple[float, float, float]] = ()
    """A band of the chart: x, low, high."""
    dots: Sequence[Dot] = ()
    across: str = ""
    """Label of the horizontal axis."""
    upwards: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    log: bool = False
    """Whether the horizontal axis is logarithmic."""
    plain_x: bool = False
    """Whether the horizontal axis shows numbers rather than per cent."""
    plain_y: bool = False
    levels: Sequence[tuple[float, Colour]] = ()
    """Heights of horizontal lines."""
    edges: Sequence[float] = ()
    """Positions of dashed vertical lines."""
    small: bool = False
    alt: str = ""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with a caption, from pixels, JPEG bytes or an address; ``None`` is blank."""

    pixels: np.ndarray | bytes | str | None
    alt: str
    caption: Sequence[Text] = ()
    frame: FractionBox | None = None
    kind: Literal["", "other", "known"] = ""
    """Empty, ``other`` (pale) or ``known`` (outlined)."""
    title: str = ""
    href: str = ""
    bars: Bars | None = None
    on_still: bool = True


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in a row; with ``query``, a picture that the others resemble, which comes first."""

    pictures: Sequence[Picture]
    kind: Literal["patches", "places", "pixels", "sheet", "row"] = "patches"
    query: Picture | None = None


@dataclass(frozen=True)
class Letter:
    letter: str
    box: FractionBox
    share: str
    place: str


@dataclass(frozen=True, eq=False)
class Heat:
    """A photograph with a heat map and lettered regions; ``dark`` is an RGBA layer that darkens it outside a part."""

    view: np.ndarray
    heat: np.ndarray | None
    letters: Sequence[Letter]
    alt: str
    caption: Text = ""
    dark: np.ndarray | None = None
    frame: FractionBox | None = None
    small: bool = False
    is_whole: bool = False
    """Whether this is the whole picture, shown next to a part of it."""


@dataclass(frozen=True)
class Facts:
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Fold:
    """Content that is shown after a click."""

    title: Text
    blocks: Sequence[Block]
    is_open: bool = False


@dataclass(frozen=True)
class Columns:
    columns: Sequence[Sequence[Block]]


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
    kind: Literal["", "failed", "provenance"] = ""


@dataclass(frozen=True)
class Evidence:
    """One kind of evidence on a card."""

    key: str
    title: str
    verdict: Verdict
    shown: Sequence[Block] = ()
    more: Fold | None = None


Block = Note | Figures | Verdict | Bars | Table | Chart | Pictures | Heat | Facts | Fold | Columns | Section


@dataclass(frozen=True)
class Document:
    title: str
    headline: Text
    blocks: Sequence[Block]
    above: str = ""
    """A small line above the headline."""
    below: Sequence[Text] = ()


def text_of(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    return f"{value:.2f}".replace("-", "−") if isinstance(value, float) else str(value)


def spoken(key: str) -> str:
    """Return a key in words; other texts, such as file names, are returned unchanged.

    >>> spoken("trained_on"), spoken("a/b_1.jpg")
    ('trained on', 'a/b_1.jpg')
    """
    return key.replace("_", " ") if key.isidentifier() else key


def points(value: float | None, sign: bool = False) -> str:
    """Format a fraction in per cent, or a difference of two in points.

    >>> points(0.0123, sign=True), points(-0.5), points(-0.0001)
    ('+1.2', '−50.0', '0.0')
    """
    return "–" if value is None else f"{value * 100:{'+' if sign else ''}z.1f}".replace("-", "−")


def pair(interval: Sequence[float] | None, sign: bool = False) -> str:
    return "" if interval is None else f"{points(interval[0], sign)} to {points(interval[1], sign)}"


def notes(lines: Sequence[str], title: str = "Notes") -> list[Block]:
    return [Section(title, [Note(line) for line in lines])] if lines else []


def closing(data: Mapping[str, Any], title: str = "Notes") -> list[Block]:
    """Return the last blocks of a page: notes, failures, and the model."""
    failures, model = data.get("failures") or (), data.get("model") or {}
    blocks = notes(data.get("notes") or (), title)
    if failures:
        pictures = "picture" if len(failures) == 1 else "pictures"
        rows = {row["image"]: row["error"] for row in failures}
        blocks.append(Section(f"{len(failures)} {pictures} could not be read", [Facts(rows)], kind="failed"))
    return [*blocks, Section("The model", [Facts(model)], kind="provenance")] if model else blocks


def terms_in(value: Any) -> Iterator[str]:
    """Yield the glossary keys in a block."""
    if isinstance(value, Def):
        yield value.key
    elif isinstance(value, Figure):
        yield value.term
    elif isinstance(value, list | tuple):
        for part in value:
            yield from terms_in(part)
    elif is_dataclass(value):
        for one in fields(value):
            yield from terms_in(getattr(value, one.name))
