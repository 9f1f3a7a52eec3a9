"""Templates, style sheet, glossary and inline pictures of all pages."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ..explanation.verdict import Level
from ..printable import percent as plainly
from ..registry import spelling
from ..types import FractionBox
from .blocks import Cell, Code, Def, Document, Heat, Line, Table, spoken, terms_in, text_of
from .charts import draw
from .palette import coloured, overlay

LEVELS: dict[Level, str] = {
    "believable": "Believable",
    "partly": "Partly believable",
    "do not rely": "Do not rely on it",
    "not measured": "Not measured",
}
"""Text of each level."""
OF_WHAT = {
    "where": "the network did look here", "like": "they look similar", "words": "they fit",
}  # fmt: skip
"""What is believable of each kind of evidence, even if the decision is wrong."""

NARROW_SPACE = "\u202f"
OVERLAY_SIDE = 256
SMALL = 64
"""Pictures up to this size are shown without interpolation."""


class Term(NamedTuple):
    """A glossary entry; its anchor is ``#def-<key>``."""

    key: str
    name: str
    text: str
    phrases: tuple[str, ...] = ()
    """Phrases that mention the term."""


@cache
def terms() -> tuple[Term, ...]:
    """Return the glossary."""
    text = files(__package__).joinpath("templates/glossary.toml").read_text("utf-8")
    rows = tomllib.loads(text).items()
    return tuple(Term(key, t["name"], t["text"], tuple(t.get("phrases", ()))) for key, t in rows)


def terms_of(keys: Iterable[str]) -> tuple[Term, ...]:
    """Return the glossary entries with these keys, in the glossary's order."""
    wanted = set(keys)
    return tuple(term for term in terms() if term.key in wanted)


@cache
def _mentions() -> tuple[dict[str, str], re.Pattern[str]]:
    """Return phrase → glossary key, and a pattern that matches phrases and commands."""
    keys = {phrase: term.key for term in terms() for phrase in term.phrases}
    longest_first = sorted(keys, key=len, reverse=True)
    return keys, re.compile(rf"(\b(?:{'|'.join(map(re.escape, longest_first))})\b|\bseewhy [a-z][^.,;:]*)")


def linked(text: str) -> Line:
    """Link the first mention of each glossary term in a text, and format commands as code."""
    keys, found = _mentions()
    parts: list[Any] = []
    new = dict(keys)
    for part in found.split(text.replace(" %", f"{NARROW_SPACE}%")):
        if part.startswith("seewhy "):
            parts.append(Code(part))
        elif (key := new.get(part)) is not None:
            parts.append(Def(key, part))
            new = {phrase: other for phrase, other in new.items() if other != key}
        else:
            parts.append(part)
    return Line(*filter(None, parts))


def level_text(level: Level, key: str, is_doubtful: bool) -> str:
    """Return the text of a level; beside a decision that is not sure, *Believable* says of what."""
    of_what = OF_WHAT.get(key) if level == "believable" and is_doubtful else None
    return LEVELS[level] + (f": {of_what}" if of_what else "")


def percent(value: float, space: str = NARROW_SPACE) -> str:
    """Format a share in per cent, with a narrow space before the sign."""
    return plainly(value, space)


def figure(value: float | None) -> str:
    """Format a number with two decimals; a dash for ``None``."""
    return "–" if value is None or value != value else f"{value:z.2f}".replace("-", "−")


def file_name(path: str) -> str:
    """Return a file name without folders."""
    return re.split(r"[/\\]", path)[-1] or path


def method_name(name: str) -> str:
    """Return a registered name with its settings, in its usual spelling."""
    own, *rest = name.split(" ", 1)
    return " ".join([spelling(own), *rest])


def photo_uri(pixels: np.ndarray, quality: int = 90) -> str:
    return _uri(encoded(pixels, "JPEG", quality=quality, optimize=True), "image/jpeg")


def layer_uri(pixels: np.ndarray) -> str:
    return _uri(encoded(pixels), "image/png")


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


@cache
def environment() -> Environment:
    """Return the template environment with its filters."""
    environment = Environment(
        loader=PackageLoader("seewhy.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "figure": figure,
        "file_name": file_name,
        "folder_and_name": lambda path: "/".join(re.split(r"[/\\\\]", path)[-2:]),
        "method_name": method_name,
        "kind": lambda block: type(block).__name__,
        "spoken": spoken,
        "text": lambda value: value if hasattr(value, "__html__") else text_of(value),
        "columns": _columns,
        "drawing": draw,
        "uri": _picture_uri,
        "layer": layer_uri,
        "overlay": _overlay_uri,
        "place": place,
        "anchor": lambda title: "-".join(re.findall(r"\w+", title.lower())),
    }
    environment.globals |= {"levels": LEVELS, "level_text": level_text, "style": Markup(coloured(source("card.css")))}
    return environment


class _Column(NamedTuple):
    is_number: bool
    is_wide: bool


def _columns(table: Table) -> list[_Column]:
    """Return how to draw each column of a table."""
    columns = []
    for number in range(len(table.columns)):
        is_wide = any(isinstance(row[number], Cell) and row[number].bar for row in table.rows)
        columns.append(_Column(not is_wide and table.is_number(number), is_wide))
    return columns


def place(box: FractionBox) -> str:
    """Return the position of a box as CSS."""
    left, top, right, bottom = box
    return f"left:{left:.2%};top:{top:.2%};width:{right - left:.2%};height:{bottom - top:.2%}"


def _picture_uri(pixels: np.ndarray | bytes | str) -> str:
    if isinstance(pixels, str):
        return pixels
    if isinstance(pixels, bytes):
        return _uri(pixels, "image/jpeg")
    small = max(pixels.shape[:2]) <= SMALL
    return layer_uri(pixels) if small else photo_uri(pixels)


def _overlay_uri(block: Heat) -> str | None:
    if block.heat is None:
        return None
    height, width = block.view.shape[:2]
    scale = OVERLAY_SIDE / max(height, width)
    layer = overlay(block.heat, max(1, round(height * scale)), max(1, round(width * scale)))
    return None if layer is None else layer_uri(layer)


def document_context(document: Document) -> dict[str, Any]:
    """Return the template variables of a document."""
    return {"document": document, "terms": terms_of(terms_in(document))}


def render_document(document: Document) -> str:
    """Return a document as one self-contained page."""
    return render("page.html", None, **document_context(document))


@cache
def source(name: str) -> str:
    """Return the text of a style sheet or script."""
    return (PackageLoader("seewhy.report", "templates").get_source(Environment(autoescape=True), name)[0]).strip()


def allowing(script: str) -> str:
    """Return the part of a content security policy that allows this script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}'"


def render(template: str, script: str | None, **context: Any) -> str:
    code = source(script) if script else ""
    allowed = allowing(code) if script else "'none'"
    page = environment().get_template(template)
    return page.render(script=Markup(code), script_source=Markup(allowed), **context)
