"""Figures with a page: the same data as JSON, as an HTML file and in a notebook."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError
from .storage.marks import PAGE
from .storage.output import check_file, write

ENDINGS = (".html", ".json")


@dataclass(frozen=True)
class Page(ABC):
    """What a long measurement found.

    Attributes:
        data: its JSON.
    """

    data: dict[str, Any]

    @abstractmethod
    def to_html(self) -> str:
        """One self-contained page."""

    def to_json(self) -> dict[str, Any]:
        return self.data

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write as ``.html`` or ``.json``, by the ending.

        Args:
            path: where; over an earlier report of SeeWhy's, not over another file.
            force: over another file too.

        Raises:
            ForeignFileError: there is a file that SeeWhy did not make.
            DataError: another ending, or a place that no file can be written to.
        """
        path = check_ending(path, force=force)
        data = self.to_html() if path.suffix == ".html" else json.dumps(self.data, indent=1, ensure_ascii=False)
        return write(path, data, PAGE, force=force)

    def _repr_html_(self) -> str:
        return self.to_html()


def check_ending(path: str | Path, *, force: bool = False) -> Path:
    """The path, if a page can be written there; asked before the work begins.

    Raises:
        ForeignFileError: there is a file that SeeWhy did not make.
        DataError: another ending, or a place that no file can be written to.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise DataError(f"A report is written as .html or .json, not as {path.suffix!r}. Change the ending of {path}.")
    return check_file(path, PAGE, force=force)
