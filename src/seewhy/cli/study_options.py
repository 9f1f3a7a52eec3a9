"""Options that mean the same in every study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import held_out

if TYPE_CHECKING:
    from ..pictures.samples import Samples

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
HeldOut = Annotated[float, held_out("0.2", "--test takes its place.", least=0.05)]


def learnt_and_tested(
    data: Path, test: Path | None, *, image: str, label: str, group: str | None = None
) -> tuple[Samples, Samples | None]:
    """Labelled pictures, and those to test on if they were named."""
    from ..pictures.samples import load_samples

    samples = load_samples(data, image=image, label=label, group=group).labelled()
    tested = None if test is None else load_samples(test, image=image, label=label, group=group).labelled()
    return samples, tested
