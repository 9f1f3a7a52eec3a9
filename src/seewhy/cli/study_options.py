"""Options that mean the same in every study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Labelled = Annotated[
    Path,
    typer.Argument(help="Labelled pictures: a folder with one folder per class, or a table.", show_default=False),
]
TestPictures = Annotated[
    Path | None,
    typer.Option(
        "--test",
        help="Labelled pictures of the same classes to test on. Left out, --held-out of the pictures.",
        show_default=False,
    ),
]
NSeeds = Annotated[int, typer.Option(min=2, help="Subsets of each size.")]
