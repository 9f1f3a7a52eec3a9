"""The JSON that auditing answers with, as types."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from typing_extensions import TypedDict

from ...explanation.outputs import Failures, Interval, Model
from ...results import Count, Doc, Share


class Far(TypedDict):
    value: Annotated[Share, Doc("their part")]
    interval: Annotated[Interval, Doc("Wilson's")]
    expected: Annotated[float, Doc("where nothing changed")]


class Classe(TypedDict):
    label: Annotated[str, Doc("class")]
    n: Annotated[Count, Doc("new pictures decided for it")]
    share: Annotated[Share, Doc("their part")]
    expected: Annotated[float | None, Doc("its part of pictures held out while fitting; `null` where there are none")]
    p: Annotated[float | None, Doc("Fisher's, corrected over all classes (Holm)")]


class Picture(TypedDict):
    image: Annotated[str, Doc("file")]
    label: Annotated[str, Doc("decided for")]
    cosine: Annotated[float, Doc("mean, with the nearest training pictures")]
    far: Annotated[bool, Doc("whether it counts as far")]
    nearest: Annotated[str, Doc("training picture that is nearest")]


class Settings(TypedDict):
    alpha: Annotated[float, Doc("p value below which there is drift")]
    n_permutations: Annotated[Count, Doc("of the test")]
    most: Annotated[Count, Doc("pictures of each side, at most")]
    n_near: Annotated[Count, Doc("nearest pictures averaged")]
    seed: Annotated[Count, Doc("of draws")]


class DriftOutput(TypedDict):
    """The object of seewhy drift --json."""

    drift: Annotated[Literal["yes", "no"], Doc("whether p is below alpha")]
    sentence: Annotated[str, Doc("the answer")]
    n: Annotated[Count, Doc("new pictures")]
    n_known: Annotated[Count, Doc("pictures that it was fitted on")]
    p: Annotated[Share, Doc("how often pictures of one source differ as much")]
    energy: Annotated[float, Doc("energy distance, 0 where both sides are alike")]
    far: Annotated[Far, Doc("new pictures farther from training than most of training is from itself")]
    classes: Annotated[list[Classe], Doc("each class, the most changed first")]
    pictures: Annotated[list[Picture], Doc("the farthest, 50 at most")]
    settings: Annotated[Settings, Doc("of the test")]
    model: Annotated[Model, Doc("as in `explain`")]
    notes: Annotated[list[str], Doc("what else the reader should know")]
    failures: Annotated[Failures, Doc("as in `evaluate`")]
    report: NotRequired[Annotated[str | None, Doc("page that was written; `null` without -o")]]


class Limit(TypedDict):
    side: Annotated[Literal["at_least", "at_most"], Doc("whether the limit is the least or the most")]
    value: Annotated[float, Doc("the limit")]
    bound: Annotated[Literal["worst", "value", "best"], Doc("what is held against it")]
    required: Annotated[bool, Doc("whether it must be measured and kept; else it is told and breaks nothing")]
    level: NotRequired[Annotated[Literal["partly", "believable"], Doc("the least verdict that counts")]]


class Figure(TypedDict):
    name: Annotated[str, Doc("in contracts")]
    title: Annotated[str, Doc("in words")]
    state: Annotated[Literal["pass", "fail", "not measured"], Doc("whether its limit is kept")]
    broken: Annotated[bool, Doc("whether it breaks the contract: required, and not kept or not measured")]
    value: Annotated[float | None, Doc("the figure; `null` where it was not measured")]
    interval: Annotated[tuple[float, float] | None, Doc("at 95 %; `null` where all there is was counted")]
    n: Annotated[Count, Doc("what it was measured on")]
    judged: Annotated[float | None, Doc("the number that is held against the limit")]
    judged_by: Annotated[str, Doc("which of them that is, and the number in as many digits as tell it from the limit")]
    limit: Annotated[Limit, Doc("as the contract has it")]
    asked: Annotated[str, Doc("the limit in words")]
    meaning: Annotated[str, Doc("what the figure says, or why it was not measured")]


class Group(TypedDict):
    group: Annotated[str, Doc("its name")]
    n: Annotated[int, Doc("its pictures")]
    accuracy: Annotated[Share, Doc("on these")]
    accuracy_rest: Annotated[Share | None, Doc("on all others; `null` where there are none")]
    gap: Annotated[float | None, Doc("accuracy on all others less that on these; `null` where the group is too small")]
    interval: Annotated[tuple[float, float] | None, Doc("of the gap (Newcombe), for all groups together (Bonferroni)")]
    p: Annotated[Share | None, Doc("Fisher's, corrected over all groups (Holm)")]


class Copie(TypedDict):
    image: Annotated[str, Doc("file judged on")]
    fitted_on: Annotated[str, Doc("file fitted on")]
    same_bytes: Annotated[bool, Doc("whether they are the same file")]
    agreement: Annotated[float | None, Doc("correlation of the details of a near copy with it")]


class Place(TypedDict):
    boxes: Annotated[list[tuple[float, float, float, float]], Doc("of each half of the cards")]
    share: Annotated[Share, Doc("part of the heat in it")]
    changed: Annotated[Share, Doc("decisions that change with it")]
    changed_elsewhere: Annotated[Share, Doc("with other places")]


class Settings2(TypedDict):
    n_explained: Annotated[Count, Doc("pictures whose explanations are measured, at most")]
    seed: Annotated[int, Doc("of every draw")]


class AuditOutput(TypedDict):
    """The object of seewhy audit --json."""

    audit: Annotated[Literal["pass", "fail"], Doc("whether the contract is kept")]
    sentence: Annotated[str, Doc("the answer")]
    n: Annotated[int, Doc("pictures that were judged")]
    figures: Annotated[list[Figure], Doc("each figure that the contract asks for")]
    groups: Annotated[list[Group] | None, Doc("with `--group`, each of them; else `null`")]
    copies: Annotated[list[Copie] | None, Doc("pictures that it was fitted on")]
    place: Annotated[Place, Doc("the place of the frame that was exchanged; `null` where that was not measured")]
    contract: Annotated[str, Doc("where the limits come from")]
    settings: Annotated[Settings2, Doc("how it was measured")]
    model: Annotated[Model, Doc("as in `explain`")]
    notes: Annotated[list[str], Doc("what else the reader should know")]
    failures: Annotated[Failures, Doc("as in `evaluate`")]
    report: NotRequired[Annotated[str | None, Doc("page that was written; `null` without -o")]]
