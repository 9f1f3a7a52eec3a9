"""Results with a page, shown as JSON, HTML or in a notebook."""

from __future__ import annotations

import html
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import checked
from ..errors import DataError, InputError, UnknownNameError
from ..storage.output import check_file, write
from .blocks import Document

if TYPE_CHECKING:
    from pandas import DataFrame

ENDINGS = (".html", ".json")
NOTEBOOK_HEIGHT = 820
"""Height of the frame in pixels, in a notebook without scripts."""


@dataclass(frozen=True)
class Page(ABC):
    """A result with a page; ``data`` is its JSON object."""

    data: dict[str, Any]

    @abstractmethod
    def document(self) -> Document:
        """Return the content of the page."""

    def to_html(self) -> str:
        from .page import render_document

        return render_document(self.document())

    def to_json(self) -> dict[str, Any]:
        return self.data

    def to_frame(self, name: str) -> DataFrame:
        """Return a table of ``data``, such as ``per_class`` of an evaluation, as a pandas ``DataFrame``."""
        lists = {key: rows for key, rows in self.data.items() if isinstance(rows, list) and rows}
        tables = [key for key, rows in lists.items() if isinstance(rows[0], dict)]
        UnknownNameError.check("table", name, tables)
        return frame_of(self.data[name])

    @checked
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the result as ``.html`` or ``.json``, by the file ending."""
        path = check_ending(path, force=force)
        data = self.to_html() if path.suffix == ".html" else json.dumps(self.data, indent=1, ensure_ascii=False)
        return write(path, data, force=force)

    def _repr_html_(self) -> str:
        return framed(self.to_html(), f"SeeWhy {type(self).__name__.lower()}")

    def __repr__(self) -> str:
        plain = {k: v for k, v in self.data.items() if isinstance(v, str | int | float)}
        shown = ", ".join(f"{name}={value!r:.60}" for name, value in list(plain.items())[:6])
        return f"{type(self).__name__}({shown})"


def frame_of(rows: Any, **how: Any) -> DataFrame:
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise InputError("A DataFrame needs the package pandas. Run: pip install pandas") from error
    return DataFrame(rows, **how)


def framed(page: str, title: str) -> str:
    """Return a page in a sandboxed frame for notebooks."""
    from .page import allowing, source

    script, hear = source("frame.js"), html.escape(source("notebook.js"), quote=True)
    allowed = page.replace("script-src 'none'", "script-src", 1)
    allowed = allowed.replace("script-src", f"script-src {allowing(script)}", 1)
    body, end, rest = allowed.rpartition("</body>")
    inner = html.escape(f"{body}<script>{script}</script>{end}{rest}", quote=True)
    return (
        f'<iframe title="{html.escape(title, quote=True)}" sandbox="allow-scripts" srcdoc="{inner}" onload="{hear}" '
        f'style="width:100%;height:{NOTEBOOK_HEIGHT}px;border:0;border-radius:12px;resize:vertical"></iframe>'
    )


def check_ending(path: str | Path, *, force: bool = False) -> Path:
    """Check that a report can be saved at this path, and return the path."""
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise DataError(f"A report file must end in .html or .json, got {path}.")
    return check_file(path, force=force)
