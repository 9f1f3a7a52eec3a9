"""Explanations as pages, still pictures, notebook output, and index pages."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

from ..errors import DataError
from ..explanation.base import Explanation
from ..storage.output import check_file, temporary_folder, write
from .card import render_html
from .overviews import IndexEntry, index_entry, render_index
from .paging import framed
from .still import render_png

__all__ = [
    "IndexEntry", "check_card", "framed", "index_entry", "open_in_browser", "render_html", "render_index",
    "render_png", "save",
]  # fmt: skip


def save(explanation: Explanation, path: Path, *, force: bool = False) -> Path:
    check_card(path, force=force)
    if path.suffix.lower() == ".json":
        return write(path, json.dumps(explanation.to_json(), ensure_ascii=False, indent=2), force=force)
    is_still = path.suffix.lower() == ".png"
    return write(path, render_png(explanation) if is_still else render_html(explanation), force=force)


def check_card(path: Path, *, force: bool = False) -> Path:
    """Check that a card can be saved at this path, and return the path."""
    if path.suffix.lower() not in (".html", ".htm", ".png", ".json"):
        raise DataError(f"A card file must end in .html, .png or .json, got {path}.")
    return check_file(path, force=force)


def open_in_browser(explanation: Explanation) -> None:
    path = save(explanation, temporary_folder() / "card.html")
    if not webbrowser.open(path.as_uri()):
        raise DataError(f"No web browser could be started. Open {path} yourself.")
