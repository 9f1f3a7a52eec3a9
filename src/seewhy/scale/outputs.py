"""The JSON that scale answers with, as types."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from ..explanation.outputs import Run
from ..results import Count, Doc
from ..retrieval.outputs import VerifyOutput


class Input(TypedDict):
    kind: Annotated[str, Doc("folder, table, tars, parquet")]
    digest: Annotated[str, Doc("of the names of all pictures, or of all shards")]
    place: Annotated[str, Doc("as it was given")]
    n_pictures: Annotated[Count | None, Doc("`null` where shards are not opened to count them")]
    per_shard: Annotated[int | None, Doc("pictures of a shard; `null` where the input has its own")]


class EmbedStatusOutput(TypedDict):
    """The object of seewhy index --parquet --status --json."""

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


EmbedOutput = EmbedStatusOutput | VerifyOutput | Run
"""The object of seewhy index --parquet --json."""
