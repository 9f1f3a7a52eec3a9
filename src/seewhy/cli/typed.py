"""The JSON that cli answers with, as types."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from ..dense.outputs import EvaluateBoxesOutput, MasksOutput
from ..evaluation.outputs import EvaluateOutput
from ..learning.outputs import RetrievalOutput
from ..results import Doc


class Engine(TypedDict):
    name: Annotated[str, Doc("name")]
    version: Annotated[str | None, Doc("`null` where it is not installed")]
    precision: Annotated[str | None, Doc("what it computes in")]
    note: Annotated[str, Doc("in words")]


class DoctorOutput(TypedDict):
    """The object of seewhy doctor --json."""

    seewhy: Annotated[str, Doc("version")]
    packages: Annotated[dict[str, str | None], Doc("package → version, `null` where it is missing")]
    engines: Annotated[list[Engine], Doc("inference engines")]
    models: Annotated[dict[str, bool], Doc("embedded model → whether its weights are installed")]
    extras: Annotated[dict[str, bool], Doc("extra → whether it is installed")]
    cache: Annotated[str | None, Doc("the cache folder, `null` where none can be used")]
    cache_note: Annotated[str, Doc("why not, in words")]


class Setting(TypedDict):
    name: Annotated[str, Doc("of the setting")]
    kind: Annotated[str, Doc("what it takes, in words")]
    default: Annotated[str, Doc("as one would write it")]


class MethodsOutput(TypedDict):
    """A line of seewhy methods --json."""

    family: Annotated[str, Doc("what its methods answer")]
    name: Annotated[str, Doc("registered name")]
    paper: Annotated[str, Doc("where it is from")]
    needs: Annotated[str, Doc("in words")]
    cost: Annotated[str, Doc("forward passes, in words")]
    planted: Annotated[str, Doc("how often its hottest place is where evidence was planted")]
    summary: Annotated[str, Doc("what it is")]
    settings: NotRequired[Annotated[list[Setting], Doc("with a name; what `--set` can set")]]


AnyEvaluateOutput = RetrievalOutput | MasksOutput | EvaluateBoxesOutput | EvaluateOutput
"""The object of seewhy evaluate --json."""
