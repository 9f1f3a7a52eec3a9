"""``--set NAME=VALUE``: the fields of the method that ``--where`` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the method; again for another. See: seewhy methods NAME.",
        show_default=False,
    ),
]


def settings(given: Sequence[str] | None) -> dict[str, str]:
    """``["n_masks=2000", …]`` as a dictionary; the method reads the values.

    Raises:
        InputError: not ``NAME=VALUE``, or a name twice.

    Example:
        >>> settings(["n_masks=2000", "masks=stratified"])
        {'n_masks': '2000', 'masks': 'stratified'}
    """
    from ..errors import InputError

    found: dict[str, str] = {}
    for one in given or ():
        name, equals, value = (part.strip() for part in one.partition("="))
        name = name.replace("-", "_")
        if not (name and equals and value):
            raise InputError(f"--set was given {one!r}. NAME=VALUE was expected. For example: --set n_masks=2000")
        if name in found:
            raise InputError(f"--set was given {name} twice, {found[name]} and {value}. Keep one of them.")
        found[name] = value
    return found
