"""The JSON that service answers programs with, as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import ExplanationOutput, FailureOutput, Failures, Model, PredictionOutput
from ..results import Count, Doc


class AppCardOutput(ExplanationOutput):
    """GET /card/ID, POST /look and GET /sample/N of seewhy app."""

    id: Annotated[str, Doc("of the picture while it is kept")]
    card: Annotated[str, Doc("the card's address")]
    measured: Annotated[bool, Doc("whether deletion and insertion were measured; `measure=true` asks for it")]
    edited: Annotated[bool, Doc("whether the words are edited ones")]
    labelled: Annotated[str | None, Doc("the picture's class, if it is one of `--data`")]


class ErrorOutput(TypedDict):
    """An error of seewhy serve, or of a page with format=json."""

    error: Annotated[str, Doc("why, and what to do")]


class ServedModel(TypedDict):
    name: Annotated[str, Doc("as it is served")]
    digest: Annotated[str, Doc("SHA-256 of the saved model's card")]


class Picture(PredictionOutput):
    explanation: NotRequired[Annotated[dict[str, Any], Doc("with `explain`")]]


class ServePredictOutput(TypedDict):
    """POST /predict of seewhy serve."""

    error: NotRequired[Annotated[str, Doc("only where no picture could be read: the first one's error")]]
    model: Annotated[ServedModel, Doc("who decided")]
    pictures: Annotated[list[FailureOutput | Picture], Doc("one per picture, in the order sent")]


class VersionModel(ServedModel):
    n_classes: Annotated[Count, Doc("classes")]
    problem: Annotated[str | None, Doc("why the model that now lies in its folder was not taken")]
    facts: Annotated[Model, Doc("where it comes from, in words")]


class ServeVersionOutput(TypedDict):
    """GET /version of seewhy serve."""

    seewhy: Annotated[str, Doc("version")]
    models: Annotated[list[VersionModel], Doc("those that are served, the first answers where none is named")]
    limits: Annotated[dict[str, float | None], Doc("what clients must know, by name")]


class TensorOutput(TypedDict):
    name: Annotated[str, Doc("of the tensor")]
    datatype: Annotated[str, Doc("`BYTES` or `FP32`")]
    shape: Annotated[list[int], Doc("its sides; −1 for any number")]
    data: NotRequired[Annotated[list[str | float], Doc("flat; of a picture that could not be read `label` is empty")]]


class ServeInferOutput(TypedDict):
    """POST /v2/models/NAME/infer of seewhy serve."""

    model_name: Annotated[str, Doc("as it is served")]
    model_version: Annotated[str, Doc("first 12 digits of the digest")]
    id: NotRequired[Annotated[str, Doc("the request's")]]
    outputs: Annotated[list[TensorOutput], Doc("`label`, `score`, `probabilities` and `error`, or those asked for")]


class ServeModelOutput(TypedDict):
    """GET /v2/models/NAME of seewhy serve."""

    name: Annotated[str, Doc("as it is served")]
    versions: Annotated[list[str], Doc("first 12 digits of the digest")]
    platform: Annotated[str, Doc("`seewhy`")]
    inputs: Annotated[list[TensorOutput], Doc("one of them is sent")]
    outputs: Annotated[list[TensorOutput], Doc("what comes back")]
    parameters: Annotated[dict[str, Any], Doc("`classes`, and `transform`: how `pixels` are made from a picture")]


class ExportOutput(TypedDict):
    """The object of seewhy export --json; without folder and failures, the card export.json."""

    folder: NotRequired[Annotated[str, Doc("where the graph lies")]]
    format: Annotated[int, Doc("of the card")]
    seewhy: Annotated[str, Doc("its version")]
    to: Annotated[Literal["onnx"], Doc("format of the graph")]
    opset: Annotated[int, Doc("of ONNX")]
    made_with: Annotated[dict[str, str], Doc("package → version")]
    precision: Annotated[str, Doc("of the graph's numbers")]
    recipe: Annotated[str, Doc("what made the classifier")]
    encoder: Annotated[str, Doc("what looks")]
    fingerprint: Annotated[str, Doc("of the encoder")]
    classifier: Annotated[str, Doc("SHA-256 of the classifier")]
    fitted_in: Annotated[str | None, Doc("precision of the features that it was fitted on; `null` where unknown")]
    classes: Annotated[list[str], Doc("names, in the order of the outputs")]
    inputs: Annotated[list[dict[str, Any]], Doc("of the graph: `name`, `type`, `shape`, `batch` first, and `what`")]
    outputs: Annotated[list[dict[str, Any]], Doc("of the graph, likewise")]
    preprocessing: Annotated[dict[str, Any], Doc("of pictures: `by_the_caller`, and then `by_the_graph`")]
    check: Annotated[dict[str, Any], Doc("the graph beside SeeWhy, with the largest `differences` found")]
    graph: Annotated[str, Doc("the graph's file, below the folder")]
    files: Annotated[dict[str, str], Doc("file below the folder → SHA-256")]
    failures: NotRequired[Annotated[Failures, Doc("pictures to compare on that could not be read")]]
