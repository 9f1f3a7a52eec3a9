"""Types of the JSON output of studies, checks, audits and drift tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import Failures, Model, Range
from ..explanation.result import Json, Result
from ..language.outputs import CorrectedOutput
from ..results import Count, Doc, Share

Rows = list[dict[str, Any]]
Verdict = Annotated[Literal["yes", "no", "undecided"], Doc("whether the model relies on the background")]
Sides = Annotated[list[int | None], Doc("smallest and largest number; `null` beyond the predicted range")]
OfModel = Annotated[Model, Doc("as in `explain`")]
NClasses = Annotated[Count, Doc("classes")]


class Study(TypedDict):
    """Fields of every study."""

    sentence: Annotated[str, Doc("the answer")]
    n: Annotated[Count, Doc("number of pictures")]
    settings: Annotated[dict[str, Any], Doc("settings of the study")]
    notes: Annotated[list[str], Doc("notes on the data and the results")]
    failures: Failures
    report: NotRequired[Annotated[str | None, Doc("the HTML page; `null` without `-o`")]]


class EncoderSeen(TypedDict):
    name: Annotated[str, Doc("name as given")]
    fingerprint: Annotated[str, Doc("first digits of the digest of weights and preprocessing")]
    width: NotRequired[Annotated[Count, Doc("number of features per picture")]]


class Figure(TypedDict):
    value: Annotated[float, Doc("the value")]
    interval: Annotated[Range, Doc("its interval, at the study's level")]


class MetricTable(TypedDict):
    metric: Annotated[str, Doc("name of the metric")]
    family: Annotated[str, Doc("what it measures")]
    higher_is_better: Annotated[bool, Doc("whether higher is better")]
    n: Annotated[Count, Doc("number of pictures")]
    rows: Annotated[
        Rows,
        Doc("for each `method`: whether it is a `control`, its `value` on `n` pictures with an `interval`, and for "
            "some metrics the mean value of its maps, `mean_map`"),
    ]  # fmt: skip
    differences: Annotated[
        Rows,
        Doc("for each method `a` and method or control `b`: the `difference` `a` minus `b` on `n` common pictures, its "
            "95 % `interval`, whether it is `real`, the `better` one, and whether `b` is a `control`"),
    ]  # fmt: skip
    settings: Annotated[dict[str, Any], Doc("settings of the metric")]


class StudyFaithfulnessOutput(Study):
    """JSON output of ``seewhy study faithfulness --json``."""

    study: Literal["faithfulness"]
    model: OfModel
    methods: Annotated[list[str], Doc("the methods, in the order shown")]
    controls: Annotated[list[str], Doc("maps that ignore the picture or the class")]
    ranking: Annotated[
        Rows,
        Doc("best first: each `method` with the number of real differences `won` and `lost`, the number `compared`, "
            "the metrics on which it was `judged` against the random map, and those on which it is better "
            "(`over_random`) or worse (`under_random`)"),
    ]  # fmt: skip
    same: Annotated[list[list[str]], Doc("groups of methods with equal maps")]
    metrics: Annotated[list[MetricTable], Doc("a table for each metric")]
    fills: Annotated[
        dict[str, float] | None, Doc("Kendall's tau between the orders of methods by deletion, for each pair of fills")
    ]


class BackgroundRow(TypedDict):
    label: Annotated[str, Doc("class, or `all pictures`")]
    n: Annotated[Count, Doc("number of pictures")]
    difference: Annotated[
        Figure, Doc("score on backgrounds of the same class minus score on other backgrounds, with Student's interval")
    ]
    versions: Annotated[
        Rows,
        Doc("for each `version` of the picture, from `original` to `object alone`: `accuracy` and `score` of the true "
            "class, both with `value`, `interval`, `change` from the original, and `change_interval`"),
    ]  # fmt: skip
    p_leans: Annotated[Share, Doc("one-sided p value for a difference above 0, corrected over all rows (Holm)")]
    p_leans_not: Annotated[Share, Doc("one-sided p value for a difference below 0.05, corrected over all rows (Holm)")]
    verdict: Verdict


class StudyBackgroundOutput(Study):
    """JSON output of ``seewhy study background --json``."""

    study: Literal["background"]
    n_fitted_on: Annotated[
        Count | None, Doc("number of pictures that the model was fitted on, or copies of these; `null` if unknown")
    ]
    verdict: Verdict
    all: Annotated[BackgroundRow, Doc("the row of all pictures")]
    classes: Annotated[list[BackgroundRow], Doc("a row for each class")]
    masks: Annotated[
        dict[str, Any],
        Doc("`source`, `by_hand`, and `area` covered; `check`: how much more the score falls when the object is filled "
            "than when an equal area elsewhere is filled, with one-sided `p` and `hit` if p is small; `boxes`: number "
            "`n`, share `covered` by masks, share of the masks `within` boxes"),
    ]  # fmt: skip
    rule: Annotated[str, Doc("the rule of the verdict")]
    left_out: Annotated[Failures, Doc("pictures without a usable mask")]
    classes_left_out: Annotated[list[str], Doc("classes with one usable picture")]
    model: OfModel


class StudyInterpretabilityOutput(Study):
    """JSON output of ``seewhy study interpretability --json``."""

    study: Literal["interpretability"]
    n_train: Annotated[Count, Doc("number of training pictures")]
    n_selection: Annotated[Count, Doc("pictures on which learning rate and epoch were chosen")]
    n_classes: NClasses
    chance: Annotated[Share, Doc("1 divided by the number of classes")]
    floor: Annotated[Share, Doc("smallest accuracy with all features for an encoder to be compared")]
    sparsities: Annotated[list[Share], Doc("share of the concepts left out")]
    encoders: Annotated[
        Rows,
        Doc("for each `encoder`: `fingerprint`, `width`, `accuracy` of a linear layer on all features, accuracy of ten "
            "nearest `neighbours` on the selection pictures, and whether it is `below_floor`"),
    ]  # fmt: skip
    rows: Annotated[
        Rows,
        Doc("for each `encoder` and `library`: encoder of the sentences (`words_of`), `n_concepts`, number of `draws`, "
            "`iis` (area under `arr`; 0.98 means no loss), `normalised` (by the range of sparsities), mean accuracy "
            "(`area`), difference from random directions (`less_random`), and `points`: for each `sparsity`, concepts "
            "`kept` per picture, different concepts `used`, `accuracy`, and `arr` (accuracy divided by the accuracy "
            "with all features)"),
    ]  # fmt: skip
    correlations: Annotated[
        Rows,
        Doc(
            "Spearman's `rho` over `n` encoders between `of` and `with`, with `given` held constant, and its `interval`"
        ),
    ]


class ComparedMeasure(TypedDict):
    measure: Annotated[str, Doc("the measure; higher is better")]
    family: Annotated[str, Doc("its heading")]
    n: Annotated[Count, Doc("number of test pictures")]
    n_draws: Annotated[Count, Doc("number of random draws of the training pictures")]
    rows: Annotated[
        Rows, Doc("for each `encoder` or `method`: `value`, `interval` at `settings.level`, and the values `by_draw`")
    ]
    differences: Annotated[
        Rows,
        Doc("for each pair: `difference` `a` minus `b` on the same pictures and draws, `interval`, two-sided `p`, "
            "`p_corrected` for all comparisons of the study (Holm), `real` if `p_corrected` is below 1 − level and at "
            "least 10 objects were tested, and the `better` one if it is real"),
    ]  # fmt: skip


class Comparison(Study):
    n_learn: Annotated[Count, Doc("number of training pictures")]
    n_test: Annotated[Count, Doc("number of test pictures")]
    n_groups: Annotated[Count, Doc("number of objects in the test pictures")]
    standings: Annotated[Rows, Doc("best first: number of real differences `won` and `lost`, and number `compared`")]
    measures: Annotated[list[ComparedMeasure], Doc("a table for each measure")]


class StudyTransferOutput(Comparison):
    """JSON output of ``seewhy study transfer --json``."""

    study: Literal["transfer"]
    n_classes: NClasses
    encoders: Annotated[list[EncoderSeen], Doc("the encoders, in the order given")]


class StudyBaseToNewOutput(Comparison):
    """JSON output of ``seewhy study base-to-new --json``."""

    study: Literal["base-to-new"]
    encoder: Annotated[EncoderSeen, Doc("the encoder adapted")]
    classes: Annotated[
        dict[Literal["learnt", "new"], list[str]],
        Doc("the classes with training pictures, and the classes with names only"),
    ]
    methods: Annotated[list[str], Doc("the methods; `before` is the original encoder with class names only")]


class Gap(TypedDict):
    difference: Annotated[float, Doc("accuracy minus the accuracy of the recommended method")]
    interval: Annotated[Range, Doc("95 % interval")]
    real: Annotated[bool, Doc("whether the interval excludes 0")]


class MethodCompared(TypedDict):
    method: Annotated[str, Doc("name")]
    encoder: Annotated[str, Doc("name")]
    accuracy: Annotated[Share, Doc("accuracy on the test pictures")]
    low: Annotated[Share, Doc("lower end of the 95 % interval of `accuracy`; `high` is the upper end")]
    high: Share
    calibration_error: Annotated[Share, Doc("expected calibration error")]
    seconds: Annotated[float, Doc("wall-clock time of the fit, summed over the runs that fitted it")]
    processor_seconds: Annotated[float, Doc("processor time of the fit, over all cores and these runs")]
    milliseconds: Annotated[float, Doc("time per prediction from a file, in batches")]
    believable_where: NotRequired[Annotated[Share, Doc("share of the explained pictures with a believable heat map")]]
    believable_like: NotRequired[Annotated[Share, Doc("share with believable similar pictures")]]
    believable_words: NotRequired[Annotated[Share, Doc("share with believable descriptions")]]
    against: Annotated[Gap | None, Doc("difference from the recommended method; `null` for this method")]
    pareto: Annotated[bool, Doc("whether the method is Pareto-optimal in accuracy and prediction time")]


class StudyCompareOutput(Study):
    """JSON output of ``seewhy study compare --json``."""

    study: Literal["compare"]
    n_learn: Annotated[Count, Doc("number of training pictures")]
    n_test: Annotated[Count, Doc("number of test pictures")]
    n_classes: NClasses
    recommended: Annotated[str, Doc("recommended method")]
    encoder: Annotated[str, Doc("encoder of the recommended method")]
    expected_accuracy: Annotated[
        Share, Doc("accuracy on one half of the test pictures of the method chosen on the other half")
    ]
    seconds: Annotated[float, Doc("wall-clock time of the comparison, summed over its runs")]
    n_runs: Annotated[Count, Doc("number of runs: 1, and 1 more each time that it was continued")]
    rows: Annotated[list[MethodCompared], Doc("the fitted methods")]
    skipped: Annotated[list[dict[str, str]], Doc("the other methods: `method`, `encoder`, and the reason `skipped`")]


class ClaimMeasured(TypedDict):
    name: Annotated[str, Doc("name for `--only`")]
    claim: Annotated[str, Doc("the claim, in a sentence")]
    paper: Annotated[str, Doc("authors, year, arXiv number")]
    figure: Annotated[str, Doc("the paper's result and its place in the paper; empty if none was verified")]
    difference: Annotated[float, Doc("our difference; the claim says that it is above 0")]
    interval: Annotated[Range, Doc("its 95 % interval")]
    measured: Annotated[str, Doc("the numbers that were compared")]
    n: Annotated[Count, Doc("number of pictures")]
    effect: Annotated[float, Doc("the paper's difference, or 0; if the interval ends below it, the claim is not shown")]
    verdict: Annotated[Literal["shown", "too small to tell", "not shown"], Doc("verdict by the rule")]


class StudyClaimsOutput(Study):
    """JSON output of ``seewhy study claims --json``."""

    study: Literal["claims"]
    n_test: Annotated[Count, Doc("test pictures")]
    n_classes: NClasses
    encoder: Annotated[EncoderSeen, Doc("the encoder")]
    claims: Annotated[list[ClaimMeasured], Doc("the tested claims")]
    left_out: Annotated[list[dict[str, str]], Doc("the other claims: `name`, `claim` and `reason`")]
    command: Annotated[str, Doc("the command; empty from Python")]
    version: Annotated[str, Doc("version of SeeWhy")]


class ScalingAnswer(TypedDict):
    kind: Annotated[Literal["more", "enough", "open", "unlikely", "far", "unreachable"], Doc("kind of the answer")]
    level: Annotated[Share, Doc("level of the interval")]
    more: Annotated[Sides, Doc("number of additional pictures, from and to; `null` beyond the predicted range")]
    needed: Annotated[Sides, Doc("total number of training pictures, from and to")]
    median: Annotated[Count | None, Doc("median total number of training pictures")]
    reached_within: Annotated[Share, Doc("share of the resamples that reach the target by `most` pictures")]
    most: Annotated[Count, Doc("largest predicted number of pictures")]


class Drawn(TypedDict):
    value: Annotated[float, Doc("value on the measured pictures")]
    interval_90: Annotated[Range, Doc("90 % interval")]
    interval_95: Annotated[Range, Doc("95 % interval")]


class CurvePoint(TypedDict):
    n: Annotated[float, Doc("number of training pictures")]
    accuracy: Annotated[Share, Doc("mean over seeds, or median over resamples")]
    by_seed: NotRequired[list[float]]
    interval_90: Annotated[Range, Doc("90 % interval")]
    interval_95: NotRequired[Annotated[Range, Doc("95 % interval")]]


class ScalingArm(TypedDict):
    name: Annotated[str, Doc("name in tables")]
    encoder: Annotated[str, Doc("the encoder")]
    noise: Annotated[Share, Doc("share of the labels that were made wrong")]
    n_classes: Annotated[Count | None, Doc("number of classes; `null` for all")]
    points: Annotated[list[CurvePoint], Doc("accuracy by size")]
    slope: Annotated[Drawn, Doc("gain in accuracy per doubling over the measured sizes")]
    floor: Annotated[Drawn, Doc("error for infinitely many pictures")]
    form: Annotated[str, Doc("form of the curve that predicts larger sizes best")]
    forms: Annotated[
        Rows,
        Doc("best first: `name`, `formula`, `paper`, parameters (`numbers`), relative `held_out_error` at `n_held_out` "
            "larger sizes, `share` of the resamples, number of failed fits (`n_failed`) of `n_fits`"),
    ]  # fmt: skip
    predictions: Annotated[list[CurvePoint], Doc("predictions beyond the measured sizes")]
    band: Annotated[list[CurvePoint], Doc("points of the curve, for a plot")]
    against: Annotated[
        dict[str, Any] | None,
        Doc("difference from the first curve: `accuracy`, `slope`, `worth` of a picture, and number of resamples "
            "without an answer (`n_beyond`); `null` for the first"),
    ]  # fmt: skip


class StudyScalingOutput(Study):
    """JSON output of ``seewhy study scaling --json``."""

    study: Literal["scaling"]
    target: Annotated[Share | None, Doc("the wanted accuracy, or `null`")]
    answer: Annotated[ScalingAnswer | None, Doc("how many more pictures; `null` without a target")]
    tested_range: Annotated[list[int], Doc("smallest and largest number of training pictures")]
    n_have: Annotated[Count, Doc("number of available training pictures")]
    n_test: Annotated[Count, Doc("number of test pictures")]
    n_classes: NClasses
    classifier: Annotated[str, Doc("the classifier fitted")]
    arms: Annotated[list[ScalingArm], Doc("the curves; the first one gives the answer")]
    model: Annotated[dict[Literal["encoder", "fingerprint"], str], Doc("the encoder")]


@dataclass(frozen=True)
class Like(Result):
    """A similar picture and its cosine."""

    image: Annotated[str, Doc("its file name")]
    label: Annotated[str, Doc("its label")]
    cosine: Annotated[float, Doc("cosine of the features of both pictures")]


@dataclass(frozen=True)
class Likes(Result):
    own: Annotated[tuple[Like, ...], Doc("the nearest pictures with the same label, without copies")] = ()
    other: Annotated[tuple[Like, ...], Doc("the nearest pictures with the proposed label")] = ()


@dataclass(frozen=True)
class Finding(Result):
    """A fault of a picture."""

    kind: Annotated[str, Doc("kind of fault, as in `counts`")]
    image: Annotated[str, Doc("the picture")]
    label: Annotated[str, Doc("its label")]
    key: Annotated[str, Doc("first 16 digits of the SHA-256 of the file; empty if it cannot be read")]
    why: Annotated[str, Doc("the reason, in a sentence")]
    figures: Annotated[str, Doc("further numbers, in words; may be empty")] = ""
    proposed: Annotated[str | None, Doc("another label, or `null`")] = None
    doubt: Annotated[Share, Doc("degree of doubt, comparable within a kind")] = 1.0
    pictures: Annotated[tuple[str, ...], Doc("related pictures, such as copies"), Json("with")] = ()
    splits: Annotated[
        tuple[str, ...], Doc("for copies in different splits of a table: the splits of both pictures")
    ] = ()
    like: Annotated[Likes, Doc("the nearest pictures")] = Likes()


class CheckedOutput(Study):
    """JSON output of ``seewhy check --json``."""

    classes: Annotated[list[str], Doc("labels of the data")]
    accuracy: Annotated[
        Share | None,
        Doc("cross-validated accuracy: share of the checked labels that a model trained without the picture predicts"),
    ]
    judged: Annotated[Count, Doc("number of checked labels; classes with one picture cannot be checked")]
    digest: Annotated[str, Doc("SHA-256 of the pictures' names and labels")]
    counts: Annotated[dict[str, Count], Doc("number of findings of each kind")]
    copies_across: Annotated[Rows, Doc("number `n` of copies between two `splits` of a table")]
    findings: Annotated[list[Finding], Doc("findings by kind, most doubtful first")]


CheckOutput = CorrectedOutput | CheckedOutput
"""JSON output of ``seewhy check --json``, with or without ``--export``."""


class AuditFigure(TypedDict):
    name: Annotated[str, Doc("name in contracts")]
    title: Annotated[str, Doc("title of the metric")]
    state: Annotated[Literal["pass", "fail", "not measured"], Doc("whether the value is within the limit")]
    broken: Annotated[
        bool, Doc("whether the contract is broken: the metric is required, and failed or was not measured")
    ]
    value: Annotated[float | None, Doc("value of the metric; `null` if not measured")]
    interval: Annotated[Range | None, Doc("95 % interval; `null` for metrics without one")]
    n: Annotated[Count, Doc("number of pictures or cards measured")]
    judged: Annotated[float | None, Doc("the number compared with the limit")]
    judged_by: Annotated[str, Doc("which number is compared, and its value with enough digits")]
    limit: Annotated[
        dict[str, Any], Doc("the limit in the contract: `side`, `value`, `bound`, `required`, and smallest `level`")
    ]
    asked: Annotated[str, Doc("the limit in words")]
    meaning: Annotated[str, Doc("the result in words, or why it was not measured")]


class AuditOutput(Study):
    """JSON output of ``seewhy evaluate --contract --json``."""

    audit: Annotated[Literal["pass", "fail"], Doc("`fail` if any required metric fails or was not measured")]
    figures: Annotated[list[AuditFigure], Doc("the metrics of the contract")]
    groups: Annotated[
        Rows | None,
        Doc("with `--group`, for each `group`: `n`, `accuracy`, accuracy on all others (`accuracy_rest`), their "
            "difference `gap` (`null` for small groups) with Newcombe's `interval` (Bonferroni), and Fisher's `p` "
            "(Holm)"),
    ]  # fmt: skip
    copies: Annotated[
        Rows | None,
        Doc(
            "pictures that the model was fitted on: `image`, training picture `fitted_on`, `same_bytes`, and "
            "`agreement`"
        ),
    ]
    place: Annotated[
        dict[str, Any] | None,
        Doc("the place of the frame that was swapped: `boxes`, `share` of the heat, share of decisions `changed` and "
            "`changed_elsewhere`; `null` if not measured"),
    ]  # fmt: skip
    contract: Annotated[str, Doc("source of the limits")]
    model: OfModel


class DriftOutput(Study):
    """JSON output of ``seewhy evaluate --against --json``."""

    drift: Annotated[Literal["yes", "no"], Doc("whether p is below alpha")]
    n_known: Annotated[Count, Doc("number of training pictures")]
    n_fitted_on: Annotated[Count, Doc("number of new pictures whose file is a training picture")]
    p: Annotated[Share, Doc("p value of the permutation test")]
    energy: Annotated[float, Doc("energy distance between new and training pictures")]
    far: Annotated[
        dict[str, Any],
        Doc("share of the pictures that are unlike the training pictures (`value`), `interval`, and `expected` share"),
    ]
    classes: Annotated[
        Rows,
        Doc("most changed first: `label`, number `n` and `share` of predictions, `expected` share, and Fisher's `p`, "
            "corrected over all classes (Holm)"),
    ]  # fmt: skip
    pictures: Annotated[
        Rows,
        Doc("up to 50, most unusual first: `image`, predicted `label`, mean `cosine` with the nearest training "
        "pictures, whether it is `far` (unlike them), and the `nearest` of them"),
    ]  # fmt: skip
    model: OfModel
