"""Types of the JSON output of search commands."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import Failures
from ..results import Count, Doc
from ..storage.parquet_seal import Verification
from .search import Hit


class IndexOutput(TypedDict):
    """The JSON object that ``seewhy index --json`` prints."""

    index: Annotated[str, Doc("the index's folder")]
    added: NotRequired[Annotated[Count, Doc("new pictures")]]
    updated: NotRequired[Annotated[Count, Doc("pictures whose file, name or class had changed")]]
    unchanged: NotRequired[Annotated[Count, Doc("pictures that were in the index already")]]
    failed: NotRequired[Annotated[Count, Doc("pictures that could not be read")]]
    removed: Annotated[Count, Doc("pictures removed")]
    n: Annotated[Count, Doc("pictures in the index")]
    labels: Annotated[Count, Doc("number of classes")]
    version: Annotated[Count, Doc("version of the index; grows with every change")]
    encoder: Annotated[str | None, Doc("name of the encoder; `null` for precomputed vectors")]
    fingerprint: Annotated[str, Doc("fingerprint of its weights and preprocessing")]
    columns: Annotated[dict[str, Count], Doc("dimension of each stored column")]
    settings: Annotated[dict[str, Any], Doc("settings of the index")]
    notes: Annotated[list[str], Doc("notes for the user")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]


class Query(TypedDict):
    like: Annotated[list[str], Doc("pictures that results should resemble")]
    text: Annotated[str, Doc("words that results should match; may be empty")]
    unlike: Annotated[list[str], Doc("pictures that results should not resemble")]
    unlike_weight: Annotated[float, Doc("weight of `unlike` and `without`")]
    without: Annotated[str, Doc("words that results should not match; may be empty")]
    weight: Annotated[float, Doc("weight of the words, relative to 1 for the pictures")]


class SearchOutput(TypedDict):
    """The JSON object that ``seewhy search --json`` prints."""

    query: Annotated[Query, Doc("the query")]
    n: Annotated[Count, Doc("pictures in the index")]
    n_searched: Annotated[Count, Doc("number of pictures searched")]
    column: Annotated[Literal["look", "whitened", "words"], Doc("column in which pictures are compared")]
    version: Annotated[Count, Doc("version of the index; grows with every change")]
    encoder: Annotated[str, Doc("the encoder")]
    fingerprint: Annotated[str, Doc("fingerprint of its weights and preprocessing")]
    hits: Annotated[list[Hit], Doc("nearest first")]


VerifyOutput = Verification
