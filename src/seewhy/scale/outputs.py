"""The JSON that scale answers with, as types."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from ..explanation.outputs import Run
from ..results import Count, Doc, Share
from ..retrieval.outputs import VerifyOutput


class Input(TypedDict):
    kind: Annotated[str, Doc("folder, table, tars, parquet")]
    digest: Annotated[str, Doc("of the names of all pictures, or of all shards")]
    place: Annotated[str, Doc("as it was given")]
    n_pictures: Annotated[Count | None, Doc("`null` where shards are not opened to count them")]
    per_shard: Annotated[int | None, Doc("pictures of a shard; `null` where the input has its own")]


class EmbedStatusOutput(TypedDict):
    """The object of seewhy embed --status --json."""

    output: Annotated[str, Doc("the run's folder")]
    n_shards: Annotated[Count, Doc("in all")]
    n_missing: Annotated[Count, Doc("of them that are not there")]
    missing: Annotated[list[str], Doc("which, from 0, in spans such as `3-7`")]
    rows: Annotated[Count, Doc("of the shards that are there")]
    failed: Annotated[Count, Doc("pictures among them that could not be read")]
    verb: Annotated[str, Doc("what was done")]
    seewhy: Annotated[str, Doc("version that began it")]
    model: Annotated[dict[str, str | float | bool | None], Doc("what the rows hang on")]
    columns: Annotated[list[str], Doc("of the Parquet files")]
    input: Annotated[Input, Doc("what it was begun with")]


class EmbedPlanOutput(TypedDict):
    """The object of seewhy embed --plan --json."""

    n_pictures: Annotated[Count, Doc("of the input; for shards that are not opened")]
    counted: Annotated[bool, Doc("whether they were counted")]
    n_sample: Annotated[Count, Doc("pictures that were measured")]
    per_second: Annotated[float, Doc("of them, by one process with its threads, as busy as the machine was meanwhile")]
    load_seconds: Annotated[float, Doc("to load the model, once per process")]
    machines: Annotated[Count, Doc("that share the work")]
    hours: Annotated[float, Doc("until the last is done")]
    machine_hours: Annotated[float, Doc("of all machines")]
    price: Annotated[float | None, Doc("of a machine's hour, as given")]
    money: Annotated[float | None, Doc("at that price; `null` without one")]
    bytes_read: Annotated[Count | None, Doc("by all pictures; `null` where none of the sample could be read")]
    bytes_written: Annotated[Count, Doc("by their rows")]
    failed: Annotated[Share, Doc("part of the sample that could not be read")]


EmbedOutput = EmbedPlanOutput | EmbedStatusOutput | VerifyOutput | Run
"""The object of seewhy embed --json."""
