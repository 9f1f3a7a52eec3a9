"""The paper all pages are printed on: one environment, one style sheet, pictures inside the file."""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ..explanation.verdict import Level
from ..printable import percent as plainly
from ..registry import spelling
from .palette import coloured

LEVELS: dict[Level, str] = {
    "believable": "Believable",
    "partly": "Partly believable",
    "do not rely": "Do not rely on it",
    "not measured": "Not measured",
}
"""How each level is said."""

NARROW_SPACE = "\u202f"


def percent(value: float, space: str = NARROW_SPACE) -> str:
    """As :func:`seewhy.printable.percent`, with the space that typographers put before the sign."""
    return plainly(value, space)


def figure(value: float | None) -> str:
    """Two decimals with a real minus sign, a dash when there is none.

    >>> figure(0.154), figure(-0.2), figure(None)
    ('0.15', '−0.20', '–')
    """
    if value is None or value != value:
        return "–"
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def method_name(name: str) -> str:
    """A registered name, and what was set, as people write it.

    >>> import seewhy.attributions
    >>> method_name("grad_cam"), method_name("rise with n_masks=500")
    ('Grad-CAM', 'RISE with n_masks=500')
    """
    own, *rest = name.split(" ", 1)
    return " ".join([spelling(own), *rest])


def photo_uri(pixels: np.ndarray, quality: int = 90) -> str:
    """A photograph as a JPEG inside the page."""
    return _uri(pixels, "image/jpeg", format="JPEG", quality=quality, optimize=True)


def layer_uri(pixels: np.ndarray) -> str:
    """A picture with transparency as a PNG inside the page."""
    return _uri(pixels, "image/png", format="PNG")


def png_of(pixels: np.ndarray) -> bytes:
    """A picture as a PNG file."""
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
    environment.filters |= {"percent": percent, "figure": figure, "method_name": method_name}
    environment.globals |= {"levels": LEVELS, "style": _style()}
    return environment


def _style() -> Markup:
    """The style sheet is ours, so it is trusted as it stands."""
    return Markup(coloured(_source("card.css")))


@cache
def _source(name: str) -> str:
    return (PackageLoader("seewhy.report", "templates").get_source(Environment(autoescape=True), name)[0]).strip()


def render(template: str, script: str | None, **context: Any) -> str:
    """Fill a template.

    Args:
        template: file in ``templates/``.
        script: file in ``templates/`` with the page's only script, or None. The page allows this very
            text, by its hash, and nothing else: no network, no other script.
        **context: what the template shows; everything in it is escaped.
    """
    source = _source(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")
    allowed = f"'sha256-{digest}'" if script else "'none'"
    page = environment().get_template(template)
    return page.render(script=Markup(source), script_source=Markup(allowed), **context)
