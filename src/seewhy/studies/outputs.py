"""Types of the JSON that studies, checks, audits and drift print."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import Failures, Model, Range
from ..language.outputs import CorrectedOutput
from ..results import Count, Doc, Share

Rows = list[dict[str, Any]]
Verdict = Annotated[Literal["yes", "no", "undecided"], Doc("whether the model relies on the background")]
Sides = Annotated[list[int | None], Doc("fewest and most; `null` beyond the predicted range")]
OfModel = Annotated[Model, Doc("as in `explain`")]
NClasses = Annotated[Count, Doc("classes")]


class Study(TypedDict):
    """Fields that every study prints."""

    sentence: Annotated[str, Doc("the answer")]
    n: Annotated[Count, Doc("number of pictures")]
    settings: Annotated[dict[str, Any], Doc("settings of the study")]
    notes: Annotated[list[str], Doc("what else the reader should know")]
    failures: Failures
    report: NotRequired[Annotated[str | None, Doc("the HTML page; `null` without `-o`")]]


class EncoderSeen(TypedDict):
    name: Annotated[str, Doc("name as given")]
    fingerprint: Annotated[str, Doc("beginning of the digest of weights and preprocessing")]
    width: NotRequired[Annotated[Count, Doc("numbers per picture")]]


class Figure(TypedDict):
    value: Annotated[float, Doc("the number")]
    interval: Annotated[Range, Doc("its interval, at the study's level")]


class MetricTable(TypedDict):
    metric: Annotated[str, Doc("name of the metric")]
    family: Annotated[str, Doc("what it measures")]
    higher_is_better: Annotated[bool, Doc("whether higher is better")]
    n: Annotated[Count, Doc("number of pictures")]
    rows: Annotated[
        Rows,
        Doc("for each `method`: whether it is a `control`, its `value` on `n` pictures with an "
"`interval`, and for some metrics that of the `mean_map`"),
    ]  # fmt: skip
    differences: Annotated[
        Rows,
        Doc("for every pair `a`, `b` that includes a method: `a` minus `b` on their `n` common "
"pictures, its 95 % `interval`, whether it is `real`, and the `better`; `control` says "
"whether `b` is one"),
    ]  # fmt: skip
    settings: Annotated[dict[str, Any], Doc("settings of the metric")]


class StudyFaithfulnessOutput(Study):
    """The JSON object that ``seewhy study faithfulness --json`` prints."""

    study: Literal["faithfulness"]
    model: OfModel
    methods: Annotated[list[str], Doc("the methods, in the order shown")]
    controls: Annotated[list[str], Doc("maps that ignore the picture or the class")]
    ranking: Annotated[
        Rows,
        Doc("best first: each `method` with real differences `won` and `lost` of those `compared`, "
"and the metrics on which it was `judged` against the random map and is really "
"`over_random` or `under_random`"),
    ]  # fmt: skip
    same: Annotated[list[list[str]], Doc("groups of methods with equal maps")]
    metrics: Annotated[list[MetricTable], Doc("a table for each metric")]
    fills: Annotated[dict[str, float] | None, Doc("for two fills of deletion, Kendall's tau of the methods' order")]


class BackgroundRow(TypedDict):
    label: Annotated[str, Doc("class, or `all pictures`")]
    n: Annotated[Count, Doc("number of pictures")]
    difference: Annotated[Figure, Doc("score on backgrounds of the same class less that on others; Student's")]
    versions: Annotated[
        Rows,
        Doc("each `version` of the picture, from `original` to `object alone`: its `accuracy` and the true class's "
            "`score`, both with `value`, `interval`, and the `change` from the original with its `change_interval`"),
    ]  # fmt: skip
    p_leans: Annotated[Share, Doc("p value for a difference above 0, one-sided, corrected over all rows (Holm)")]
    p_leans_not: Annotated[Share, Doc("p value for a difference below 0.05, one-sided, corrected likewise")]
    verdict: Verdict


class StudyBackgroundOutput(Study):
    """The JSON object that ``seewhy study background --json`` prints."""

    study: Literal["background"]
    verdict: Verdict
    all: Annotated[BackgroundRow, Doc("the row of all pictures")]
    classes: Annotated[list[BackgroundRow], Doc("a row for each class")]
    masks: Annotated[
        dict[str, Any],
        Doc("their `source`, whether `by_hand`, the `area` that they cover; `check`: by how much more the score falls "
            "when the object is filled than when as much elsewhere is, with one-sided `p`, and `hit` where that is "
            "small; `boxes`: `n`, part `covered` by masks, part of masks `within`"),
    ]  # fmt: skip
    rule: Annotated[str, Doc("the rule of the verdict")]
    left_out: Annotated[Failures, Doc("pictures without a usable mask")]
    classes_left_out: Annotated[list[str], Doc("classes with one usable picture")]
    model: OfModel


class StudyInterpretabilityOutput(Study):
    """The JSON object that ``seewhy study interpretability --json`` prints."""

    study: Literal["interpretability"]
    n_train: Annotated[Count, Doc("pictures trained on")]
    n_selection: Annotated[Count, Doc("pictures on which learning rate and epoch were chosen")]
    n_classes: NClasses
    chance: Annotated[Share, Doc("1 divided by the number of classes")]
    floor: Annotated[Share, Doc("least accuracy of all features for an encoder to take part")]
    sparsities: Annotated[list[Share], Doc("share of the concepts left out")]
    encoders: Annotated[
        Rows,
        Doc("each `encoder` with `fingerprint` and `width`, `accuracy` of a linear layer on all "
"features, accuracy of the ten nearest training `neighbours` on the selection pictures, "
"and whether it is `below_floor`"),
    ]  # fmt: skip
    rows: Annotated[
        Rows,
        Doc("for every `encoder` and `library` (`words_of` an encoder; `n_concepts`; averaged over "
"`draws`): `iis`, the area under `arr` over the sparsities (0.98 means no loss), "
"`normalised` by their range, mean accuracy (`area`), paired difference `less_random`, "
"and `points`: for each `sparsity`, the concepts `kept` per picture, the different ones "
"`used`, `accuracy`, and `arr`, that divided by the accuracy of all features"),
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
    n_draws: Annotated[Count, Doc("random draws of the training pictures")]
    rows: Annotated[
        Rows, Doc("for each `encoder` or `method`: its `value`, `interval` at `settings.level`, and values `by_draw`")
    ]
    differences: Annotated[
        Rows,
        Doc("for every pair: `a` minus `b` on the same pictures and draws, `interval`, two-sided `p`,"
" `p_corrected` for all comparisons of the study (Holm), `real` if that is below 1 − "
"level and at least 10 objects were tested, and then the `better`"),
    ]  # fmt: skip


class Comparison(Study):
    n_learn: Annotated[Count, Doc("pictures learnt from")]
    n_test: Annotated[Count, Doc("pictures tested on")]
    n_groups: Annotated[Count, Doc("objects on the test pictures")]
    standings: Annotated[Rows, Doc("best first: real differences `won` and `lost` of those `compared`")]
    measures: Annotated[list[ComparedMeasure], Doc("a table for each measure")]


class StudyTransferOutput(Comparison):
    """The JSON object that ``seewhy study transfer --json`` prints."""

    study: Literal["transfer"]
    n_classes: NClasses
    encoders: Annotated[list[EncoderSeen], Doc("the encoders, in the order given")]


class StudyBaseToNewOutput(Comparison):
    """The JSON object that ``seewhy study base-to-new --json`` prints."""

    study: Literal["base-to-new"]
    encoder: Annotated[EncoderSeen, Doc("the encoder adapted")]
    classes: Annotated[
        dict[Literal["learnt", "new"], list[str]], Doc("the classes learnt from pictures, and those only named")
    ]
    methods: Annotated[list[str], Doc("the methods; `before` is the old encoder with the names alone")]


class Gap(TypedDict):
    difference: Annotated[float, Doc("in accuracy, from the recommended one")]
    interval: Annotated[Range, Doc("95 %")]
    real: Annotated[bool, Doc("whether the interval leaves out 0")]


class MethodCompared(TypedDict):
    method: Annotated[str, Doc("name")]
    encoder: Annotated[str, Doc("name")]
    accuracy: Annotated[Share, Doc("of the test pictures")]
    low: Annotated[Share, Doc("its 95 % interval, with `high`")]
    high: Share
    calibration_error: Annotated[Share, Doc("expected calibration error")]
    seconds: Annotated[float, Doc("to fit, by the clock")]
    processor_seconds: Annotated[float, Doc("to fit, of all cores")]
    milliseconds: Annotated[float, Doc("to decide on one picture from its file, in batches")]
    believable_where: NotRequired[Annotated[Share, Doc("part of the explained pictures whose heat is believable")]]
    believable_like: NotRequired[Annotated[Share, Doc("whose similar pictures are")]]
    believable_words: NotRequired[Annotated[Share, Doc("whose words are")]]
    against: Annotated[Gap | None, Doc("the recommended one; `null` for itself")]
    pareto: Annotated[bool, Doc("whether no other is both as accurate and as cheap to decide with")]


class StudyCompareOutput(Study):
    """The object of seewhy study compare --json."""

    study: Literal["compare"]
    n_learn: Annotated[Count, Doc("of them those learnt from")]
    n_test: Annotated[Count, Doc("of them those tested on")]
    n_classes: NClasses
    recommended: Annotated[str, Doc("a method")]
    encoder: Annotated[str, Doc("its encoder")]
    expected_accuracy: Annotated[Share, Doc("of the method chosen on one half of the test pictures, on the other half")]
    rows: Annotated[list[MethodCompared], Doc("each that was fitted")]
    skipped: Annotated[list[dict[str, str]], Doc("`method` and `encoder` of the others, and why, as `skipped`")]


class ClaimMeasured(TypedDict):
    name: Annotated[str, Doc("name for `--only`")]
    claim: Annotated[str, Doc("the claim, in a sentence")]
    paper: Annotated[str, Doc("authors, year, arXiv number")]
    figure: Annotated[str, Doc("the paper's figure and where it is; empty if none was verified")]
    difference: Annotated[float, Doc("our difference; the claim says that it is above 0")]
    interval: Annotated[Range, Doc("its 95 % interval")]
    measured: Annotated[str, Doc("the numbers that were compared")]
    n: Annotated[Count, Doc("number of pictures")]
    effect: Annotated[
        float, Doc("the paper's difference, otherwise 0: if the interval ends below it, the claim is not shown")
    ]
    verdict: Annotated[Literal["shown", "too small to tell", "not shown"], Doc("verdict by the rule")]


class StudyClaimsOutput(Study):
    """The JSON object that ``seewhy study claims --json`` prints."""

    study: Literal["claims"]
    n_test: Annotated[Count, Doc("test pictures")]
    n_classes: NClasses
    encoder: Annotated[EncoderSeen, Doc("the encoder")]
    claims: Annotated[list[ClaimMeasured], Doc("each claim that could be measured")]
    left_out: Annotated[list[dict[str, str]], Doc("the other claims: `name`, `claim` and `reason`")]
    command: Annotated[str, Doc("the command; empty from Python")]
    version: Annotated[str, Doc("version of SeeWhy")]


class ScalingAnswer(TypedDict):
    kind: Annotated[Literal["more", "enough", "open", "unlikely", "far", "unreachable"], Doc("kind of the answer")]
    level: Annotated[Share, Doc("level of the interval")]
    more: Annotated[Sides, Doc("additional pictures, fewest and most; `null` beyond what is predicted")]
    needed: Annotated[Sides, Doc("the same, as the total number of training pictures")]
    median: Annotated[Count | None, Doc("median of the same")]
    reached_within: Annotated[Share, Doc("share of the draws that reach the target by then")]
    most: Annotated[Count, Doc("largest number of pictures predicted for")]


class Drawn(TypedDict):
    value: Annotated[float, Doc("value on the measured pictures")]
    interval_90: Annotated[Range, Doc("90 % interval")]
    interval_95: Annotated[Range, Doc("95 % interval")]


class CurvePoint(TypedDict):
    n: Annotated[float, Doc("training pictures")]
    accuracy: Annotated[Share, Doc("mean over seeds, or median over draws")]
    by_seed: NotRequired[list[float]]
    interval_90: Annotated[Range, Doc("90 % interval")]
    interval_95: NotRequired[Annotated[Range, Doc("95 % interval")]]


class ScalingArm(TypedDict):
    name: Annotated[str, Doc("name in tables")]
    encoder: Annotated[str, Doc("the encoder")]
    noise: Annotated[Share, Doc("share of the labels made wrong")]
    n_classes: Annotated[Count | None, Doc("number of classes; `null` for all")]
    points: Annotated[list[CurvePoint], Doc("accuracy by size")]
    slope: Annotated[Drawn, Doc("gain in accuracy per doubling, over the sizes measured")]
    floor: Annotated[Drawn, Doc("error that no number of pictures undercuts")]
    form: Annotated[str, Doc("the curve that predicts larger sizes best")]
    forms: Annotated[
        Rows,
        Doc("best first: `name`, `formula`, `paper`, its `numbers`, relative `held_out_error` at `n_held_out` larger "
            "sizes, `share` of the draws, `n_failed` of `n_fits`"),
    ]  # fmt: skip
    predictions: Annotated[list[CurvePoint], Doc("predictions beyond the sizes measured")]
    band: Annotated[list[CurvePoint], Doc("points of the curve, for a plot")]
    against: Annotated[
        dict[str, Any] | None,
        Doc("difference from the first curve: `accuracy`, `slope`, `worth` of a picture, and "
"`n_beyond` draws without an answer; `null` for the first"),
    ]  # fmt: skip


class StudyScalingOutput(Study):
    """The JSON object that ``seewhy study scaling --json`` prints."""

    study: Literal["scaling"]
    target: Annotated[Share | None, Doc("the wanted accuracy, or `null`")]
    answer: Annotated[ScalingAnswer | None, Doc("how many more pictures; `null` without a target")]
    tested_range: Annotated[list[int], Doc("smallest and largest number of training pictures")]
    n_have: Annotated[Count, Doc("training pictures that there are already")]
    n_test: Annotated[Count, Doc("pictures tested on")]
    n_classes: NClasses
    classifier: Annotated[str, Doc("the classifier fitted")]
    arms: Annotated[list[ScalingArm], Doc("the curves; the first one gives the answer")]
    model: Annotated[dict[Literal["encoder", "fingerprint"], str], Doc("the encoder")]


class Like(TypedDict):
    image: Annotated[str, Doc("its file name")]
    label: Annotated[str, Doc("its label")]
    cosine: Annotated[float, Doc("cosine of their features")]


class Likes(TypedDict):
    own: Annotated[list[Like], Doc("the nearest pictures of its own label, without copies")]
    other: Annotated[list[Like], Doc("the nearest pictures of the proposed label")]


Finding = TypedDict(
    "Finding",
    {
        "kind": Annotated[str, Doc("what is wrong, as in `counts`")],
        "image": Annotated[str, Doc("the picture")],
        "label": Annotated[str, Doc("its label")],
        "key": Annotated[str, Doc("first 16 digits of the SHA-256 of its bytes; empty where it cannot be read")],
        "doubt": Annotated[Share, Doc("how doubtful, within its kind")],
        "why": Annotated[str, Doc("the reason, in a sentence")],
        "figures": NotRequired[Annotated[str, Doc("the numbers behind it, in words; empty where `why` has all")]],
        "proposed": Annotated[str | None, Doc("another label, where there is one, else `null`")],
        "with": Annotated[list[str], Doc("other pictures concerned, such as its copies")],
        "splits": Annotated[list[str], Doc("for a copy across splits of one table: its own split and the other's")],
        "like": Annotated[Likes, Doc("the nearest pictures")],
    },
)


class CheckedOutput(Study):
    """The JSON object that ``seewhy check --json`` prints."""

    classes: Annotated[list[str], Doc("labels of the data")]
    accuracy: Annotated[
        Share | None, Doc("share of the judged labels that a model trained without the picture agrees with")
    ]
    judged: Annotated[Count, Doc("pictures whose label could be judged; a class of one picture cannot")]
    digest: Annotated[str, Doc("SHA-256 of the pictures' names and labels")]
    counts: Annotated[dict[str, Count], Doc("number of findings of each kind")]
    copies_across: Annotated[Rows, Doc("`n` copies between two `splits` of a table")]
    findings: Annotated[list[Finding], Doc("findings by kind, most doubtful first")]


CheckOutput = CorrectedOutput | CheckedOutput
"""The JSON object that ``seewhy check --json`` prints; with ``--export``, that of the corrected table."""


class AuditFigure(TypedDict):
    name: Annotated[str, Doc("name in contracts")]
    title: Annotated[str, Doc("name in words")]
    state: Annotated[Literal["pass", "fail", "not measured"], Doc("whether its limit is kept")]
    broken: Annotated[bool, Doc("whether it breaks the contract: required, and exceeded or not measured")]
    value: Annotated[float | None, Doc("the figure; `null` if not measured")]
    interval: Annotated[Range | None, Doc("95 % interval; `null` for a complete count")]
    n: Annotated[Count, Doc("number of what it was measured on")]
    judged: Annotated[float | None, Doc("the number compared with the limit")]
    judged_by: Annotated[str, Doc("which number that is, with enough digits to distinguish it from the limit")]
    limit: Annotated[
        dict[str, Any],
        Doc("the limit in the contract: its `side`, `value`, `bound`, whether it is `required`, and the least `level`"),
    ]
    asked: Annotated[str, Doc("the limit in words")]
    meaning: Annotated[str, Doc("what the figure means, or why it was not measured")]


class AuditOutput(Study):
    """The JSON object that ``seewhy evaluate --contract --json`` prints."""

    audit: Annotated[Literal["pass", "fail"], Doc("whether the contract is kept")]
    figures: Annotated[list[AuditFigure], Doc("each figure of the contract")]
    groups: Annotated[
        Rows | None,
        Doc("with `--group`, each `group`: `n`, `accuracy`, `accuracy_rest` on all others, their "
"`gap` (`null` if too small) with Newcombe's `interval` for all groups together, and "
"Fisher's `p`, corrected (Holm)"),
    ]  # fmt: skip
    copies: Annotated[
        Rows | None,
        Doc(
            "pictures that the model was fitted on: `image`, `fitted_on`, whether they have the "
            "`same_bytes`, `agreement`"
        ),
    ]
    place: Annotated[
        dict[str, Any] | None,
        Doc("the place of the frame that was exchanged: its `boxes`, `share` of the heat, decisions "
"`changed` there and `changed_elsewhere`; `null` if not measured"),
    ]  # fmt: skip
    contract: Annotated[str, Doc("source of the limits")]
    model: OfModel


class DriftOutput(Study):
    """The JSON object that ``seewhy evaluate --against --json`` prints."""

    drift: Annotated[Literal["yes", "no"], Doc("whether p is below alpha")]
    n_known: Annotated[Count, Doc("training pictures")]
    p: Annotated[Share, Doc("probability of a difference as large by chance")]
    energy: Annotated[float, Doc("energy distance, 0 where both sides are alike")]
    far: Annotated[
        dict[str, Any],
        Doc("share of the pictures that are unlike training, its `interval`, and the `expected` share"),
    ]
    classes: Annotated[
        Rows,
        Doc("the most changed first: `label`, `n` predicted, their `share`, the `expected` share, Fisher's `p`, "
            "corrected over all classes (Holm)"),
    ]  # fmt: skip
    pictures: Annotated[
        Rows,
        Doc("the strangest first, 50 at most: `image`, predicted `label`, mean `cosine` with the most similar training "
            "pictures, whether it is `far` (unlike them), and the `nearest` of them"),
    ]  # fmt: skip
    model: OfModel
