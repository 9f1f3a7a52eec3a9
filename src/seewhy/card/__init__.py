"""One explanation, shown: as a page, a still picture, in a notebook, and as one of many on an index.

Every form shows the same evidence, verdicts and figures from the same :class:`~seewhy.explanation.Explanation`.
"""

from __future__ import annotations

import html as html_text
import json
import tempfile
import webbrowser
from pathlib import Path

from ..errors import DataError
from ..explanation import Explanation
from ..storage.output import write_atomic
from .html import render_html
from .index import IndexEntry, index_entry, render_index
from .png import render_png
from .report import render_report

__all__ = [
    "IndexEntry",
    "index_entry",
    "open_in_browser",
    "render_html",
    "render_index",
    "render_notebook",
    "render_png",
    "render_report",
    "save",
]

NOTEBOOK_HEIGHT = 820


def render_notebook(explanation: Explanation) -> str:
    """The same card in a frame of its own, so that neither style sheet touches the other."""
    page = html_text.escape(render_html(explanation), quote=True)
    name = html_text.escape(f"SeeWhy card: {explanation.prediction.label}", quote=True)
    return (
        f'<iframe title="{name}" sandbox="allow-scripts" srcdoc="{page}" '
        f'style="width:100%;height:{NOTEBOOK_HEIGHT}px;border:0;border-radius:12px;resize:vertical"></iframe>'
    )


def save(explanation: Explanation, path: Path) -> Path:
    """Write the card whole or not at all; the ending decides the form.

    Raises:
        DataError: the ending is none of ``.html``, ``.png``, ``.json``, or the file cannot be written.
    """
    ending = path.suffix.lower()
    if ending in (".html", ".htm"):
        return write_atomic(path, render_html(explanation))
    if ending == ".png":
        return write_atomic(path, render_png(explanation))
    if ending == ".json":
        return write_atomic(path, json.dumps(explanation.to_json(), ensure_ascii=False, indent=2) + "\n")
    raise DataError(
        f"{path} ends in {path.suffix!r}. A card is saved as .html, .png or .json. Give the file one of these endings."
    )


def open_in_browser(explanation: Explanation) -> None:
    """Write the card to a temporary file and open it.

    Raises:
        DataError: no browser could be started; the message says where the card lies.
    """
    folder = Path(tempfile.mkdtemp(prefix="seewhy-"))
    path = save(explanation, folder / "card.html")
    if not webbrowser.open(path.as_uri()):
        raise DataError(f"No web browser could be started. The card is at {path}. Open that file by hand.")
