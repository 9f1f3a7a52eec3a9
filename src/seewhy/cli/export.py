"""``seewhy export``: a classifier as one graph for ONNX Runtime, OpenVINO, Triton or OpenVINO Model Server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..printable import printable
from .options import EncoderName, Json, Labels, Model, Quiet, output, picture_names, resolve
from .terminal import Terminal, say

EXAMPLES = """
Examples:\n
  seewhy export -m birds -o birds-onnx\n
  seewhy export -m birds --to openvino --check-on photos/ -o birds-openvino\n
  seewhy export -m birds --triton -o repository\n
  seewhy export -m birds --to openvino --ovms -o repository\n
"""


def export(
    output: Annotated[Path, output("The folder for the graph and its card.")],
    model: Model = None,
    labels: Labels = None,
    encoder: EncoderName = "lite0",
    to: Annotated[str, typer.Option("--to", help="onnx or openvino.")] = "onnx",
    triton: Annotated[
        bool, typer.Option("--triton", help="Write a model repository of Triton Inference Server.")
    ] = False,
    ovms: Annotated[bool, typer.Option("--ovms", help="Write a model repository of OpenVINO Model Server.")] = False,
    served_name: Annotated[
        str | None,
        typer.Option("--served-name", help="Of the model in a repository. Left out, its folder's.", show_default=False),
    ] = None,
    check_on: Annotated[
        list[str] | None,
        typer.Option(
            "--check-on",
            help="Pictures to compare graph and classifier on, 64 at most. Left out, 8 drawn ones.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a classifier as one graph, with the decision and Grad-CAM in it, and check that it answers the same."""
    from ..errors import InputError
    from ..service.graphs.export import check_place
    from ..service.graphs.export import export as write
    from ..service.graphs.graph import format_of

    terminal = Terminal(quiet)
    if triton and ovms:
        raise InputError("--triton and --ovms were both given. One server was expected. Export twice.")
    format_of(to)
    check_place(output)
    classifier = resolve(model, labels, encoder, "torch:f32", None, None)
    made = write(
        classifier,
        output,
        to=to,
        layout="triton" if triton else "ovms" if ovms else "plain",
        name=served_name,
        pictures=None if check_on is None else list(picture_names(check_on)),
    )
    for failure in made.failures:
        terminal.failed(failure)
    check = made.card["check"]
    if as_json:
        say(printable(json.dumps(made.to_json(), ensure_ascii=False)))
    else:
        far = ", ".join(f"{name} {value:g}" for name, value in check["differences"].items())
        kind = "drawn pictures" if check["drawn"] else "pictures"
        say(f"{made.graph}: {len(classifier.classes)} classes", f"{check['pictures']} {kind}, furthest apart: {far}")
        if made.card["server"]:
            say(f"{made.card['server']}; the graph was run in {check['runtime']}")
    raise typer.Exit(terminal.exit_code(check["pictures"]))
