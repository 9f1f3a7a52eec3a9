"""The JSON that learned answers with, as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from ..explanation.outputs import Failures, Model, Range
from ..generation.outputs import MadeSetOutput
from ..results import Count, Doc, Share


class Encoder(TypedDict):
    name: Annotated[str, Doc("as it was given")]
    fingerprint: Annotated[str, Doc("digest of weights and transform, its beginning")]
    width: Annotated[Count, Doc("numbers a picture")]


class Standing(TypedDict):
    encoder: Annotated[str, Doc("its name")]
    won: Annotated[Count, Doc("real differences in which it is better")]
    lost: Annotated[Count, Doc("in which it is worse")]
    compared: Annotated[Count, Doc("comparisons it is in")]


class Row(TypedDict):
    encoder: Annotated[str, Doc("its name")]
    value: Annotated[float, Doc("mean over test pictures and draws, 0…1; `kept` is at most about 0")]
    interval: Annotated[tuple[float, float], Doc("of test pictures and draws, at `settings.level`")]
    by_draw: Annotated[list[float], Doc("the value of each draw")]


class Difference2(TypedDict):
    a: Annotated[str, Doc("one encoder")]
    b: Annotated[str, Doc("another")]
    difference: Annotated[float, Doc("a's value less b's, on the same pictures and draws")]
    interval: Annotated[tuple[float, float], Doc("at `settings.level`, not corrected")]
    p: Annotated[Share, Doc("of no difference, two-sided")]
    p_corrected: Annotated[Share, Doc("for all comparisons of the study (Holm)")]
    real: Annotated[bool, Doc("`p_corrected` is below 1 - level, and 10 things or more were tested on")]
    better: Annotated[str | None, Doc("the better one where it is real, else `null`")]


class Measure2(TypedDict):
    measure: Annotated[str, Doc("what was asked; higher is better")]
    family: Annotated[str, Doc("`few-shot`, `part of the labels`, `neighbours`, `retrieval` or `corrupted`")]
    n: Annotated[Count, Doc("test pictures that were asked")]
    n_draws: Annotated[Count, Doc("draws of what was learnt from")]
    rows: Annotated[list[Row], Doc("a row an encoder")]
    differences: Annotated[list[Difference2], Doc("every pair")]


class Settings(TypedDict):
    n_seeds: Annotated[Count, Doc("draws of each subset")]
    level: Annotated[Share, Doc("of intervals")]
    seed: Annotated[int, Doc("of split and draws")]
    n_corrupted: Annotated[Count, Doc("test pictures that are corrupted, at most")]
    n_compared: Annotated[Count, Doc("comparisons corrected for")]
    classifier: Annotated[str, Doc("what was fitted")]


class StudyTransferOutput(TypedDict):
    """The object of seewhy study transfer --json."""

    study: Literal["transfer"]
    sentence: Annotated[str, Doc("the best encoder against each of the others")]
    n: Annotated[Count, Doc("pictures")]
    n_learn: Annotated[Count, Doc("of them those learnt from")]
    n_test: Annotated[Count, Doc("of them those tested on")]
    n_groups: Annotated[Count, Doc("things that the pictures tested on show")]
    n_classes: Annotated[Count, Doc("classes")]
    encoders: Annotated[list[Encoder], Doc("those compared, in the order given")]
    standings: Annotated[list[Standing], Doc("by real differences won less those lost")]
    measures: Annotated[list[Measure2], Doc("one table each")]
    settings: Annotated[Settings, Doc("how it was asked")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]


class Answer(TypedDict):
    kind: Annotated[Literal["more", "enough", "open", "unlikely", "far", "unreachable"], Doc("`more`: between two")]
    level: Annotated[Share, Doc("of the interval")]
    more: Annotated[list[int | None], Doc("fewest and most pictures beside those there are")]
    needed: Annotated[list[int | None], Doc("the same, of pictures learnt from in all")]
    median: Annotated[Count | None, Doc("of the same")]
    reached_within: Annotated[Share, Doc("part of the draws that reach the target by then")]
    most: Annotated[Count, Doc("the most pictures that are foretold")]


class Point(TypedDict):
    n: Annotated[Count, Doc("pictures learnt from")]
    accuracy: Annotated[Share, Doc("mean of the seeds")]
    by_seed: Annotated[list[float], Doc("of each")]
    interval_90: Annotated[Range, Doc("90 %")]
    interval_95: Annotated[Range, Doc("95 %")]


class Slope(TypedDict):
    value: Annotated[float, Doc("on what was measured")]
    interval_90: Annotated[Range, Doc("90 %")]
    interval_95: Annotated[Range, Doc("95 %")]


class Form(TypedDict):
    name: Annotated[str, Doc("of the form")]
    formula: Annotated[str, Doc("with e the error and n the pictures")]
    paper: Annotated[str, Doc("where it is from")]
    numbers: Annotated[list[float], Doc("fitted, in the order of the formula: a, b; E, A, α; E, e₀, α, β, c")]
    held_out_error: Annotated[float | None, Doc("root mean square of relative errors at larger sizes that it was not")]
    n_held_out: Annotated[Count, Doc("such sizes, cut by cut")]
    share: Annotated[Share, Doc("of the draws that go by it")]
    n_failed: Annotated[Count, Doc("fits that are none: not falling, not finite, or an exponent at its bound")]
    n_fits: Annotated[Count, Doc("fits")]


class Prediction(TypedDict):
    n: Annotated[Count, Doc("pictures learnt from")]
    accuracy: Annotated[Share, Doc("median of the draws")]
    interval_90: Annotated[Range, Doc("90 %")]
    interval_95: Annotated[Range, Doc("95 %")]


class BandRow(TypedDict):
    n: Annotated[float, Doc("pictures learnt from")]
    accuracy: Annotated[Share, Doc("median of the draws")]
    interval_90: Annotated[Range, Doc("90 %")]


class Worth(TypedDict):
    value: Annotated[float, Doc("on what was measured")]
    interval_90: Annotated[Range, Doc("90 %")]
    interval_95: Annotated[Range, Doc("95 %")]


class Against(TypedDict):
    accuracy: Annotated[Slope, Doc("at the largest size of each, this less the first")]
    slope: Annotated[Slope, Doc("what a doubling brought, this less the first")]
    worth: Annotated[Worth, Doc("how many pictures of the first one of this is worth")]
    n_beyond: Annotated[Count, Doc("draws that do")]


class Arm(TypedDict):
    name: Annotated[str, Doc("for tables")]
    encoder: Annotated[str, Doc("name")]
    noise: Annotated[Share, Doc("part of the labels made wrong")]
    n_classes: Annotated[Count | None, Doc("so many of the classes; `null` for all")]
    points: Annotated[list[Point], Doc("by size")]
    slope: Annotated[Slope, Doc("accuracy that a doubling brought, over the sizes measured")]
    floor: Annotated[Slope, Doc("error that no number of pictures goes below")]
    form: Annotated[str, Doc("that foretells larger sizes best")]
    forms: Annotated[list[Form], Doc("best first")]
    predictions: Annotated[list[Prediction], Doc("beyond what was measured")]
    band: Annotated[list[BandRow], Doc("the curve, to be drawn")]
    against: Annotated[Against, Doc("what differs from the first; `null` for it")]


class Model2(TypedDict):
    encoder: Annotated[str, Doc("name")]
    fingerprint: Annotated[str, Doc("of its weights and preprocessing")]


class StudyScalingOutput(TypedDict):
    """The object of seewhy study scaling --json."""

    study: Literal["scaling"]
    sentence: Annotated[str, Doc("the answer")]
    target: Annotated[Share | None, Doc("accuracy wanted, or `null`")]
    answer: Annotated[Answer, Doc("how many more pictures; `null` without a target")]
    tested_range: Annotated[list[int], Doc("smallest and largest number of pictures learnt from")]
    n: Annotated[Count, Doc("pictures")]
    n_have: Annotated[Count, Doc("of them those that more would come beside")]
    n_test: Annotated[Count, Doc("pictures tested on")]
    n_classes: Annotated[Count, Doc("classes")]
    classifier: Annotated[str, Doc("what was fitted")]
    arms: Annotated[list[Arm], Doc("a curve each; the first answers")]
    settings: Annotated[dict[str, Any], Doc("of the study")]
    model: Annotated[Model2, Doc("what looked")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]


class Classes(TypedDict):
    generated: Annotated[str, Doc("made pictures")]
    real: Annotated[str, Doc("photographs")]


class Topologie(TypedDict):
    topology: Annotated[str, Doc("in words")]
    part: Annotated[Literal["convolutions", "dense layers"], Doc("of the search")]
    n_convs: Annotated[Count, Doc("convolutions")]
    n_filters: Annotated[Count, Doc("filters of each")]
    n_dense: Annotated[Count, Doc("dense layers")]
    n_units: Annotated[Count, Doc("units of each")]
    n_weights: Annotated[Count, Doc("weights")]
    right: Annotated[Share, Doc("part of the pictures for choosing that it is right on")]
    by_seed: Annotated[list[float], Doc("of each seed")]


class Right(TypedDict):
    value: Annotated[Share, Doc("on all pictures")]
    interval: Annotated[list[float], Doc("bootstrap over pictures, at 95 %")]


class Cell(TypedDict):
    version: Annotated[str, Doc("how the test pictures were changed; the first is `as it is`")]
    right: Annotated[Right, Doc("part that is judged right")]
    false_alarms: Annotated[Share, Doc("part of photographs that are called made")]
    missed: Annotated[Share, Doc("part of made pictures that are not")]
    by_seed: Annotated[list[float], Doc("part judged right by each seed, the first included")]


class Judge(TypedDict):
    judge: Annotated[str, Doc("who")]
    cells: Annotated[list[Cell], Doc("one for every version of the test pictures; never fewer")]


class LeadOverFrozenRow(TypedDict):
    version: Annotated[str, Doc("of the test pictures")]
    difference: Annotated[float, Doc("of the parts judged right")]
    interval: Annotated[list[float], Doc("paired bootstrap, at 95 %")]
    real: Annotated[bool, Doc("whether the interval leaves out 0")]


class UnseenRow(TypedDict):
    name: Annotated[str, Doc("as given")]
    n: Annotated[Count, Doc("pictures")]
    called_generated: Annotated[dict[str, Share], Doc("judge → part that is called made")]


class Excess(TypedDict):
    value: Annotated[float, Doc("on all pictures")]
    interval: Annotated[list[float], Doc("bootstrap over pictures, at 95 %")]


class Control(TypedDict):
    excess: Annotated[Excess, Doc("part of the map on the background, less the background's part of the picture")]
    cost: Annotated[Excess, Doc("by how much more the decision falls when a piece of background is filled than when")]


class Background(TypedDict):
    n: Annotated[Count, Doc("test pictures with a mask")]
    excess: Annotated[Excess, Doc("part of the map on the background, less the background's part of the picture")]
    cost: Annotated[Excess, Doc("by how much more the decision falls when a piece of background is filled than when")]
    control: Annotated[Control, Doc("the same of copies that never learnt, their mean")]
    background_area: Annotated[Share, Doc("part of the pictures that is background")]
    holds: Annotated[bool, Doc("whether both lie above 0 with their intervals, and not both of the copies' do")]


class RealOrGeneratedOutput(TypedDict):
    """What seewhy study real-or-generated found."""

    study: Literal["real-or-generated"]
    sentence: Annotated[str, Doc("the answer, accuracy and what becomes of it")]
    n: Annotated[Count, Doc("test pictures")]
    n_train: Annotated[Count, Doc("pictures learnt from")]
    n_selection: Annotated[Count, Doc("of them, those by which the topology was chosen")]
    classes: Annotated[Classes, Doc("names of the two")]
    topologies: Annotated[list[Topologie], Doc("what was tried, in that order")]
    chosen: Annotated[str, Doc("the topology that was right most often")]
    judges: Annotated[list[Judge], Doc("who judges, the chosen network first, then the frozen encoder")]
    lead_over_frozen: Annotated[list[LeadOverFrozenRow], Doc("of the network over the frozen encoder")]
    wrong_alarms: Annotated[Share, Doc("part of the network's alarms that would be wrong were one picture in a")]
    files_alone: Annotated[Share | None, Doc("how often size, format and JPEG tables of the files tell the class")]
    unseen: Annotated[list[UnseenRow], Doc("pictures of other generators")]
    background: Annotated[Background, Doc("does it look at the background; `null` without masks")]
    settings: Annotated[dict[str, Any], Doc("of the study")]
    model: Annotated[Model, Doc("as in `explain`")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]


class Head(TypedDict):
    head: Annotated[str, Doc("`linear`, `mlp` or `fixed`")]
    lost: Annotated[list[str], Doc("measures that are really worse behind it than before it")]
    gained: Annotated[list[str], Doc("measures that are really better")]
    n_compared: Annotated[Count, Doc("measures")]


class Settings2(TypedDict):
    n_seeds: Annotated[Count, Doc("draws of each subset")]
    level: Annotated[Share, Doc("of intervals")]
    seed: Annotated[int, Doc("of split and draws")]
    n_corrupted: Annotated[Count, Doc("test pictures that are corrupted, at most")]
    n_compared: Annotated[Count, Doc("comparisons corrected for")]
    classifier: Annotated[str, Doc("what was fitted")]
    objective: Annotated[str, Doc("trained with")]
    epochs: Annotated[int, Doc("times each picture was seen")]
    batch_size: Annotated[int, Doc("pictures at once")]


class StudyProjectionHeadOutput(TypedDict):
    """The object of seewhy study projection-head --json."""

    study: Literal["projection-head"]
    sentence: Annotated[str, Doc("what each head keeps and loses")]
    n: Annotated[Count, Doc("pictures")]
    n_learn: Annotated[Count, Doc("of them those learnt from")]
    n_test: Annotated[Count, Doc("of them those tested on")]
    n_groups: Annotated[Count, Doc("things that the pictures tested on show")]
    n_classes: Annotated[Count, Doc("classes")]
    encoders: Annotated[list[Encoder], Doc("the start, the one trained without a head")]
    standings: Annotated[list[Standing], Doc("by real differences won less those lost")]
    heads: Annotated[list[Head], Doc("each head")]
    measures: Annotated[list[Measure2], Doc("one table each")]
    settings: Annotated[Settings2, Doc("how it was asked")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]


StudyRealOrGeneratedOutput = MadeSetOutput | RealOrGeneratedOutput
"""The object of seewhy study real-or-generated --json."""


class Encoder2(TypedDict):
    name: Annotated[str, Doc("as it was given")]
    fingerprint: Annotated[str, Doc("digest of weights and transform, its beginning")]


class Classes2(TypedDict):
    learnt: Annotated[list[str], Doc("those learnt from pictures")]
    new: Annotated[list[str], Doc("those only named")]


class Standing2(TypedDict):
    method: Annotated[str, Doc("its name")]
    won: Annotated[Count, Doc("real differences in which it is better")]
    lost: Annotated[Count, Doc("in which it is worse")]
    compared: Annotated[Count, Doc("comparisons it is in")]


class Row2(TypedDict):
    method: Annotated[str, Doc("its name")]
    value: Annotated[float, Doc("mean over test pictures and draws, 0…1")]
    interval: Annotated[tuple[float, float], Doc("of test pictures and draws, at `settings.level`")]
    by_draw: Annotated[list[float], Doc("the value of each draw")]


class Measure3(TypedDict):
    measure: Annotated[str, Doc("`learnt classes` among themselves, `new classes` among themselves")]
    family: Annotated[str, Doc("pictures per class that were learnt from")]
    n: Annotated[Count, Doc("test pictures that were asked")]
    n_draws: Annotated[Count, Doc("draws of what was learnt from")]
    rows: Annotated[list[Row2], Doc("a row a method")]
    differences: Annotated[list[Difference2], Doc("every pair")]


class Settings3(TypedDict):
    n_seeds: Annotated[Count, Doc("draws of each subset")]
    level: Annotated[Share, Doc("of intervals")]
    seed: Annotated[int, Doc("of split and draws")]
    n_compared: Annotated[Count, Doc("comparisons corrected for")]
    shots: Annotated[list[int], Doc("pictures per class")]


class StudyBaseToNewOutput(TypedDict):
    """The object of seewhy study base-to-new --json."""

    study: Literal["base-to-new"]
    sentence: Annotated[str, Doc("what each method brings and costs at most pictures per class")]
    n: Annotated[Count, Doc("pictures")]
    n_learn: Annotated[Count, Doc("of them those of learnt classes that are drawn from")]
    n_test: Annotated[Count, Doc("of them those tested on")]
    n_groups: Annotated[Count, Doc("things that the pictures tested on show")]
    encoder: Annotated[Encoder2, Doc("what was adapted")]
    classes: Annotated[Classes2, Doc("in two halves")]
    methods: Annotated[list[str], Doc("those compared; `before` is the encoder as it was, told the names alone")]
    standings: Annotated[list[Standing2], Doc("by real differences won less those lost")]
    measures: Annotated[list[Measure3], Doc("one table each")]
    settings: Annotated[Settings3, Doc("how it was asked")]
    notes: Annotated[list[str], Doc("what the user should know")]
    failures: Annotated[Failures, Doc("pictures that could not be read")]
    report: Annotated[str | None, Doc("path of the page, or `null` without `-o`")]
