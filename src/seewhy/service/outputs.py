"""JSON types of the pages, the service and the export."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import ExplanationOutput, FailureOutput, Failures, Model, PredictionOutput
from ..results import Count, Doc


class AppCardOutput(ExplanationOutput):
    """The JSON of GET /card/ID, POST /look and GET /sample/N of seewhy app."""

    id: Annotated[str, Doc("id of the picture while it is in memory")]
    card: Annotated[str, Doc("address of the card")]
    measured: Annotated[bool, Doc("whether deletion and insertion were measured, as requested by `measure=true`")]
    edited: Annotated[bool, Doc("whether the descriptions were edited")]
    labelled: Annotated[str | None, Doc("the picture's label, if it is one of `--data`")]


class ErrorOutput(TypedDict):
    """An error of seewhy serve, or of a page with format=json."""

    error: Annotated[str, Doc("the reason, and what to do")]


class ServedModel(TypedDict):
    name: Annotated[str, Doc("name of the model in this service")]
    digest: Annotated[str, Doc("SHA-256 of the saved model's card")]


class Picture(PredictionOutput):
    explanation: NotRequired[Annotated[dict[str, Any], Doc("with `explain`")]]


class ServePredictOutput(TypedDict):
    """The JSON of POST /predict of seewhy serve."""

    error: NotRequired[Annotated[str, Doc("only if no picture could be read: the error of the first")]]
    model: Annotated[ServedModel, Doc("the model that answered")]
    pictures: Annotated[list[FailureOutput | Picture], Doc("one per picture, in the order sent")]


class VersionModel(ServedModel):
    n_classes: Annotated[Count, Doc("classes")]
    problem: Annotated[str | None, Doc("why the current model in its folder could not be loaded")]
    facts: Annotated[Model, Doc("origin of the model, in words")]


class ServeVersionOutput(TypedDict):
    """The JSON of GET /version of seewhy serve."""

    seewhy: Annotated[str, Doc("version")]
    models: Annotated[list[VersionModel], Doc("served models; the first answers requests without a model name")]
    limits: Annotated[dict[str, float | None], Doc("limits for clients, by name")]


class TensorOutput(TypedDict):
    name: Annotated[str, Doc("name of the tensor")]
    datatype: Annotated[str, Doc("`BYTES` or `FP32`")]
    shape: Annotated[list[int], Doc("length of each axis; −1 for a variable length")]
    data: NotRequired[
        Annotated[
            list[str | float], Doc("values in one flat list; `label` is empty for a picture that could not be read")
        ]
    ]


class ServeInferOutput(TypedDict):
    """The JSON of POST /v2/models/NAME/infer of seewhy serve."""

    model_name: Annotated[str, Doc("name of the model in this service")]
    model_version: Annotated[str, Doc("first 12 digits of the digest")]
    id: NotRequired[Annotated[str, Doc("id of the request")]]
    outputs: Annotated[list[TensorOutput], Doc("`label`, `score`, `probabilities` and `error`, or the requested ones")]


class ServeModelOutput(TypedDict):
    """The JSON of GET /v2/models/NAME of seewhy serve."""

    name: Annotated[str, Doc("name of the model in this service")]
    versions: Annotated[list[str], Doc("first 12 digits of the digest")]
    platform: Annotated[str, Doc("`seewhy`")]
    inputs: Annotated[list[TensorOutput], Doc("inputs of a request; send one of them")]
    outputs: Annotated[list[TensorOutput], Doc("outputs of an answer")]
    parameters: Annotated[
        dict[str, Any], Doc("`classes`, and `transform`: the preprocessing that makes `pixels` from a picture")
    ]


class ExportOutput(TypedDict):
    """The JSON of ``seewhy export --json``; without folder and failures, it is export.json."""

    folder: NotRequired[Annotated[str, Doc("folder of the graph")]]
    format: Annotated[int, Doc("version of the card's format")]
    seewhy: Annotated[str, Doc("its version")]
    to: Annotated[Literal["onnx"], Doc("format of the graph")]
    opset: Annotated[int, Doc("opset of ONNX")]
    made_with: Annotated[dict[str, str], Doc("package → version")]
    precision: Annotated[str, Doc("precision of the graph")]
    recipe: Annotated[str, Doc("recipe of the classifier")]
    encoder: Annotated[str, Doc("name of the encoder")]
    fingerprint: Annotated[str, Doc("fingerprint of the encoder")]
    classifier: Annotated[str, Doc("SHA-256 of the classifier")]
    fitted_in: Annotated[str | None, Doc("precision of the features in the fit; `null` if unknown")]
    classes: Annotated[list[str], Doc("names of the classes, in the order of the outputs")]
    inputs: Annotated[
        list[dict[str, Any]], Doc("inputs of the graph: `name`, `type`, `shape`, `batch` first, and `what`")
    ]
    outputs: Annotated[list[dict[str, Any]], Doc("outputs of the graph, in the same form")]
    preprocessing: Annotated[dict[str, Any], Doc("preprocessing of a picture `by_the_caller`, and then `by_the_graph`")]
    check: Annotated[dict[str, Any], Doc("the comparison of the graph with SeeWhy, with the largest `differences`")]
    graph: Annotated[str, Doc("file of the graph, in the folder")]
    files: Annotated[dict[str, str], Doc("SHA-256 of each file in the folder")]
    failures: NotRequired[Annotated[Failures, Doc("pictures for the comparison that could not be read")]]
