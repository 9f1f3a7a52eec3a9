"""A check that was made before, on the same data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, ImageError
from ...pictures.images import read_picture
from ...pictures.samples import Sample
from ...storage.files import json_value
from ...storage.reading import read_text
from ...types import Transform
from .check import digest_of

NAME = "check.json"
_SMALL = Transform((128, 128), 128, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def small_picture(name: str) -> np.ndarray | None:
    """A picture for the page, cut to its middle; ``None`` where it cannot be read."""
    try:
        return read_picture(name, _SMALL).pixels
    except ImageError:
        return None


def read_check(folder: Path, data: Path, items: Sequence[Sample]) -> dict[str, Any]:
    """The document of ``seewhy check`` in a folder, if it is on these pictures with these labels."""
    path = folder / NAME
    try:
        check = json_value(read_text(path))
        whole = _is_check(check)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, repr(error)) from error
    if not whole:
        raise _unreadable(path, "a part is of another form")
    if check["digest"] != digest_of(items):
        raise DataError(
            f"{data} is not as it was at the check in {folder}: pictures or labels have changed. The same names and "
            f"labels were expected. Check it again with -o {folder}; what was decided there is kept."
        )
    return dict(check)


def _is_check(check: dict[str, Any]) -> bool:
    """Whether everything that the page shows is there, and of its kind; the errors of what is not are the caller's."""
    return (
        all(isinstance(check[name], str) for name in ("digest", "sentence"))
        and _are_texts(check["classes"])
        and _are_texts(check["notes"])
        and isinstance(check["settings"], dict)
        and isinstance(check["judged"], int)
        and isinstance(check["accuracy"], int | float | None)
        and isinstance(check["findings"], list)
        and all(map(_is_finding, check["findings"]))
    )


def _is_finding(given: dict[str, Any]) -> bool:
    likes = [one for side in ("own", "other") for one in given["like"][side]]
    return (
        all(isinstance(given[name], str) for name in ("kind", "image", "label", "key", "why"))
        and isinstance(given["proposed"], str | None)
        and _are_texts(given["with"])
        and all(isinstance(one[name], str) for one in likes for name in ("image", "label"))
        and all(isinstance(one["cosine"], int | float) for one in likes)
    )


def _are_texts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(one, str) for one in given)


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be read: {why}. What seewhy check -o wrote was expected. Check the data again.")
