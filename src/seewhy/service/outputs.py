"""The JSON that service answers with, as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..evidence.outputs import ExplanationOutput
from ..explanation.outputs import (
    BeforeAfter,
    FailureOutput,
    Failures,
    LabelDecision,
    Map,
    Missing,
    Mistake,
    Model,
    PartBox,
    PredictionOutput,
    Recent,
    WordsCompared,
)
from ..results import Count, Doc, Share


class AppHomeOutput(TypedDict):
    """GET / of seewhy app."""

    model: Annotated[Model, Doc("where it comes from, in words")]
    n_classes: Annotated[Count, Doc("classes")]
    words: Annotated[bool, Doc("whether it has descriptions")]
    browse: Annotated[bool, Doc("whether `--data` was given")]
    recent: Annotated[list[Recent], Doc("your last pictures, newest first: `id`, `card`, and the keys of `predict`")]


class AppDecidedBetweenOutput(TypedDict):
    """POST /decide/KEY and /undo/KEY, status 409: somebody decided in between, and nothing was changed."""

    error: Annotated[str, Doc("who decided what, and what to do")]
    state: Annotated[LabelDecision, Doc("what stands")]


class Output(TypedDict):
    name: Annotated[str, Doc("of the tensor")]
    datatype: Annotated[str, Doc("`BYTES` or `FP32`")]
    shape: Annotated[list[int], Doc("its sides; −1 for any number")]
    data: Annotated[list[str | float], Doc("flat; of a picture that could not be read `label` is empty")]


class ServeInferOutput(TypedDict):
    """POST /v2/models/NAME/infer of seewhy serve."""

    model_name: Annotated[str, Doc("as it is served")]
    model_version: Annotated[str, Doc("first 12 digits of the digest")]
    id: NotRequired[Annotated[str, Doc("the request's")]]
    outputs: Annotated[list[Output], Doc("`label`, `score`, `probabilities` and `error`, or those asked for")]


AppHistoryOutput = list[LabelDecision]
"""GET /history/KEY of seewhy app --decisions: all that was decided on a picture, oldest first."""


class ServeErrorOutput(TypedDict):
    """An error of seewhy serve."""

    error: Annotated[str, Doc("why, and what to do")]


class Model2(TypedDict):
    name: Annotated[str, Doc("as it is served")]
    digest: Annotated[str, Doc("SHA-256 of the saved model's card")]
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
    models: Annotated[list[Model2], Doc("those that are served, the first answers where none is named")]
    limits: Annotated[Limits, Doc("what clients must know")]


class Model3(TypedDict):
    name: Annotated[str, Doc("as it is served")]
    digest: Annotated[str, Doc("SHA-256 of the saved model's card")]


class Picture(PredictionOutput):
    explanation: NotRequired[Annotated[dict[str, Any], Doc("with `explain`")]]


class ServePredictOutput(TypedDict):
    """POST /predict of seewhy serve."""

    error: NotRequired[Annotated[str, Doc("only where no picture could be read: the first one's error")]]
    model: Annotated[Model3, Doc("who decided")]
    pictures: Annotated[list[FailureOutput | Picture], Doc("one per picture, in the order sent")]


AppDecisionsOutput = dict[str, LabelDecision]
"""GET /decisions of seewhy app --decisions and seewhy check --serve: a picture's key → what stands on its label."""


class LikeRow(TypedDict):
    image: Annotated[str, Doc("a picture of yours")]
    label: Annotated[str, Doc("its class")]
    similarity: Annotated[float, Doc("cosine of place and patch")]
    channel: Annotated[Count | None, Doc("the channel or prototype")]
    patch: Annotated[str, Doc("JPEG in a data URI")]


class AppPlaceOutput(TypedDict):
    """GET /card/ID/place of seewhy app."""

    row: Annotated[Count, Doc("of the cell, from 0")]
    column: Annotated[Count, Doc("of the cell, from 0")]
    box: Annotated[PartBox, Doc("what is compared, as fractions of the view")]
    share: Annotated[float, Doc("the cell's part of what speaks for the class")]
    method: Annotated[str | None, Doc("registered name of how `like` was found")]
    unit: Annotated[Literal["channel", "prototype"], Doc("what the number of a channel is of")]
    like: Annotated[list[LikeRow], Doc("what the place resembles")]


