"""The JSON that learning answers with, as types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from ..explanation.outputs import FailureOutput, Failures, Measure, Range
from ..results import Count, Doc, Share


@dataclass(frozen=True)
class Cost:
    """What a training would cost: the object of seewhy adapt and pretrain --dry-run --json."""

    dry_run: Annotated[Literal[True], Doc("`true`")]
    n_pictures: Annotated[Count, Doc("with texts")]
    n_texts: Annotated[Count, Doc("different ones")]
    n_steps: Annotated[Count, Doc("batches")]
    n_weights: Annotated[Count, Doc("that are trained")]
    seconds_looking: Annotated[float, Doc("until all is looked at and read, if nothing is known yet")]
    seconds_per_step: Annotated[float, Doc("on this machine")]
    seconds: Annotated[float, Doc("in all, without choosing how much is kept")]


class Encoder(TypedDict):
    encoder: Annotated[str, Doc("its name")]
    fingerprint: Annotated[str, Doc("of its weights and transform")]
    transform: Annotated[dict[str, Any], Doc("its preprocessing")]


class TriedRow(TypedDict):
    keep: Annotated[Share, Doc("how much of what was learnt is kept")]
    image_to_text: NotRequired[Annotated[Share, Doc("R@5 on held-out pictures")]]
    text_to_image: NotRequired[Annotated[Share, Doc("R@5 on held-out pictures")]]
    named: Annotated[Share | None, Doc("part of them whose nearest own class by name is that of the encoder's last")]
    right: NotRequired[Annotated[dict[str, Share], Doc("by measure, part of held-out pictures whose nearest value is")]]


class Run(TypedDict):
    provenance: Annotated[dict[str, Any], Doc("how it was trained: objective, counts, `keep`, `loss`, settings")]
    history: Annotated[list[dict[str, float]] | None, Doc("terms of each step, on the page and in its JSON")]
    seconds_per_step: Annotated[float, Doc("seconds")]
    tried: Annotated[list[TriedRow], Doc("what each part kept gives; 0 is the encoder as it was; none where all is")]
    tried_apart: NotRequired[Annotated[bool, Doc("whether that is on other held-out pictures than the figures")]]
    tried_named: NotRequired[Annotated[str, Doc("the measure, among `measures`, that `named` is")]]


class Measured(TypedDict):
    encoder: Annotated[Encoder, Doc("judged")]
    n_pictures: Annotated[Count, Doc("pictures; of a training on pictures alone, trained on")]
    measures: Annotated[list[Measure], Doc("what was measured; none of pictures without classes")]
    notes: Annotated[list[str], Doc("what was said meanwhile")]
    failures: Annotated[list[FailureOutput], Doc("pictures that cannot be read")]
    encoder_folder: NotRequired[Annotated[str, Doc("folder written; from `adapt` and `pretrain`")]]


class PretrainPicturesOutput(Measured):
    """What a training on pictures alone gave: the object of seewhy pretrain --json where the objective."""

    before: Annotated[Encoder, Doc("the encoder it began with")]
    n_held_out: Annotated[Count, Doc("to measure on")]
    classes: Annotated[list[str], Doc("of the pictures; none where not all have one")]
    run: Annotated[Run, Doc("the training")]


class Places(TypedDict):
    place: Annotated[int, Doc("of its own picture, 1 the nearest; of a value, of the first that has it")]
    nearest: Annotated[list[str], Doc("the nearest pictures' files")]


class Example(TypedDict):
    text: Annotated[str, Doc("drawn at random")]
    picture: Annotated[str, Doc("its own picture's file; of a value, one that has it")]
    before: NotRequired[Annotated[Places, Doc("by the encoder it was adapted from")]]
    after: Annotated[Places, Doc("now")]
    own: NotRequired[Annotated[list[str], Doc("every picture that has this value; where columns are learnt from")]]
    measure: NotRequired[Annotated[str, Doc("of whose column it is a value; where columns are learnt from")]]


class RetrievalOutput(Measured):
    """What pictures and texts find of one another: the object of seewhy evaluate --retrieval, adapt and."""

    before: Annotated[Encoder | None, Doc("the encoder it was adapted from; `null` where it was not")]
    n_texts: Annotated[Count, Doc("texts, each as often as it is said; of columns, different ones")]
    examples: Annotated[list[Example], Doc("texts with the pictures nearest to them; of columns, values")]
    run: NotRequired[Annotated[Run, Doc("the training; only from `adapt` and `pretrain`")]]
    report: NotRequired[Annotated[str | None, Doc("file written, or `null`; from `evaluate`")]]


PretrainOutput = Cost | PretrainPicturesOutput | RetrievalOutput
"""The object of seewhy pretrain --json."""


class TriedPrompt(TypedDict):
    keep: Annotated[Share, Doc("how much")]
    accuracy: Annotated[Share, Doc("on the classes learnt")]
    named: Annotated[Share | None, Doc("agreement with the encoder's own classes by their names")]


class AdaptNamesOutput(TypedDict):
    model: Annotated[str, Doc("the classifier's folder")]
    method: Annotated[str, Doc("that learnt")]
    classes: Annotated[list[str], Doc("that were learnt")]
    n_pictures: Annotated[Count, Doc("trained on")]
    n_held_out: Annotated[Count, Doc("of the classes learnt, measured on")]
    n_chosen_on: Annotated[Count, Doc("that `keep` was chosen on, others than those")]
    shots: Annotated[int | None, Doc("pictures of each class, as asked")]
    keep: Annotated[Share, Doc("how much of what was learnt is kept")]
    tried: Annotated[list[TriedPrompt], Doc("what each `keep` gives on those that it was chosen on")]
    measures: Annotated[list[Measure], Doc("the forgetting table: what was gained and what was lost")]
    parameters: Annotated[dict[str, Any], Doc("the method's fields")]
    notes: Annotated[list[str], Doc("what was said meanwhile")]
    failures: Annotated[list[FailureOutput], Doc("pictures that cannot be read")]


AdaptOutput = AdaptNamesOutput | Cost | RetrievalOutput
"""The object of seewhy adapt --json: with --method, with --dry-run, or otherwise."""


class First(TypedDict):
    loss: Annotated[float, Doc("what is made small: the next three, each by its weight")]
    ce: Annotated[float, Doc("cross-entropy behind the mask")]
    area: Annotated[float, Doc("of the mask")]
    smooth: Annotated[float, Doc("how much the mask varies from place to place")]
    mean_mask: Annotated[Share, Doc("part of a picture that the mask shows")]
    agree: Annotated[Share, Doc("part of the pictures that keep their class behind it")]


@with_config({"extra": "allow"})
class FitExplainerOutput(TypedDict):
    """The object of seewhy fit --task explainer --json; the settings of the training are among its keys."""

    explainer: Annotated[str, Doc("the file written")]
    layers: Annotated[list[str], Doc("whose maps it reads")]
    n_pictures: Annotated[Count, Doc("trained on")]
    first: Annotated[First, Doc("means over the first ten steps")]
    final: Annotated[First, Doc("the same over the last ten")]
    seconds_per_step: Annotated[float, Doc("seconds")]


class Setting(TypedDict):
    n_prototypes: NotRequired[Annotated[Count, Doc("pictures a channel fitted to")]]
    shrinkage: NotRequired[Annotated[Share, Doc("towards no rotation")]]
    n_rotated: NotRequired[Annotated[Count, Doc("channels rotated; 0 where leaving them as they are is best")]]
    n_rounds: NotRequired[Annotated[Count, Doc("alternations")]]


class TriedSetting(Setting):
    rotation: NotRequired[Annotated[str, Doc("`none`")]]
    purity: Annotated[float, Doc("on the pictures to choose on")]


class Arms(TypedDict):
    before: Annotated[float, Doc("without")]
    random: Annotated[float, Doc("with a random one")]


class HeldOut(Arms):
    n: Annotated[Count, Doc("pictures")]
    purity: Annotated[float, Doc("with the rotation")]
    gain: Annotated[float, Doc("`purity` less `before`")]
    gain_interval: Annotated[Range, Doc("its 95 % interval")]


class Top4Share(Arms):
    fitted: Annotated[float, Doc("with the rotation")]


class Likeness(TypedDict):
    precision: Annotated[Share, Doc("part that carries the predicted class")]
    chance: Annotated[Share, Doc("the same at random")]
    n: Annotated[Count, Doc("pictures")]
    limit: Annotated[float | None, Doc("part of the prototypes shown that a wrong class reaches on one picture in")]
    near: Annotated[float | None, Doc("purity of the first prototype shown, mean over channels")]
    bands: Annotated[list[list[float]], Doc("how often decisions are right")]


class FitPrototypesOutput(TypedDict):
    """The object of seewhy fit --task prototypes --json."""

    prototypes: NotRequired[Annotated[str, Doc("the file written")]]
    kept: NotRequired[Annotated[bool, Doc("whether it was there already")]]
    optimiser: NotRequired[Annotated[Literal["procrustes"], Doc("`procrustes`")]]
    form: NotRequired[Annotated[Literal["orthogonal"], Doc("`orthogonal`")]]
    setting: NotRequired[Annotated[Setting, Doc("what Procrustes chose or was given")]]
    tried: NotRequired[Annotated[list[TriedSetting], Doc("each setting tried, in order, the first without a rotation")]]
    n_pictures: NotRequired[Annotated[Count, Doc("distinct pictures")]]
    n_fitted: NotRequired[Annotated[Count, Doc("of them fitted on; only these become prototypes")]]
    logit_difference: NotRequired[Annotated[float, Doc("largest change of a logit, as a part of the largest")]]
    decisions_kept: NotRequired[Annotated[Share, Doc("part of the decisions that stay the same")]]
    purity_fit: NotRequired[Annotated[float, Doc("of the 5 strongest pictures of every channel")]]
    purity_fit_before: NotRequired[Annotated[float, Doc("the same without a rotation")]]
    held_out: NotRequired[Annotated[HeldOut, Doc("on pictures that neither fitted nor chose")]]
    top_4_share: NotRequired[Annotated[Top4Share, Doc("part of what speaks for a decision that its four strongest")]]
    coherence: NotRequired[Annotated[Share | None, Doc("part of a channel's 5 prototypes that carry their commonest")]]
    likeness: NotRequired[Annotated[Likeness, Doc("prototypes shown for held-out pictures")]]
    notes: NotRequired[Annotated[list[str], Doc("what the user should know")]]
    failures: NotRequired[Annotated[Failures, Doc("pictures that could not be read")]]
