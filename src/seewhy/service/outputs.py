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


class Limits(TypedDict):
    pictures: Annotated[int, Doc("pictures of one request")]
    bytes: Annotated[int, Doc("bytes of one request")]
    bytes_together: Annotated[int, Doc("bytes of all requests that are not answered yet")]
    requests_a_minute: Annotated[float | None, Doc("from one address; `null` sets no limit")]
    waiting: Annotated[int, Doc("pictures that may wait")]
    batch: Annotated[int, Doc("pictures looked at together")]
    wait_seconds: Annotated[float, Doc("how long a picture waits for others that are being decoded")]
    body_seconds: Annotated[float, Doc("for a body to come")]
    answer_seconds: Annotated[float, Doc("until a request is given up")]
    decode_seconds: Annotated[int, Doc("of computing that one picture may take to be decoded")]


class ServeVersionOutput(TypedDict):
    """GET /version of seewhy serve."""

    seewhy: Annotated[str, Doc("version")]
    models: Annotated[list[VersionModel], Doc("those that are served, the first answers where none is named")]
    limits: Annotated[Limits, Doc("what clients must know")]


class Tensor(TypedDict):
    name: Annotated[str, Doc("of the tensor")]
    datatype: Annotated[str, Doc("`BYTES` or `FP32`")]
    shape: Annotated[list[int], Doc("its sides; −1 for any number")]


class FilledTensor(Tensor):
    data: Annotated[list[str | float], Doc("flat; of a picture that could not be read `label` is empty")]


class ServeInferOutput(TypedDict):
    """POST /v2/models/NAME/infer of seewhy serve."""

    model_name: Annotated[str, Doc("as it is served")]
    model_version: Annotated[str, Doc("first 12 digits of the digest")]
    id: NotRequired[Annotated[str, Doc("the request's")]]
    outputs: Annotated[list[FilledTensor], Doc("`label`, `score`, `probabilities` and `error`, or those asked for")]


class ServeModelOutput(TypedDict):
    """GET /v2/models/NAME of seewhy serve."""

    name: Annotated[str, Doc("as it is served")]
    versions: Annotated[list[str], Doc("first 12 digits of the digest")]
    platform: Annotated[str, Doc("`seewhy`")]
    inputs: Annotated[list[Tensor], Doc("what is sent")]
    outputs: Annotated[list[Tensor], Doc("what comes back")]
    parameters: Annotated[dict[str, list[str]], Doc("`classes`, in the order of `probabilities`")]


class GraphTensor(TypedDict):
    name: Annotated[str, Doc("of the tensor")]
    type: Annotated[Literal["uint8", "int64", "float32"], Doc("of its numbers")]
    shape: Annotated[list[str | int], Doc("`batch` first")]
    what: Annotated[str, Doc("what it is")]


class ByTheCaller(TypedDict):
    colours: Annotated[str, Doc("what the pixels are")]
    resize_short_side: Annotated[int | None, Doc("pixels; `null` where both sides are given")]
    resize_to: Annotated[list[int] | None, Doc("height and width to stretch to; `null` where the short side is given")]
    centre_crop: Annotated[list[int], Doc("height and width")]
    interpolation: Annotated[Literal["bicubic", "bilinear", "lanczos"], Doc("how it is resized")]
    antialias: Annotated[bool, Doc("whether it is averaged over what a pixel covers")]
    reducing_gap: Annotated[float, Doc("Pillow's, for large pictures")]


class ByTheGraph(TypedDict):
    divide_by: Annotated[int, Doc("of a byte")]
    mean: Annotated[list[float], Doc("of red, green and blue")]
    std: Annotated[list[float], Doc("of red, green and blue")]


class Preprocessing(TypedDict):
    by_the_caller: Annotated[ByTheCaller, Doc("before the graph")]
    by_the_graph: Annotated[ByTheGraph, Doc("in the graph: `(picture / divide_by - mean) / std`")]


class Check(TypedDict):
    pictures: Annotated[int, Doc("how many")]
    drawn: Annotated[bool, Doc("whether they were drawn for it")]
    runtime: Annotated[str, Doc("what ran the graph")]
    against: Annotated[str, Doc("what it was compared with")]
    tolerance: Annotated[float, Doc("largest difference allowed")]
    differences: Annotated[dict[str, float], Doc("largest found of `logits`, `probabilities` (as it is) and `heat`")]


class ExportOutput(TypedDict):
    """The object of seewhy export --json; without folder and failures, the card export.json."""

    folder: NotRequired[Annotated[str, Doc("where the graph lies")]]
    format: Annotated[int, Doc("of the card")]
    seewhy: Annotated[str, Doc("its version")]
    name: Annotated[str, Doc("of the model in a repository")]
    to: Annotated[Literal["onnx", "openvino"], Doc("format of the graph")]
    layout: Annotated[Literal["plain", "triton", "ovms"], Doc("of the folder")]
    server: Annotated[str | None, Doc("the server that the folder is for, which was not run; `null` for none")]
    opset: Annotated[int | None, Doc("of ONNX; `null` for OpenVINO")]
    made_with: Annotated[dict[str, str], Doc("package → version")]
    precision: Annotated[str, Doc("of the graph's numbers")]
    recipe: Annotated[str, Doc("what made the classifier")]
    encoder: Annotated[str, Doc("what looks")]
    fingerprint: Annotated[str, Doc("of the encoder")]
    classifier: Annotated[str, Doc("SHA-256 of the classifier")]
    fitted_in: Annotated[str | None, Doc("precision of the features that it was fitted on; `null` where unknown")]
    classes: Annotated[list[str], Doc("names, in the order of the outputs")]
    inputs: Annotated[list[GraphTensor], Doc("of the graph")]
    outputs: Annotated[list[GraphTensor], Doc("of the graph")]
    preprocessing: Annotated[Preprocessing, Doc("of pictures")]
    check: Annotated[Check, Doc("the graph beside SeeWhy")]
    graph: Annotated[str, Doc("the graph's file, below the folder")]
    files: Annotated[dict[str, str], Doc("file below the folder → SHA-256")]
    failures: NotRequired[Annotated[Failures, Doc("pictures to compare on that could not be read")]]
