"""The JSON that inspection answers with, as types."""

from __future__ import annotations

from typing import Annotated, Literal

from typing_extensions import TypedDict

from ...explanation.outputs import FailureOutput
from ...language.outputs import CorrectedOutput
from ...results import Count, Doc, Share

Counts = TypedDict(
    "Counts",
    {
        "class": Annotated[Count, Doc("how many")],
        "contradiction": Annotated[Count, Doc("how many")],
        "label": Annotated[Count, Doc("how many")],
        "split": Annotated[Count, Doc("how many")],
        "copy": Annotated[Count, Doc("how many")],
        "outlier": Annotated[Count, Doc("how many")],
        "broken": Annotated[Count, Doc("how many")],
        "blank": Annotated[Count, Doc("how many")],
        "dark": Annotated[Count, Doc("how many")],
        "overexposed": Annotated[Count, Doc("how many")],
        "blurred": Annotated[Count, Doc("how many")],
        "size": Annotated[Count, Doc("how many")],
        "shape": Annotated[Count, Doc("how many")],
    },
)


class CopiesAcrossRow(TypedDict):
    splits: Annotated[list[str], Doc("both, in alphabetical order")]
    n: Annotated[int, Doc("findings of the kind `split` between them")]


class Like2(TypedDict):
    """A picture that one is like."""

    image: Annotated[str, Doc("its file name")]
    label: Annotated[str, Doc("its label")]
    cosine: Annotated[float, Doc("of their features")]


class Like(TypedDict):
    own: Annotated[list[Like2], Doc("of its own label")]
    other: Annotated[list[Like2], Doc("of the label proposed")]


Finding = TypedDict(
    "Finding",
    {
        "kind": Literal[
            "class",
            "contradiction",
            "label",
            "split",
            "copy",
            "outlier",
            "broken",
            "blank",
            "dark",
            "overexposed",
            "blurred",
            "size",
            "shape",
        ],
        "image": Annotated[str, Doc("the picture")],
        "label": Annotated[str, Doc("its label")],
        "key": Annotated[str, Doc("first 16 digits of the SHA-256 of its bytes; empty where it cannot be read")],
        "doubt": Annotated[Share, Doc("within its kind, the higher the sooner to look at")],
        "why": Annotated[str, Doc("the reason, in a sentence")],
        "proposed": Annotated[str | None, Doc("another label, where there is one, else `null`")],
        "with": Annotated[list[str], Doc("other pictures that it is about, such as its copies")],
        "splits": Annotated[list[str], Doc("of a copy across splits of one table, its own and the other's")],
        "like": Annotated[Like, Doc("the nearest pictures, which are no copies")],
    },
)


class Settings(TypedDict):
    by: Annotated[Literal["odds", "confident", "cleanlab", "neighbours"], Doc("how labels were doubted")]
    seed: Annotated[int, Doc("of the parts held out")]
    encoder: Annotated[str, Doc("what looked")]


class CheckOutput2(TypedDict):
    n: Annotated[Count, Doc("pictures that could be read")]
    sentence: Annotated[str, Doc("how many of what")]
    classes: Annotated[list[str], Doc("labels of the data")]
    accuracy: Annotated[Share | None, Doc("part of the judged labels that a head says which never saw the picture")]
    judged: Annotated[Count, Doc("pictures whose label could be judged; a class of one picture cannot")]
    digest: Annotated[str, Doc("SHA-256 of the pictures' names and labels")]
    counts: Annotated[Counts, Doc("findings of each kind")]
    copies_across: Annotated[list[CopiesAcrossRow], Doc("how many copies there are between which splits of one table")]
    findings: Annotated[list[Finding], Doc("by kind, and the most doubtful first")]
    settings: Annotated[Settings, Doc("how it was looked for")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[list[FailureOutput], Doc("pictures that cannot be read")]
    report: Annotated[str | None, Doc("the page, where one was written")]


CheckOutput = CorrectedOutput | CheckOutput2
"""The object of seewhy check --json; with --export that of the corrected table."""