class Classe(TypedDict):
    label: Annotated[str, Doc("class")]
    before: Annotated[float, Doc("its score with the words as given")]
    after: Annotated[float, Doc("its score now")]


class Flips(TypedDict):
    broken: Annotated[Count, Doc("right before")]
    mended: Annotated[Count, Doc("right now")]
    other: Annotated[Count, Doc("wrong in another way")]


class OnData(TypedDict):
    n: Annotated[Count, Doc("pictures")]
    accuracy: Annotated[BeforeAfter, Doc("as in `study edit-words`")]
    flips: Annotated[Flips, Doc("how many decisions turn over")]
    page: Annotated[str, Doc("`/changes`, where more is said")]


class AppEditOutput(TypedDict):
    """POST /card/ID/edit of seewhy app."""

    score_is: Annotated[str, Doc("`probability` where the words decide, else `mean cosine of the class's texts`")]
    before: Annotated[str, Doc("the class chosen with the words as given")]
    after: Annotated[str, Doc("the class chosen now")]
    classes: Annotated[list[Classe], Doc("scores")]
    on_data: Annotated[OnData, Doc("what the edited words change on the pictures of `--data` looked at so far")]


class Route(TypedDict):
    method: Annotated[str, Doc("`GET` or `POST`")]
    path: Annotated[str, Doc("with names in braces")]
    says: Annotated[str, Doc("in words")]


class AppHelpOutput(TypedDict):
    """GET /help of seewhy app."""

    routes: Annotated[list[Route], Doc("every address")]


class Input(TypedDict):
    name: Annotated[str, Doc("of the tensor")]
    datatype: Annotated[str, Doc("`BYTES` or `FP32`")]
    shape: Annotated[list[int], Doc("its sides; −1 for any number")]


class Transform(TypedDict):
    input_size: Annotated[list[int], Doc("height and width")]
    resize: Annotated[int | list[int], Doc("short side, or height and width")]
    interpolation: Annotated[str, Doc("antialiased")]
    mean: Annotated[list[float], Doc("of each channel, 0…1")]
    std: Annotated[list[float], Doc("of each channel, 0…1")]


class Parameters(TypedDict):
    classes: Annotated[list[str], Doc("in the order of `probabilities`")]
    transform: Annotated[Transform, Doc("how `pixels` are made from a picture")]


class ServeModelOutput(TypedDict):
    """GET /v2/models/NAME of seewhy serve."""

    name: Annotated[str, Doc("as it is served")]
    versions: Annotated[list[str], Doc("first 12 digits of the digest")]
    platform: Annotated[str, Doc("`seewhy`")]
    inputs: Annotated[list[Input], Doc("one of them is sent")]
    outputs: Annotated[list[Input], Doc("what comes back")]
    parameters: Annotated[Parameters, Doc("what is not in the protocol")]


AppChangesOutput = Missing | WordsCompared
"""GET /changes of seewhy app."""


class AppCardOutput(ExplanationOutput):
    """GET /card/ID, POST /look and GET /sample/N of seewhy app."""

    id: Annotated[str, Doc("of the picture while it is kept")]
    card: Annotated[str, Doc("the card's address")]
    measured: Annotated[bool, Doc("whether deletion and insertion were measured; `measure=true` asks for it")]
    edited: Annotated[bool, Doc("whether the words are edited ones")]
    labelled: Annotated[str | None, Doc("the picture's class, if it is one of `--data`")]


class AppResetOutput(TypedDict):
    """POST /card/ID/reset of seewhy app."""

    card: Annotated[str, Doc("the card's address")]


AppDecisionOutput = LabelDecision
"""POST /decide/KEY and /undo/KEY of seewhy app --decisions and seewhy check --serve."""


class Confusion(TypedDict):
    true: Annotated[str, Doc("class")]
    predicted: Annotated[str, Doc("what it was taken for")]
    n: Annotated[Count, Doc("pictures")]
    pictures: Annotated[list[Mistake], Doc("its pictures, the surest first")]


