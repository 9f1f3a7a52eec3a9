"""The JSON that retrieval answers with, as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import Failures
from ..results import Count, Doc
from .search import Hit


class IndexOutput(TypedDict):
    """The object of seewhy index --json."""

    index: Annotated[str, Doc("the index's folder")]
    added: NotRequired[Annotated[Count, Doc("pictures that are new")]]
    updated: NotRequired[Annotated[Count, Doc("pictures whose file, name or class had changed")]]
    unchanged: NotRequired[Annotated[Count, Doc("pictures that were there already")]]
    failed: NotRequired[Annotated[Count, Doc("pictures that could not be read")]]
    removed: Annotated[Count, Doc("pictures taken out")]
    n: Annotated[Count, Doc("pictures in the index")]
    labels: Annotated[Count, Doc("classes")]
    version: Annotated[Count, Doc("grows with every change")]
    encoder: Annotated[str | None, Doc("what looked; `null` for vectors made elsewhere")]
    fingerprint: Annotated[str, Doc("of its weights and preprocessing")]
    columns: Annotated[dict[str, Count], Doc("what is kept of each picture, → how many numbers")]
    settings: Annotated[dict[str, Any], Doc("what the index was made with")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]


class Query(TypedDict):
    like: Annotated[list[str], Doc("pictures")]
    text: Annotated[str, Doc("words; may be empty")]
    unlike: Annotated[list[str], Doc("pictures to keep away from")]
    unlike_weight: Annotated[float, Doc("how much these count")]
    without: Annotated[str, Doc("words to keep away from; may be empty")]
    weight: Annotated[float, Doc("of the words beside the pictures")]


class SearchOutput(TypedDict):
    """The object of seewhy search --json."""

    query: Annotated[Query, Doc("what was asked")]
    n: Annotated[Count, Doc("pictures in the index")]
    n_searched: Annotated[Count, Doc("pictures of the classes asked for")]
    column: Annotated[Literal["look", "whitened", "words"], Doc("what was compared")]
    version: Annotated[Count, Doc("of the index; grows with every change")]
    encoder: Annotated[str, Doc("what looked")]
    fingerprint: Annotated[str, Doc("of its weights and preprocessing")]
    hits: Annotated[list[Hit], Doc("nearest first")]


class DamagedRow(TypedDict):
    file: Annotated[str, Doc("its name")]
    error: Annotated[str, Doc("what of it is damaged")]


class VerifyOutput(TypedDict):
    """The object of seewhy index --parquet --verify --json and seewhy index --verify --json."""

    output: Annotated[str, Doc("the folder")]
    n_files: Annotated[Count, Doc("that were read to their end")]
    damaged: Annotated[list[DamagedRow], Doc("those that are not as they were written")]
    unchecked: Annotated[list[str], Doc("those of an earlier version, which have no checksums")]
