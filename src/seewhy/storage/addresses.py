"""Names of places in object storage, of which a path makes names of folders."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import DataError

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}(?=[^/])", re.IGNORECASE)


def address_of(path: str | Path) -> str | None:
    """The address, such as ``s3://bucket/photos``, that a path was made of: a path keeps one of the two strokes.

    Example:
        >>> address_of(Path("s3://bucket/photos"))
        's3://bucket/photos'
    """
    text = os.fspath(path)
    scheme = _ADDRESS.match(text)
    return None if scheme is None else f"{scheme[1].lower()}://{text[scheme.end() :]}"


def refuse_address(path: str | Path) -> None:
    """Refuse an address, of which a folder called ``s3:`` would be made."""
    if (address := address_of(path)) is not None:
        raise DataError(
            f"{address} is an address. The name of a file or folder on this machine was expected: object storage is "
            "read and written by seewhy embed, by predict and explain with --parquet, and read by index. Choose a name "
            "here."
        )
