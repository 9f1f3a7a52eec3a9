"""Types of the JSON output of training commands."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from ..explanation.outputs import FailureOutput, Failures, Measure, Range
from ..prototypes.measure import LikenessMeasure
from ..results import Count, Doc, Share
from .adapt import Kept
from .adaptation.prompts import Kept as KeptPrompt
from .encoders.adapted import Keep
from .from_columns import Right
from .way import Cost


class Encoder(TypedDict):
    encoder: Annotated[str, Doc("name of the encoder")]
    fingerprint: Annotated[str, Doc("hash of weights and preprocessing")]
    transform: Annotated[dict[str, Any], Doc("preprocessing")]


class Run(TypedDict):
    provenance: Annotated[dict[str, Any], Doc("training record: objective, counts, `keep`, `loss`, settings")]
    history: Annotated[
        list[dict[str, float]] | None, Doc("loss terms of each step; only in the HTML page and its JSON")
    ]
    seconds_per_step: Annotated[float, Doc("seconds")]
    tried: Annotated[
        list[Kept | Right], Doc("results for each `keep`, 0 being the original encoder; empty if `keep` is not chosen")
    ]
    tried_apart: NotRequired[Annotated[bool, Doc("whether `tried` and `measures` use different held-out pictures")]]
    tried_named: NotRequired[Annotated[str, Doc("name of the entry of `measures` that corresponds to `named`")]]


class Noted(TypedDict):
    n_pictures: Annotated[Count, Doc("number of pictures; without texts, of training pictures")]
    measures: Annotated[list[Measure], Doc("metrics; for training on names, before and after")]
    notes: Annotated[list[str], Doc("notes")]
    failures: Annotated[list[FailureOutput], Doc("pictures that could not be read")]


class Measured(Noted):
    encoder: Annotated[Encoder, Doc("evaluated encoder")]
    encoder_folder: NotRequired[Annotated[str, Doc("output folder; only from `adapt` and `pretrain`")]]


class PretrainPicturesOutput(Measured):
    """Result of a training without texts: the JSON object of ``seewhy pretrain --json``."""

    before: Annotated[Encoder, Doc("original encoder")]
    n_held_out: Annotated[Count, Doc("number of held-out pictures")]
    classes: Annotated[list[str], Doc("classes; empty unless every picture has a class")]
    run: Annotated[Run, Doc("training record")]


class Places(TypedDict):
    place: Annotated[int, Doc("rank of the first matching picture, from 1")]
    nearest: Annotated[list[str], Doc("files of the nearest pictures")]


class Example(TypedDict):
    text: Annotated[str, Doc("a random text")]
    picture: Annotated[str, Doc("file of a matching picture")]
    before: NotRequired[Annotated[Places, Doc("results of the original encoder")]]
    after: Annotated[Places, Doc("results of the evaluated encoder")]
    own: NotRequired[Annotated[list[str], Doc("files of all matching pictures; only for training on columns")]]
    measure: NotRequired[Annotated[str, Doc("name of the column; only for training on columns")]]


class RetrievalOutput(Measured):
    """Retrieval results: the JSON object of ``seewhy evaluate --retrieval``, ``adapt`` and ``pretrain``."""

    before: Annotated[Encoder | None, Doc("original encoder; `null` for an encoder that was not adapted")]
    n_texts: Annotated[Count, Doc("number of texts; for columns, number of distinct values")]
    examples: Annotated[list[Example], Doc("texts or column values with their nearest pictures")]
    run: NotRequired[Annotated[Run, Doc("training record; only from `adapt` and `pretrain`")]]
    report: NotRequired[Annotated[str | None, Doc("HTML page, or `null`; only from `evaluate`")]]


PretrainOutput = Cost | PretrainPicturesOutput | RetrievalOutput
"""The JSON object that ``seewhy pretrain --json`` prints."""


class AdaptNamesOutput(Noted):
    model: Annotated[str, Doc("folder of the classifier")]
    method: Annotated[str, Doc("name of the method")]
    classes: Annotated[list[str], Doc("learnt classes")]
    n_held_out: Annotated[Count, Doc("number of held-out pictures of the learnt classes")]
    n_chosen_on: Annotated[Count, Doc("number of other held-out pictures, on which `keep` was chosen")]
    shots: Annotated[int | None, Doc("training pictures per class; `null` for all")]
    keep: Keep
    tried: Annotated[list[KeptPrompt], Doc("results for each `keep`, on the pictures on which it was chosen")]
    parameters: Annotated[dict[str, Any], Doc("parameters of the method")]


AdaptOutput = AdaptNamesOutput | Cost | RetrievalOutput
"""The JSON object that ``seewhy adapt --json`` prints."""


class First(TypedDict):
    loss: Annotated[float, Doc("loss: weighted sum of `ce`, `area` and `smooth`")]
    ce: Annotated[float, Doc("cross entropy on masked pictures")]
    area: Annotated[float, Doc("area term of the loss")]
    smooth: Annotated[float, Doc("smoothness term of the loss")]
    mean_mask: Annotated[Share, Doc("mean share of the picture that the mask shows")]
    agree: Annotated[Share, Doc("share of pictures with the same prediction when masked")]


@with_config({"extra": "allow"})
class FitExplainerOutput(TypedDict):
    """The JSON object of ``seewhy fit --task explainer --json``, with the training settings."""

    explainer: Annotated[str, Doc("output file")]
    layers: Annotated[list[str], Doc("layers whose features are used")]
    n_pictures: Annotated[Count, Doc("number of training pictures")]
    first: Annotated[First, Doc("means over the first ten steps")]
    final: Annotated[First, Doc("means over the last ten steps")]
    seconds_per_step: Annotated[float, Doc("seconds")]


class Setting(TypedDict):
    n_prototypes: NotRequired[Annotated[Count, Doc("number of pictures to which each channel is fitted")]]
    shrinkage: NotRequired[Annotated[Share, Doc("shrinkage towards no rotation")]]
    n_rotated: NotRequired[Annotated[Count, Doc("number of rotated channels; 0 if no rotation is best")]]
    n_rounds: NotRequired[Annotated[Count, Doc("number of alternating rounds")]]


class TriedSetting(Setting):
    rotation: NotRequired[Annotated[str, Doc("`none`")]]
    purity: Annotated[float, Doc("purity on the selection pictures")]


class HeldOut(TypedDict):
    n: Annotated[Count, Doc("number of pictures")]
    purity: Annotated[float, Doc("purity with the rotation")]
    before: Annotated[float, Doc("purity without rotation")]
    random: Annotated[float, Doc("purity with a random rotation")]
    gain: Annotated[float, Doc("`purity` minus `before`")]
    gain_interval: Annotated[Range, Doc("95 % interval of `gain`")]


Arms = dict[Literal["fitted", "before", "random"], float]
"""Results with the rotation, without it, and with a random one."""


class FitPrototypesOutput(TypedDict):
    """The JSON object of ``seewhy fit --task prototypes --json``."""

    prototypes: NotRequired[Annotated[str, Doc("output file")]]
    kept: NotRequired[Annotated[bool, Doc("whether the file already existed")]]
    optimiser: NotRequired[Annotated[Literal["procrustes"], Doc("`procrustes`")]]
    form: NotRequired[Annotated[Literal["orthogonal"], Doc("`orthogonal`")]]
    setting: NotRequired[Annotated[Setting, Doc("setting that was chosen or given")]]
    tried: NotRequired[Annotated[list[TriedSetting], Doc("results for each setting, starting without rotation")]]
    n_pictures: NotRequired[Annotated[Count, Doc("number of distinct pictures")]]
    n_fitted: NotRequired[Annotated[Count, Doc("number of pictures for the fit; only these become prototypes")]]
    logit_difference: NotRequired[Annotated[float, Doc("largest change of a logit, relative to the largest logit")]]
    decisions_kept: NotRequired[Annotated[Share, Doc("share of unchanged predictions")]]
    purity_fit: NotRequired[
        Annotated[float, Doc("purity of the 5 pictures with the strongest activation of each channel")]
    ]
    purity_fit_before: NotRequired[Annotated[float, Doc("`purity_fit` without rotation")]]
    held_out: NotRequired[Annotated[HeldOut, Doc("metrics on pictures that were not used for fit or selection")]]
    top_4_share: NotRequired[Annotated[Arms, Doc("share of a decision's evidence in its four strongest channels")]]
    coherence: NotRequired[
        Annotated[Share | None, Doc("share of the most common class among the 5 prototypes of a channel")]
    ]
    likeness: NotRequired[Annotated[LikenessMeasure, Doc("metrics of the prototypes displayed for held-out pictures")]]
    notes: NotRequired[Annotated[list[str], Doc("notes")]]
    failures: NotRequired[Annotated[Failures, Doc("pictures that could not be read")]]
