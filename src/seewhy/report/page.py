"""The paper all pages are printed on: one environment, one style sheet, pictures inside the file."""

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
"""How each level is said."""

NARROW_SPACE = "\u202f"
OVERLAY_SIDE = 256
SMALL = 64
"""Pictures up to this size are shown as the pixels they are."""


class Term(NamedTuple):
    """One definition; its anchor is ``#def-<key>``."""

    key: str
    name: str
    text: str
    phrases: tuple[str, ...] = ()
    """How sentences mention it."""


@cache
def terms() -> tuple[Term, ...]:
    """What each number on a card or report means; the numbers lead here."""
    text = files(__package__).joinpath("templates/glossary.toml").read_text("utf-8")
    rows = tomllib.loads(text).items()
    return tuple(Term(key, t["name"], t["text"], tuple(t.get("phrases", ()))) for key, t in rows)


def terms_of(keys: Iterable[str]) -> tuple[Term, ...]:
    """Those of these keys, in the glossary's order."""
    wanted = set(keys)
    return tuple(term for term in terms() if term.key in wanted)


@cache
def _mentions() -> tuple[dict[str, str], re.Pattern[str]]:
    """Phrase → key of the term it mentions, and what finds them, or a command, in a text."""
    keys = {phrase: term.key for term in terms() for phrase in term.phrases}
    longest_first = sorted(keys, key=len, reverse=True)
    return keys, re.compile(rf"(\b(?:{'|'.join(map(re.escape, longest_first))})\b|\bseewhy [a-z][^.,;:]*)")


def linked(text: str) -> Line:
    """A sentence whose terms lead to their definitions, each where it first stands, and whose commands look so."""
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


def percent(value: float, space: str = NARROW_SPACE) -> str:
    """As :func:`seewhy.printable.percent`, with the space that typographers put before the sign."""
    return plainly(value, space)


def figure(value: float | None) -> str:
    """Two decimals with a real minus sign, a dash when there is none."""
    if value is None or value != value:
        return "–"
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def file_name(path: str) -> str:
    """Without its folders, which say more of a machine than of a picture."""
    return re.split(r"[/\\]", path)[-1] or path


def method_name(name: str) -> str:
    """A registered name, and what was set, as people write it."""
    own, *rest = name.split(" ", 1)
    return " ".join([spelling(own), *rest])


def photo_uri(pixels: np.ndarray, quality: int = 90) -> str:
    return _uri(pixels, "image/jpeg", format="JPEG", quality=quality, optimize=True)


def layer_uri(pixels: np.ndarray) -> str:
    return _uri(pixels, "image/png", format="PNG")


def png_of(pixels: np.ndarray) -> bytes:
    return _encoded(pixels, format="PNG")


def _uri(pixels: np.ndarray, kind: str, **options: Any) -> str:
    return f"data:{kind};base64,{base64.b64encode(_encoded(pixels, **options)).decode('ascii')}"


def _encoded(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


@cache
def environment() -> Environment:
    """Templates of the cards with their filters and style sheet, for pages that extend them."""
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
    environment.globals |= {"levels": LEVELS, "style": Markup(coloured(_source("card.css")))}
    return environment


class _Column(NamedTuple):
    is_number: bool
    is_wide: bool


def _columns(table: Table) -> list[_Column]:
    """How each column of a table is drawn: numbers to the right, bars over its whole width."""
    columns = []
    for number in range(len(table.columns)):
        is_wide = any(isinstance(row[number], Cell) and row[number].bar for row in table.rows)
        columns.append(_Column(not is_wide and table.is_number(number), is_wide))
    return columns


def place(box: FractionBox) -> str:
    """Where a box lies on what it is drawn over, as a style."""
    left, top, right, bottom = box
    return f"left:{left:.2%};top:{top:.2%};width:{right - left:.2%};height:{bottom - top:.2%}"


def _picture_uri(pixels: np.ndarray | bytes | str) -> str:
    if isinstance(pixels, str):
        return pixels
    if isinstance(pixels, bytes):
        return f"data:image/jpeg;base64,{base64.b64encode(pixels).decode('ascii')}"
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
    """What the template of a document shows, for every page that has one on it."""
    return {"document": document, "terms": terms_of(terms_in(document))}


def render_document(document: Document, script: str | None = None) -> str:
    """A document as one self-contained page, with the definitions that it leads to."""
    return render("page.html", script, **document_context(document))


@cache
def _source(name: str) -> str:
    return (PackageLoader("seewhy.report", "templates").get_source(Environment(autoescape=True), name)[0]).strip()


def render(template: str, script: str | None, **context: Any) -> str:
    source = _source(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")
    allowed = f"'sha256-{digest}'" if script else "'none'"
    page = environment().get_template(template)
    return page.render(script=Markup(source), script_source=Markup(allowed), **context)