class AppMistakesOutput(TypedDict):
    """GET /mistakes of seewhy app; without --data only n, confusions and pictures."""

    n: Annotated[Count, Doc("pictures")]
    done: NotRequired[Annotated[Count, Doc("looked at so far")]]
    right: NotRequired[Annotated[Count, Doc("of those")]]
    accuracy: NotRequired[Annotated[Share | None, Doc("of those; `null` before the first")]]
    failed: NotRequired[Annotated[Count, Doc("could not be read")]]
    unknown_class: NotRequired[Annotated[Count, Doc("of classes the model does not know, left out")]]
    problem: NotRequired[Annotated[str | None, Doc("why it stopped early")]]
    found: NotRequired[Annotated[Count, Doc("mistakes of the classes asked for")]]
    order: NotRequired[Annotated[Literal["pairs", "surest", "least_sure"], Doc("how they are listed")]]
    page: NotRequired[Annotated[Count, Doc("of this page, from 1")]]
    pages: NotRequired[Annotated[Count, Doc("of 20 pairs or 48 pictures")]]
    confusions: Annotated[list[Confusion], Doc("with `pairs`, the most frequent first; else empty")]
    pictures: Annotated[list[Mistake], Doc("one by one with `surest` and `least_sure`; else empty")]


class ServeLogOutput(TypedDict):
    """A line of the access log of seewhy serve."""

    time: Annotated[str, Doc("UTC, when the answer ended")]
    id: Annotated[str, Doc("`X-Request-ID`, the client's where that is printable")]
    client: Annotated[str, Doc("address")]
    method: Annotated[str, Doc("of the request")]
    path: Annotated[str, Doc("without the query, 500 signs at most")]
    status: Annotated[int, Doc("of the answer; 499 where the client left")]
    seconds: Annotated[float, Doc("from head to the end of the answer")]
    bytes_in: Annotated[Count, Doc("of the body")]
    bytes_out: Annotated[Count, Doc("of the answer")]
    model: Annotated[str | None, Doc("asked; `null` where none was")]
    pictures: Annotated[Count, Doc("sent")]
    failed: Annotated[Count, Doc("of them, those that could not be read")]


class AppErrorOutput(TypedDict):
    """An error of a page."""

    error: Annotated[str, Doc("why, and what to do")]


class Input2(TypedDict):
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


class Differences(TypedDict):
    logits: Annotated[float, Doc("of the logits")]
    probabilities: Annotated[float, Doc("of the probabilities")]
    heat: Annotated[float, Doc("of the map")]


class Check(TypedDict):
    pictures: Annotated[int, Doc("how many")]
    drawn: Annotated[bool, Doc("whether they were drawn for it")]
    runtime: Annotated[str, Doc("what ran the graph")]
    against: Annotated[str, Doc("what it was compared with")]
    tolerance: Annotated[float, Doc("largest difference allowed")]
    differences: Annotated[Differences, Doc("largest found: of a probability as it is")]


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
    inputs: Annotated[list[Input2], Doc("of the graph")]
    outputs: Annotated[list[Input2], Doc("of the graph")]
    preprocessing: Annotated[Preprocessing, Doc("of pictures")]
    check: Annotated[Check, Doc("the graph beside SeeWhy")]
    graph: Annotated[str, Doc("the graph's file, below the folder")]
    files: Annotated[dict[str, str], Doc("file below the folder → SHA-256")]
    failures: NotRequired[Annotated[Failures, Doc("pictures to compare on that could not be read")]]


AppDescriptionsOutput = dict[str, list[str]]
"""GET /descriptions of seewhy app: class → texts, as --descriptions and --labels read them."""


class Map2(TypedDict):
    label: Annotated[str, Doc("class of the sentence")]
    text: Annotated[str, Doc("the sentence")]
    map: Annotated[Map, Doc("each cell's part of its lead over the other class's sentences, rows from the top")]
    overlay: Annotated[str | None, Doc("what is positive, as a PNG in a data URI; `null` where nothing is")]


class AppWordsOutput(TypedDict):
    """GET /card/ID/words of seewhy app."""

    maps: Annotated[list[Map2], Doc("a map for each sentence on the card")]
    missing: NotRequired[Annotated[str, Doc("why there is none")]]
    cure: NotRequired[Annotated[str, Doc("what it would take")]]
