"""The JSON that service answers programs with, as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import ExplanationOutput, FailureOutput, Failures, Model, PredictionOutput
from ..results import Count, Doc


class AppCardOutput(ExplanationOutput):
    """GET /card/ID, POST /look and GET /sample/N of seewhy app."""

    id: Annotated[str, Doc("identifier of the picture while it is kept")]
    card: Annotated[str, Doc("address of the card")]
    measured: Annotated[bool, Doc("whether deletion and insertion were measured; `measure=true` asks for it")]
    edited: Annotated[bool, Doc("whether the descriptions were edited")]
    labelled: Annotated[str | None, Doc("the picture's class, if it is one of `--data`")]


class ErrorOutput(TypedDict):
    """An error of seewhy serve, or of a page with format=json."""

    error: Annotated[str, Doc("the reason, and what to do")]


class ServedModel(TypedDict):
    name: Annotated[str, Doc("name of the served model")]
    digest: Annotated[str, Doc("SHA-256 of the saved model's description")]


class Picture(PredictionOutput):
    explanation: NotRequired[Annotated[dict[str, Any], Doc("with `explain`")]]


class ServePredictOutput(TypedDict):
    """POST /predict of seewhy serve."""

    error: NotRequired[Annotated[str, Doc("only if no picture could be read: the error of the first")]]
    model: Annotated[ServedModel, Doc("the model that decided")]
    pictures: Annotated[list[FailureOutput | Picture], Doc("one per picture, in the order sent")]


class VersionModel(ServedModel):
    n_classes: Annotated[Count, Doc("number of classes")]
    problem: Annotated[str | None, Doc("why the model now in its folder was not loaded")]
    facts: Annotated[Model, Doc("its origin, in words")]


class ServeVersionOutput(TypedDict):
    """GET /version of seewhy serve."""

    seewhy: Annotated[str, Doc("version")]
    models: Annotated[list[VersionModel], Doc("the served models; the first answers if the request names none")]
    limits: Annotated[dict[str, float | None], Doc("limits that clients must know, by name")]


class TensorOutput(TypedDict):
    name: Annotated[str, Doc("name of the tensor")]
    datatype: Annotated[str, Doc("`BYTES` or `FP32`")]
    shape: Annotated[list[int], Doc("its dimensions; −1 for any number")]
    data: NotRequired[
        Annotated[list[str | float], Doc("flat list; `label` is empty for a picture that could not be read")]
    ]


class ServeInferOutput(TypedDict):
    """POST /v2/models/NAME/infer of seewhy serve."""

    model_name: Annotated[str, Doc("name of the served model")]
    model_version: Annotated[str, Doc("first 12 digits of the digest")]
    id: NotRequired[Annotated[str, Doc("identifier of the request")]]
    outputs: Annotated[list[TensorOutput], Doc("`label`, `score`, `probabilities` and `error`, or those requested")]


class ServeModelOutput(TypedDict):
    """GET /v2/models/NAME of seewhy serve."""

    name: Annotated[str, Doc("name of the served model")]
    versions: Annotated[list[str], Doc("first 12 digits of the digest")]
    platform: Annotated[str, Doc("`seewhy`")]
    inputs: Annotated[list[TensorOutput], Doc("the inputs; send one of them")]
    outputs: Annotated[list[TensorOutput], Doc("the outputs")]
    parameters: Annotated[dict[str, Any], Doc("`classes`, and `transform`: how to make `pixels` from a picture")]


class ExportOutput(TypedDict):
    """The object of seewhy export --json; without folder and failures, the card export.json."""

    folder: NotRequired[Annotated[str, Doc("the folder of the graph")]]
    format: Annotated[int, Doc("version of the format")]
    seewhy: Annotated[str, Doc("version of SeeWhy")]
    to: Annotated[Literal["onnx"], Doc("format of the graph")]
    opset: Annotated[int, Doc("opset of ONNX")]
    made_with: Annotated[dict[str, str], Doc("package → version")]
    precision: Annotated[str, Doc("precision of the graph")]
    recipe: Annotated[str, Doc("the kind of classifier")]
    encoder: Annotated[str, Doc("the encoder")]
    fingerprint: Annotated[str, Doc("fingerprint of the encoder")]
    classifier: Annotated[str, Doc("SHA-256 of the classifier")]
    fitted_in: Annotated[str | None, Doc("precision of the features it was fitted on; `null` if unknown")]
    classes: Annotated[list[str], Doc("class names, in the order of the outputs")]
    inputs: Annotated[
        list[dict[str, Any]], Doc("inputs of the graph: `name`, `type`, `shape` (`batch` first) and `what`")
    ]
    outputs: Annotated[list[dict[str, Any]], Doc("outputs of the graph, likewise")]
    preprocessing: Annotated[dict[str, Any], Doc("preprocessing of pictures: `by_the_caller`, then `by_the_graph`")]
    check: Annotated[dict[str, Any], Doc("the graph compared with SeeWhy, with the largest `differences`")]
    graph: Annotated[str, Doc("file of the graph, in the folder")]
    files: Annotated[dict[str, str], Doc("for each file in the folder, its SHA-256")]
    failures: NotRequired[Annotated[Failures, Doc("pictures for the comparison that could not be read")]]
