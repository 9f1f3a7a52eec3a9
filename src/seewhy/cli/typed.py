"""JSON types of the CLI."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from ..dense.outputs import EvaluateBoxesOutput, MasksOutput
from ..evaluation.outputs import EvaluateAnswersOutput, EvaluateOutput
from ..learning.outputs import RetrievalOutput
from ..results import Doc


class Engine(TypedDict):
    name: Annotated[str, Doc("name")]
    version: Annotated[str | None, Doc("version; `null` if it is not installed")]
    precision: Annotated[str | None, Doc("precision of its computation")]
    note: Annotated[str, Doc("why it is used or not, in words")]


class DoctorOutput(TypedDict):
    """The JSON of ``seewhy doctor --json``."""

    seewhy: Annotated[str, Doc("version of SeeWhy")]
    packages: Annotated[dict[str, str | None], Doc("package → version, `null` where it is missing")]
    engines: Annotated[list[Engine], Doc("inference engines")]
    models: Annotated[dict[str, bool], Doc("embedded model → whether its weights are installed")]
    extras: Annotated[dict[str, bool], Doc("extra → whether it is installed")]
    cache: Annotated[str | None, Doc("the cache folder; `null` if none can be used")]
    cache_note: Annotated[str, Doc("why no cache can be used")]


class Setting(TypedDict):
    name: Annotated[str, Doc("name of the setting")]
    kind: Annotated[str, Doc("type of its values, in words")]
    default: Annotated[str, Doc("default, as typed on the command line")]


class MethodsOutput(TypedDict):
    """A line of ``seewhy methods --json``."""

    family: Annotated[str, Doc("family of the method")]
    name: Annotated[str, Doc("registered name")]
    paper: Annotated[str, Doc("the source")]
    needs: Annotated[str, Doc("requirements, in words")]
    cost: Annotated[str, Doc("forward passes, in words")]
    planted: Annotated[str, Doc("how often its hottest pixel lies on planted evidence")]
    summary: Annotated[str, Doc("what it does")]
    settings: NotRequired[Annotated[list[Setting], Doc("settings for `--set`; only if a method is named")]]


AnyEvaluateOutput = RetrievalOutput | MasksOutput | EvaluateBoxesOutput | EvaluateAnswersOutput | EvaluateOutput
"""The object of seewhy evaluate --json."""
