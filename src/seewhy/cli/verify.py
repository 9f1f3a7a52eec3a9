"""``--verify`` of the verbs that keep numbers: everything is read, and what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from .scale_options import FOLDER_OR_ADDRESS
from .terminal import say

if TYPE_CHECKING:
    from ..storage.parquet_seal import Verification

_HELP = "Read every byte of a folder, say which files are not as they were written, and stop."
Verify = Annotated[Path | None, typer.Option(help=_HELP, show_default=False)]
VerifyRun = Annotated[Path | None, typer.Option(help=_HELP, show_default=False, metavar=FOLDER_OR_ADDRESS)]


def say_verified(verification: Verification, as_json: bool) -> NoReturn:
    """What reading everything came to; exit code 2 where anything is damaged."""
    if as_json:
        say(json.dumps(verification.to_json(), ensure_ascii=False))
    else:
        say(*verification.lines())
    raise typer.Exit(2 if verification.damaged else 0)
