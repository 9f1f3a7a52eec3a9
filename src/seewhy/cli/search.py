"""``seewhy search``: pictures found by picture, by words, or by both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..printable import printable
from .options import EncoderName, EngineName, Focus, Force, Json, Quiet, encoder_given, focused, output
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..retrieval import Results

EXAMPLES = """
Examples:\n
  seewhy search library --image cat.jpg -k 20 -o found.html\n
  seewhy search library --text "a cat on a red sofa"\n
  seewhy search library --image cat.jpg --text "in the snow" --weight 1\n
  seewhy search library --image a.jpg --image b.jpg --unlike c.jpg --where-label cats --json\n
  seewhy search by-colour --image cat.jpg --encoder enc --focus "the colour"
"""


def search(
    index: Annotated[Path, typer.Argument(help="What seewhy index made.", show_default=False)],
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="A picture it should be like; again for more.", show_default=False),
    ] = None,
    text: Annotated[str, typer.Option("--text", "-t", help="What should be on it, in words.", show_default=False)] = "",
    unlike: Annotated[
        list[str] | None, typer.Option(help="A picture it should not be like; again for more.", show_default=False)
    ] = None,
    without: Annotated[str, typer.Option(help="What should not be on it, in words.", show_default=False)] = "",
    weight: Annotated[float, typer.Option(min=0, help="Of the words, beside a picture's 1.")] = 1.0,
    centred: Annotated[
        bool, typer.Option("--centred", help="Subtract the mean picture and the mean words before mixing them.")
    ] = False,
    k: Annotated[int, typer.Option("-k", min=1, help="Pictures shown.")] = 10,
    where_label: Annotated[
        list[str] | None, typer.Option(help="Only pictures of this class; again for more.", show_default=False)
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every picture, even in a large index.")] = False,
    collapse: Annotated[
        float, typer.Option(min=-1, max=1, help="Cosine above which a picture is listed as a copy; 1 shows all.")
    ] = 0.97,
    levels: Annotated[
        int,
        typer.Option(min=1, max=5, help="Levels of a picture's spatial parts. Here the query's."),
    ] = 3,
    encoder: EncoderName = "lite0",
    focus: Focus = None,
    engine: EngineName = "auto",
    output: Annotated[Path | None, output("A page (.html) or .json.")] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find pictures in an index: by picture, by words, or by both."""
    from ..report.paging import check_ending
    from ..retrieval import Index, Query

    Terminal(quiet)
    if output is not None:
        check_ending(output, force=force)
    query = Query(image or (), text, unlike or (), without, weight=weight, centred=centred)
    found = Index.open(index, encoder_given(focused(encoder, focus)), engine=engine).search(
        query,
        k=k,
        labels=where_label or None,
        exact=exact,
        collapse=None if collapse == 1 else collapse,
        levels=levels,
    )
    if output is not None:
        found.save(output, force=force)
    if as_json:
        say(json.dumps(found.data, ensure_ascii=False))
    else:
        _print(found, output)


def _print(found: Results, output: Path | None) -> None:
    for hit in found.hits:
        copies = f"  (+{len(hit.copies)})" if hit.copies else ""
        say(f"{hit.cosine:.3f}\t{printable(hit.label)}\t{printable(hit.image)}{copies}")
    recall = found.data["recall"]
    how = (
        "every picture compared" if found.exact else f"approximate, recall {recall:.3f}; --exact compares every picture"
    )
    say(f"{len(found.hits)} of {found.data['n_searched']:,} pictures; {how}")
    if output is not None:
        say(f"page: {output}")
