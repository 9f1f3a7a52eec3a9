"""The JSON that studies, checks, audits and drift answer with, as types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import Failures, Model, Range
from ..language.outputs import CorrectedOutput
from ..results import Count, Doc, Share

Rows = list[dict[str, Any]]
Verdict = Annotated[Literal["yes", "no", "undecided"], Doc("whether it leans on the background")]
Sides = Annotated[list[int | None], Doc("fewest and most; `null` beyond what is predicted")]
OfModel = Annotated[Model, Doc("as in `explain`")]
NClasses = Annotated[Count, Doc("classes")]


class Study(TypedDict):
    """What every study says."""

    sentence: Annotated[str, Doc("the answer")]
    n: Annotated[Count, Doc("pictures")]
    settings: Annotated[dict[str, Any], Doc("how it was asked")]
    notes: Annotated[list[str], Doc("what else the reader should know")]
    failures: Failures
    report: NotRequired[Annotated[str | None, Doc("the page that was written; `null` without `-o`")]]


class EncoderSeen(TypedDict):
    name: Annotated[str, Doc("as it was given")]
    fingerprint: Annotated[str, Doc("digest of weights and transform, its beginning")]
    width: NotRequired[Annotated[Count, Doc("numbers a picture")]]


class Figure(TypedDict):
    value: Annotated[float, Doc("the number")]
    interval: Annotated[Range, Doc("at the study's level")]


class MetricTable(TypedDict):
    metric: Annotated[str, Doc("its name here")]
    family: Annotated[str, Doc("what it measures")]
    higher_is_better: Annotated[bool, Doc("or lower")]
    n: Annotated[Count, Doc("pictures")]
    rows: Annotated[
        Rows,
        Doc("of each `method`, whether it is a `control`: its `value` on `n` pictures with an `interval`, and where a "
            "metric has it that of the `mean_map`"),
    ]  # fmt: skip
    differences: Annotated[
        Rows,
        Doc("every pair `a`, `b` with a method in it: `a` less `b` on the `n` pictures of both, its 95 % `interval`, "
            "whether it is `real`, and the `better`; `control` says that `b` is one"),
    ]  # fmt: skip
    settings: Annotated[dict[str, Any], Doc("the metric's")]


class StudyFaithfulnessOutput(Study):
    """The object of seewhy study faithfulness --json."""

    study: Literal["faithfulness"]
    model: OfModel
    methods: Annotated[list[str], Doc("in the order shown")]
    controls: Annotated[list[str], Doc("maps that know nothing of the picture or the class")]
    ranking: Annotated[
        Rows,
        Doc("best first: each `method` with real differences `won` and `lost` of those `compared`, and the metrics on "
            "which it was `judged` against the random map, and is really `over_random` or `under_random`"),
    ]  # fmt: skip
    same: Annotated[list[list[str]], Doc("methods whose maps were the same, in groups")]
    metrics: Annotated[list[MetricTable], Doc("a table for each metric")]
    fills: Annotated[dict[str, float] | None, Doc("two fills of deletion → Kendall's tau of the methods' order")]


class BackgroundRow(TypedDict):
    label: Annotated[str, Doc("class, or `all pictures`")]
    n: Annotated[Count, Doc("pictures")]
    difference: Annotated[Figure, Doc("score on backgrounds of the same class less that on others; Student's")]
    versions: Annotated[
        Rows,
        Doc("each `version` of the picture, from `original` to `object alone`: its `accuracy` and the true class's "
            "`score`, both with `value`, `interval`, and the `change` from the original with its `change_interval`"),
    ]  # fmt: skip
    p_leans: Annotated[Share, Doc("of any difference above 0, one-sided, corrected over all rows (Holm)")]
    p_leans_not: Annotated[Share, Doc("of a difference of 0.05, one-sided, corrected likewise")]
    verdict: Verdict


class StudyBackgroundOutput(Study):
    """The object of seewhy study background --json."""

    study: Literal["background"]
    verdict: Verdict
    all: Annotated[BackgroundRow, Doc("all pictures")]
    classes: Annotated[list[BackgroundRow], Doc("each class")]
    masks: Annotated[
        dict[str, Any],
        Doc("their `source`, whether `by_hand`, the `area` that they cover; `check`: by how much more the score falls "
            "when the object is filled than when as much elsewhere is, with one-sided `p`, and `hit` where that is "
            "small; `boxes`: `n`, part `covered` by masks, part of masks `within`"),
    ]  # fmt: skip
    rule: Annotated[str, Doc("what makes a verdict")]
    left_out: Annotated[Failures, Doc("pictures without a usable mask")]
    classes_left_out: Annotated[list[str], Doc("classes with one usable picture")]
    model: OfModel


class StudyInterpretabilityOutput(Study):
    """The object of seewhy study interpretability --json."""

    study: Literal["interpretability"]
    n_train: Annotated[Count, Doc("pictures trained on")]
    n_selection: Annotated[Count, Doc("pictures that learning rate and epoch were chosen on")]
    n_classes: NClasses
    chance: Annotated[Share, Doc("one by the number of classes")]
    floor: Annotated[Share, Doc("accuracy of all features below which an encoder is set aside")]
    sparsities: Annotated[list[Share], Doc("parts of the concepts left out")]
    encoders: Annotated[
        Rows,
        Doc("each `encoder`, its `fingerprint` and `width`, `accuracy` of a linear layer on all features, that of the "
            "ten nearest training `neighbours` on pictures to choose on, and whether it is `below_floor`"),
    ]  # fmt: skip
    rows: Annotated[
        Rows,
        Doc("every `encoder` with every `library` (`words_of` an encoder; `n_concepts`; averaged over `draws`): `iis`, "
            "the area under `arr` over the sparsities (0.98 is to lose nothing), `normalised` by their range, mean "
            "accuracy (`area`), paired difference `less_random`, and `points`: at each `sparsity` concepts `kept` of a "
            "picture, different ones `used`, `accuracy`, and `arr`, that by the accuracy of all features"),
    ]  # fmt: skip
    correlations: Annotated[
        Rows,
        Doc("Spearman's `rho` over `n` encoders `of` one number `with` another, a third `given`, and its `interval`"),
    ]


class ComparedMeasure(TypedDict):
    measure: Annotated[str, Doc("what was asked; higher is better")]
    family: Annotated[str, Doc("under which it is shown")]
    n: Annotated[Count, Doc("test pictures that were asked")]
    n_draws: Annotated[Count, Doc("draws of what was learnt from")]
    rows: Annotated[
        Rows, Doc("of each `encoder`, or `method`: its `value`, `interval` at `settings.level`, and values `by_draw`")
    ]
    differences: Annotated[
        Rows,
        Doc("every pair: `a` less `b` on the same pictures and draws, `interval`, two-sided `p`, `p_corrected` for all "
            "comparisons of the study (Holm), `real` where that is below 1 - level and 10 things or more were tested "
            "on, and then the `better`"),
    ]  # fmt: skip


class Comparison(Study):
    n_learn: Annotated[Count, Doc("of them those learnt from")]
    n_test: Annotated[Count, Doc("of them those tested on")]
    n_groups: Annotated[Count, Doc("things that the pictures tested on show")]
    standings: Annotated[Rows, Doc("real differences `won` and `lost` of those `compared`, best first")]
    measures: Annotated[list[ComparedMeasure], Doc("one table each")]


class StudyTransferOutput(Comparison):
    """The object of seewhy study transfer --json."""

    study: Literal["transfer"]
    n_classes: NClasses
    encoders: Annotated[list[EncoderSeen], Doc("those compared, in the order given")]


class StudyBaseToNewOutput(Comparison):
    """The object of seewhy study base-to-new --json."""

    study: Literal["base-to-new"]
    encoder: Annotated[EncoderSeen, Doc("what was adapted")]
    classes: Annotated[dict[Literal["learnt", "new"], list[str]], Doc("those learnt from pictures, those only named")]
    methods: Annotated[list[str], Doc("those compared; `before` is the encoder as it was, told the names alone")]


class ClaimMeasured(TypedDict):
    name: Annotated[str, Doc("what `--only` takes")]
    claim: Annotated[str, Doc("in a sentence")]
    paper: Annotated[str, Doc("authors, year, arXiv number")]
    figure: Annotated[str, Doc("the paper's, with its place; empty where none was verified")]
    difference: Annotated[float, Doc("ours; the claim says that it lies above 0")]
    interval: Annotated[Range, Doc("95 %")]
    measured: Annotated[str, Doc("the numbers that were compared")]
    n: Annotated[Count, Doc("pictures")]
    effect: Annotated[float, Doc("the paper's, where it is such a difference, else 0: what ends below it is not shown")]
    verdict: Annotated[Literal["shown", "too small to tell", "not shown"], Doc("by the rule")]


class StudyClaimsOutput(Study):
    """The object of seewhy study claims --json."""

    study: Literal["claims"]
    n_test: Annotated[Count, Doc("pictures tested on")]
    n_classes: NClasses
    encoder: Annotated[EncoderSeen, Doc("what looked and read")]
    claims: Annotated[list[ClaimMeasured], Doc("each that could be measured")]
    left_out: Annotated[list[dict[str, str]], Doc("`name` and `claim` of the others, and the `reason`")]
    command: Annotated[str, Doc("as it was typed; empty from Python")]
    version: Annotated[str, Doc("of SeeWhy")]


class ScalingAnswer(TypedDict):
    kind: Annotated[Literal["more", "enough", "open", "unlikely", "far", "unreachable"], Doc("what can be said")]
    level: Annotated[Share, Doc("of the interval")]
    more: Annotated[Sides, Doc("pictures beside those there are")]
    needed: Annotated[Sides, Doc("the same, of pictures learnt from in all")]
    median: Annotated[Count | None, Doc("of the same")]
    reached_within: Annotated[Share, Doc("part of the draws that reach the target by then")]
    most: Annotated[Count, Doc("the most pictures that are predicted")]


class Drawn(TypedDict):
    value: Annotated[float, Doc("on what was measured")]
    interval_90: Annotated[Range, Doc("90 %")]
    interval_95: Annotated[Range, Doc("95 %")]


class CurvePoint(TypedDict):
    n: Annotated[float, Doc("pictures learnt from")]
    accuracy: Annotated[Share, Doc("mean of the seeds, or median of the draws")]
    by_seed: NotRequired[list[float]]
    interval_90: Annotated[Range, Doc("90 %")]
    interval_95: NotRequired[Annotated[Range, Doc("95 %")]]


class ScalingArm(TypedDict):
    name: Annotated[str, Doc("for tables")]
    encoder: Annotated[str, Doc("name")]
    noise: Annotated[Share, Doc("part of the labels made wrong")]
    n_classes: Annotated[Count | None, Doc("so many of the classes; `null` for all")]
    points: Annotated[list[CurvePoint], Doc("by size")]
    slope: Annotated[Drawn, Doc("accuracy that a doubling brought, over the sizes measured")]
    floor: Annotated[Drawn, Doc("error that no number of pictures goes below")]
    form: Annotated[str, Doc("that predicts larger sizes best")]
    forms: Annotated[
        Rows,
        Doc("best first: `name`, `formula`, `paper`, its `numbers`, relative `held_out_error` at `n_held_out` larger "
            "sizes, `share` of the draws, `n_failed` of `n_fits`"),
    ]  # fmt: skip
    predictions: Annotated[list[CurvePoint], Doc("beyond what was measured")]
    band: Annotated[list[CurvePoint], Doc("the curve, to be drawn")]
    against: Annotated[
        dict[str, Any] | None,
        Doc("what differs from the first: `accuracy`, `slope`, `worth` of a picture, and `n_beyond` draws that do not "
            "say; `null` for the first"),
    ]  # fmt: skip


class StudyScalingOutput(Study):
    """The object of seewhy study scaling --json."""

    study: Literal["scaling"]
    target: Annotated[Share | None, Doc("accuracy wanted, or `null`")]
    answer: Annotated[ScalingAnswer | None, Doc("how many more pictures; `null` without a target")]
    tested_range: Annotated[list[int], Doc("smallest and largest number of pictures learnt from")]
    n_have: Annotated[Count, Doc("of them those that more would come beside")]
    n_test: Annotated[Count, Doc("pictures tested on")]
    n_classes: NClasses
    classifier: Annotated[str, Doc("what was fitted")]
    arms: Annotated[list[ScalingArm], Doc("a curve each; the first answers")]
    model: Annotated[dict[Literal["encoder", "fingerprint"], str], Doc("what looked")]


class Like(TypedDict):
    image: Annotated[str, Doc("its file name")]
    label: Annotated[str, Doc("its label")]
    cosine: Annotated[float, Doc("of their features")]


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
    """The object of seewhy check --json."""

    classes: Annotated[list[str], Doc("labels of the data")]
    accuracy: Annotated[
        Share | None, Doc("share of the judged labels that a model trained without the picture agrees with")
    ]
    judged: Annotated[Count, Doc("pictures whose label could be judged; a class of one picture cannot")]
    digest: Annotated[str, Doc("SHA-256 of the pictures' names and labels")]
    counts: Annotated[dict[str, Count], Doc("findings of each kind")]
    copies_across: Annotated[Rows, Doc("`n` copies between two `splits` of one table")]
    findings: Annotated[list[Finding], Doc("by kind, and the most doubtful first")]


CheckOutput = CorrectedOutput | CheckedOutput
"""The object of seewhy check --json; with --export that of the corrected table."""


class AuditFigure(TypedDict):
    name: Annotated[str, Doc("in contracts")]
    title: Annotated[str, Doc("in words")]
    state: Annotated[Literal["pass", "fail", "not measured"], Doc("whether its limit is kept")]
    broken: Annotated[bool, Doc("whether it breaks the contract: required, and not kept or not measured")]
    value: Annotated[float | None, Doc("the figure; `null` where it was not measured")]
    interval: Annotated[Range | None, Doc("at 95 %; `null` where all there is was counted")]
    n: Annotated[Count, Doc("what it was measured on")]
    judged: Annotated[float | None, Doc("the number that is held against the limit")]
    judged_by: Annotated[str, Doc("which of them that is, and the number in as many digits as tell it from the limit")]
    limit: Annotated[
        dict[str, Any],
        Doc("as the contract has it: its `side`, `value`, `bound`, whether it is `required`, and the least `level`"),
    ]
    asked: Annotated[str, Doc("the limit in words")]
    meaning: Annotated[str, Doc("what the figure says, or why it was not measured")]


class AuditOutput(Study):
    """The object of seewhy evaluate --contract --json."""

    audit: Annotated[Literal["pass", "fail"], Doc("whether the contract is kept")]
    figures: Annotated[list[AuditFigure], Doc("each figure that the contract asks for")]
    groups: Annotated[
        Rows | None,
        Doc("with `--group`, each `group`: `n`, `accuracy`, `accuracy_rest` on all others, their `gap` (`null` if "
            "it is too small) with Newcombe's `interval` for all groups together, Fisher's `p`, corrected (Holm)"),
    ]  # fmt: skip
    copies: Annotated[
        Rows | None,
        Doc("pictures that it was fitted on: `image`, `fitted_on`, whether they are the `same_bytes`, `agreement`"),
    ]
    place: Annotated[
        dict[str, Any] | None,
        Doc("the place of the frame that was exchanged: its `boxes`, `share` of the heat, decisions `changed` there "
            "and `changed_elsewhere`; `null` where that was not measured"),
    ]  # fmt: skip
    contract: Annotated[str, Doc("where the limits come from")]
    model: OfModel


class DriftOutput(Study):
    """The object of seewhy evaluate --against --json."""

    drift: Annotated[Literal["yes", "no"], Doc("whether p is below alpha")]
    n_known: Annotated[Count, Doc("pictures that it was fitted on")]
    p: Annotated[Share, Doc("how often pictures of one source differ as much")]
    energy: Annotated[float, Doc("energy distance, 0 where both sides are alike")]
    far: Annotated[
        dict[str, Any],
        Doc("part farther from training than most of training is from itself, its `interval`, and the `expected` one"),
    ]
    classes: Annotated[
        Rows,
        Doc("the most changed first: `label`, `n` decided for it, their `share`, the `expected` one, Fisher's `p`, "
            "corrected over all classes (Holm)"),
    ]  # fmt: skip
    pictures: Annotated[
        Rows,
        Doc("the farthest, 50 at most: `image`, `label` decided for, mean `cosine` with the `nearest` of training, "
            "whether it is `far`"),
    ]  # fmt: skip
    model: OfModel
