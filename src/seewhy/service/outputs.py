"""Types of the JSON of the page, the service and the export."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import ExplanationOutput, FailureOutput, Failures, Model, PredictionOutput
from ..results import Count, Doc


class AppCardOutput(ExplanationOutput):
    """GET /card/ID, POST /look and GET /sample/N of seewhy app."""

    id: Annotated[str, Doc("id of the picture while it is in memory")]
    card: Annotated[str, Doc("address of the card")]
    measured: Annotated[bool, Doc("whether deletion and insertion were measured, as `measure=true` asks")]
    edited: Annotated[bool, Doc("whether the descriptions were edited")]
    labelled: Annotated[str | None, Doc("the picture's label, if it is one of `--data`")]


class ErrorOutput(TypedDict):
    """An error of seewhy serve, or of a page with format=json."""

    error: Annotated[str, Doc("the reason, and what to do")]


class ServedModel(TypedDict):
    name: Annotated[str, Doc("its name in this service")]
    digest: Annotated[str, Doc("SHA-256 of the saved model's card")]


class Picture(PredictionOutput):
    explanation: NotRequired[Annotated[dict[str, Any], Doc("with `explain`")]]


class ServePredictOutput(TypedDict):
    """POST /predict of seewhy serve."""

    error: NotRequired[Annotated[str, Doc("only if no picture could be read: the error of the first")]]
    model: Annotated[ServedModel, Doc("the model that answered")]
    pictures: Annotated[list[FailureOutput | Picture], Doc("one per picture, in the order sent")]


class VersionModel(ServedModel):
    n_classes: Annotated[Count, Doc("classes")]
    problem: Annotated[str | None, Doc("why the model now in its folder could not be loaded")]
    facts: Annotated[Model, Doc("where it comes from, in words")]


class ServeVersionOutput(TypedDict):
    """GET /version of seewhy serve."""

    seewhy: Annotated[str, Doc("version")]
    models: Annotated[list[VersionModel], Doc("the models served; the first answers requests that name none")]
    limits: Annotated[dict[str, float | None], Doc("limits for clients, by name")]


class TensorOutput(TypedDict):
    name: Annotated[str, Doc("name of the tensor")]
    datatype: Annotated[str, Doc("`BYTES` or `FP32`")]
    shape: Annotated[list[int], Doc("length of each axis; −1 for any length")]
    data: NotRequired[
        Annotated[
            list[str | float], Doc("the values in one flat list; `label` is empty for a picture that could not be read")
        ]
    ]


class ServeInferOutput(TypedDict):
    """POST /v2/models/NAME/infer of seewhy serve."""

    model_name: Annotated[str, Doc("name of the model in this service")]
    model_version: Annotated[str, Doc("first 12 digits of the digest")]
    id: NotRequired[Annotated[str, Doc("of the request")]]
    outputs: Annotated[list[TensorOutput], Doc("`label`, `score`, `probabilities` and `error`, or those asked for")]


class ServeModelOutput(TypedDict):
    """GET /v2/models/NAME of seewhy serve."""

    name: Annotated[str, Doc("its name in this service")]
    versions: Annotated[list[str], Doc("first 12 digits of the digest")]
    platform: Annotated[str, Doc("`seewhy`")]
    inputs: Annotated[list[TensorOutput], Doc("send one of them")]
    outputs: Annotated[list[TensorOutput], Doc("of an answer")]
    parameters: Annotated[dict[str, Any], Doc("`classes`, and `transform`: how to make `pixels` from a picture")]


class ExportOutput(TypedDict):
    """The JSON object that ``seewhy export --json`` prints; without folder and failures, the card export.json."""

    folder: NotRequired[Annotated[str, Doc("that holds the graph")]]
    format: Annotated[int, Doc("of the card")]
    seewhy: Annotated[str, Doc("its version")]
    to: Annotated[Literal["onnx"], Doc("format of the graph")]
    opset: Annotated[int, Doc("opset of ONNX")]
    made_with: Annotated[dict[str, str], Doc("package → version")]
    precision: Annotated[str, Doc("of the graph's numbers")]
    recipe: Annotated[str, Doc("of the classifier")]
    encoder: Annotated[str, Doc("the encoder's name")]
    fingerprint: Annotated[str, Doc("of the encoder")]
    classifier: Annotated[str, Doc("SHA-256 of the classifier")]
    fitted_in: Annotated[str | None, Doc("precision of the features in the fit; `null` if unknown")]
    classes: Annotated[list[str], Doc("names of the classes, in the order of the outputs")]
    inputs: Annotated[
        list[dict[str, Any]], Doc("inputs of the graph: `name`, `type`, `shape`, `batch` first, and `what`")
    ]
    outputs: Annotated[list[dict[str, Any]], Doc("outputs of the graph, in the same form")]
    preprocessing: Annotated[dict[str, Any], Doc("what is done to a picture `by_the_caller`, and then `by_the_graph`")]
    check: Annotated[dict[str, Any], Doc("the comparison of the graph with SeeWhy, with the largest `differences`")]
    graph: Annotated[str, Doc("file of the graph, in the folder")]
    files: Annotated[dict[str, str], Doc("SHA-256 of each file in the folder")]
    failures: NotRequired[Annotated[Failures, Doc("pictures for the comparison that could not be read")]]
