"""``seewhy embed``: the vectors of many pictures, as Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from .options import EncoderName, EngineName, Focus, ImageColumn, Json, Quiet, focused, output
from .scale_options import (
    FOLDER_OR_ADDRESS,
    ClusterOption,
    Decoders,
    Gpus,
    PartOption,
    PerShard,
    Spread,
    Threads,
    WorkersOption,
    run_on,
)
from .terminal import say
from .verify import VerifyRun, say_verified

if TYPE_CHECKING:
    from ..scale.inputs import Input
    from ..scale.work import Embed

EXAMPLES = """
Examples:\n
  seewhy embed photos/ -o vectors/\n
  seewhy embed "shards/{000..099}.tar" -o vectors/ --shard 3/16\n
  seewhy embed s3://bucket/shards -o s3://bucket/vectors --shard 3/16\n
  seewhy embed s3://bucket/shards -o /mnt/vectors --cluster auto --workers 8 --gpus 1\n
  seewhy embed --plan photos/ --machines 16 --price 0.35\n
  seewhy embed --status vectors/\n
  seewhy embed --verify vectors/\n
  seewhy embed photos/ -o words/ --encoder open_clip:ViT-B-32/openai --space words
"""


def embed(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A folder of pictures, a table of file names, .tar shards, or Parquet with a column of pictures.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, output("A folder of Parquet files, one for each shard of the input.", FOLDER_OR_ADDRESS)
    ] = None,
    encoder: EncoderName = "lite0",
    focus: Focus = None,
    engine: EngineName = "auto",
    space: Annotated[
        Literal["features", "words"],
        typer.Option(help="features: pooled vectors. words: unit vectors in the space of the encoder's sentences."),
    ] = "features",
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of the numbers that are kept.")] = "float32",
    shard: PartOption = "1/1",
    status: Annotated[
        Path | None,
        typer.Option(
            help="Say what is there of a run and what is missing, and stop.",
            show_default=False,
            metavar=FOLDER_OR_ADDRESS,
        ),
    ] = None,
    verify: VerifyRun = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Measure a sample, say what the run will take in time, money and bytes, and stop."),
    ] = False,
    machines: Annotated[int, typer.Option(min=1, help="With --plan: like this one, that share the work.")] = 1,
    price: Annotated[
        float | None,
        typer.Option(min=0, help="With --plan: of a machine for an hour, in your currency.", show_default=False),
    ] = None,
    per_shard: PerShard = 2048,
    workers: WorkersOption = 1,
    threads: Threads = None,
    cluster: ClusterOption = None,
    gpus: Gpus = 0.0,
    decoders: Decoders = 0,
    image_column: ImageColumn = "image",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep the vectors of many pictures. Run again after any stop, it goes on; each picture has one row."""
    from ..errors import InputError
    from ..scale.reading import verify as verify_run
    from ..scale.work import Embed
    from .terminal import Terminal

    if (of_run := status or verify) is not None:
        if data is not None or output is not None or (status and verify):
            option, other = "--status" if status else "--verify", "--verify" if status and verify else "pictures"
            raise InputError(f"{option} and {other} were both given. The folder of a run alone was expected. Drop one.")
        if verify:
            say_verified(verify_run(verify), as_json)
        _tell(of_run, as_json)
    work = Embed(focused(encoder, focus), engine, space, dtype)
    spread = Spread(shard, per_shard, image_column, workers, threads, cluster, gpus, decoders)
    if plan and data is not None:
        _foretell(work, spread.given(data), machines, price, threads, as_json)
    if data is None or output is None:
        raise InputError(
            f"{'No pictures were' if data is None else 'No place was'} named. Both were expected. Write "
            "seewhy embed PICTURES -o FOLDER, or --status FOLDER."
        )
    run_on(work, data, output, spread, Terminal(quiet), as_json)


def _foretell(
    work: Embed, given: Input, machines: int, price: float | None, threads: int | None, as_json: bool
) -> NoReturn:
    """What the run will take."""
    from ..scale.plan import plan

    found = plan(work, given, machines=machines, price=price, threads=threads)
    if as_json:
        say(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        say(*found.lines())
    raise typer.Exit


def _tell(folder: Path, as_json: bool) -> NoReturn:
    """How far a run is; exit code 1 while something is missing."""
    from ..scale.reading import status

    found = status(folder)
    if as_json:
        say(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        say(*found.lines())
    raise typer.Exit(1 if found.missing else 0)
