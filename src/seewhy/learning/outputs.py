"""Types of the JSON that learning commands print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from ..explanation.outputs import FailureOutput, Failures, Measure, Range
from ..results import Count, Doc, Share


@dataclass(frozen=True)
class Cost:
    """Predicted cost of a training: the JSON object of ``seewhy adapt`` and ``pretrain`` with ``--dry-run --json``."""

    dry_run: Annotated[Literal[True], Doc("`true`")]
    n_pictures: Annotated[Count, Doc("pictures with texts")]
    n_texts: Annotated[Count, Doc("different texts")]
    n_steps: Annotated[Count, Doc("number of batches")]
    n_weights: Annotated[Count, Doc("trained weights")]
    seconds_looking: Annotated[float, Doc("time to encode all pictures and texts, if none is stored")]
    seconds_per_step: Annotated[float, Doc("time per step on this machine")]
    seconds: Annotated[float, Doc("total time, without the choice of `keep`")]


class Encoder(TypedDict):
    encoder: Annotated[str, Doc("its name")]
    fingerprint: Annotated[str, Doc("of its weights and transform")]
    transform: Annotated[dict[str, Any], Doc("its preprocessing")]


class TriedRow(TypedDict):
    keep: Annotated[Share, Doc("how much of what was learnt is kept")]
    image_to_text: NotRequired[Annotated[Share, Doc("R@5 on held-out pictures")]]
    text_to_image: NotRequired[Annotated[Share, Doc("R@5 on held-out pictures")]]
    named: Annotated[
        Share | None, Doc("share of them whose nearest class name is the class that the encoder's last layer predicts")
    ]
    right: NotRequired[
        Annotated[dict[str, Share], Doc("for each measure, held-out share with the right nearest value")]
    ]


class Run(TypedDict):
    provenance: Annotated[dict[str, Any], Doc("how it was trained: objective, counts, `keep`, `loss`, settings")]
    history: Annotated[list[dict[str, float]] | None, Doc("terms of each step; on the page and in its JSON")]
    seconds_per_step: Annotated[float, Doc("seconds")]
    tried: Annotated[list[TriedRow], Doc("results of each `keep`; 0 is the old encoder; empty if everything is kept")]
    tried_apart: NotRequired[Annotated[bool, Doc("whether these are on other held-out pictures than the figures")]]
    tried_named: NotRequired[Annotated[str, Doc("which of `measures` is `named`")]]


class Noted(TypedDict):
    n_pictures: Annotated[Count, Doc("pictures; for training without texts, those trained on")]
    measures: Annotated[list[Measure], Doc("figures; for names, what was gained and lost")]
    notes: Annotated[list[str], Doc("notes of the run")]
    failures: Annotated[list[FailureOutput], Doc("pictures that could not be read")]


class Measured(Noted):
    encoder: Annotated[Encoder, Doc("the encoder measured")]
    encoder_folder: NotRequired[Annotated[str, Doc("the folder written; from `adapt` and `pretrain`")]]


class PretrainPicturesOutput(Measured):
    """The result of a training on pictures alone: the JSON object of ``seewhy pretrain --json``."""

    before: Annotated[Encoder, Doc("the encoder at the start")]
    n_held_out: Annotated[Count, Doc("held-out pictures")]
    classes: Annotated[list[str], Doc("classes of the pictures; empty unless every picture has one")]
    run: Annotated[Run, Doc("the training")]


class Places(TypedDict):
    place: Annotated[
        int, Doc("position of its own picture, 1 for the nearest; for a value, of the first picture that has it")
    ]
    nearest: Annotated[list[str], Doc("files of the nearest pictures")]


class Example(TypedDict):
    text: Annotated[str, Doc("a random text")]
    picture: Annotated[str, Doc("file of its own picture; for a value, of one that has it")]
    before: NotRequired[Annotated[Places, Doc("results of the encoder it was adapted from")]]
    after: Annotated[Places, Doc("results now")]
    own: NotRequired[Annotated[list[str], Doc("every picture with this value, if columns are learnt")]]
    measure: NotRequired[Annotated[str, Doc("the column of the value, if columns are learnt")]]


class RetrievalOutput(Measured):
    """Retrieval of pictures and texts: the object of ``seewhy evaluate --retrieval``, ``adapt`` and ``pretrain``."""

    before: Annotated[Encoder | None, Doc("the encoder it was adapted from; `null` without one")]
    n_texts: Annotated[Count, Doc("number of texts; for columns, of different values")]
    examples: Annotated[list[Example], Doc("texts, or values of columns, with the nearest pictures")]
    run: NotRequired[Annotated[Run, Doc("the training; only from `adapt` and `pretrain`")]]
    report: NotRequired[Annotated[str | None, Doc("the HTML page, or `null`; from `evaluate`")]]


PretrainOutput = Cost | PretrainPicturesOutput | RetrievalOutput
"""The JSON object that ``seewhy pretrain --json`` prints."""


class TriedPrompt(TypedDict):
    keep: Annotated[Share, Doc("value of `keep`")]
    accuracy: Annotated[Share, Doc("accuracy on the learnt classes")]
    named: Annotated[Share | None, Doc("agreement with the encoder's own classes by their names")]


class AdaptNamesOutput(Noted):
    model: Annotated[str, Doc("the classifier's folder")]
    method: Annotated[str, Doc("the method")]
    classes: Annotated[list[str], Doc("the learnt classes")]
    n_held_out: Annotated[Count, Doc("held-out pictures of the learnt classes")]
    n_chosen_on: Annotated[Count, Doc("further held-out pictures, on which `keep` was chosen")]
    shots: Annotated[int | None, Doc("pictures of each class, as given; `null` for all")]
    keep: Annotated[Share, Doc("how much of what was learnt is kept")]
    tried: Annotated[list[TriedPrompt], Doc("results of each `keep`, on the pictures that it was chosen on")]
    parameters: Annotated[dict[str, Any], Doc("parameters of the method")]


AdaptOutput = AdaptNamesOutput | Cost | RetrievalOutput
"""The JSON object that ``seewhy adapt --json`` prints: with --method, with --dry-run, or otherwise."""


class First(TypedDict):
    loss: Annotated[float, Doc("the loss: the weighted sum of the next three")]
    ce: Annotated[float, Doc("cross-entropy behind the mask")]
    area: Annotated[float, Doc("area of the mask")]
    smooth: Annotated[float, Doc("how much the mask varies between neighbouring places")]
    mean_mask: Annotated[Share, Doc("share of a picture that the mask shows")]
    agree: Annotated[Share, Doc("share of the pictures that keep their class behind the mask")]


@with_config({"extra": "allow"})
class FitExplainerOutput(TypedDict):
    """The JSON object that ``seewhy fit --task explainer --json`` prints, with the training's settings."""

    explainer: Annotated[str, Doc("the file written")]
    layers: Annotated[list[str], Doc("the layers it reads")]
    n_pictures: Annotated[Count, Doc("pictures trained on")]
    first: Annotated[First, Doc("means over the first ten steps")]
    final: Annotated[First, Doc("means over the last ten steps")]
    seconds_per_step: Annotated[float, Doc("seconds")]


class Setting(TypedDict):
    n_prototypes: NotRequired[Annotated[Count, Doc("pictures that each channel is fitted to")]]
    shrinkage: NotRequired[Annotated[Share, Doc("shrinkage towards no rotation")]]
    n_rotated: NotRequired[Annotated[Count, Doc("number of rotated channels; 0 if no rotation is best")]]
    n_rounds: NotRequired[Annotated[Count, Doc("rounds of the alternation")]]


class TriedSetting(Setting):
    rotation: NotRequired[Annotated[str, Doc("`none`")]]
    purity: Annotated[float, Doc("purity on the selection pictures")]


class HeldOut(TypedDict):
    n: Annotated[Count, Doc("number of pictures")]
    purity: Annotated[float, Doc("purity with the rotation")]
    before: Annotated[float, Doc("purity without rotation")]
    random: Annotated[float, Doc("purity with a random rotation")]
    gain: Annotated[float, Doc("`purity` minus `before`")]
    gain_interval: Annotated[Range, Doc("its 95 % interval")]


Arms = dict[Literal["fitted", "before", "random"], float]
"""Results with the rotation, without it, and with a random one."""


class Likeness(TypedDict):
    precision: Annotated[Share, Doc("share of prototypes shown that have the predicted class")]
    chance: Annotated[Share, Doc("the same for random prototypes")]
    n: Annotated[Count, Doc("number of pictures")]
    limit: Annotated[
        float | None, Doc("share of prototypes shown that a wrong class reaches on at most one picture in twenty")
    ]
    near: Annotated[float | None, Doc("purity of the first prototype shown, mean over channels")]
    bands: Annotated[list[list[float]], Doc("how often decisions are right, by share of prototypes")]


class FitPrototypesOutput(TypedDict):
    """The JSON object that ``seewhy fit --task prototypes --json`` prints."""

    prototypes: NotRequired[Annotated[str, Doc("the file written")]]
    kept: NotRequired[Annotated[bool, Doc("whether it existed already")]]
    optimiser: NotRequired[Annotated[Literal["procrustes"], Doc("`procrustes`")]]
    form: NotRequired[Annotated[Literal["orthogonal"], Doc("`orthogonal`")]]
    setting: NotRequired[Annotated[Setting, Doc("the setting chosen or given")]]
    tried: NotRequired[Annotated[list[TriedSetting], Doc("each setting tried, the first without a rotation")]]
    n_pictures: NotRequired[Annotated[Count, Doc("distinct pictures")]]
    n_fitted: NotRequired[Annotated[Count, Doc("pictures fitted on; only these become prototypes")]]
    logit_difference: NotRequired[Annotated[float, Doc("largest change of a logit, divided by the largest logit")]]
    decisions_kept: NotRequired[Annotated[Share, Doc("share of decisions that stay the same")]]
    purity_fit: NotRequired[Annotated[float, Doc("purity on the 5 strongest pictures of every channel")]]
    purity_fit_before: NotRequired[Annotated[float, Doc("the same without a rotation")]]
    held_out: NotRequired[Annotated[HeldOut, Doc("figures on pictures that were used for neither fit nor choice")]]
    top_4_share: NotRequired[
        Annotated[Arms, Doc("share of the evidence for a decision in its four strongest channels")]
    ]
    coherence: NotRequired[
        Annotated[Share | None, Doc("share of a channel's 5 prototypes that have their commonest class")]
    ]
    likeness: NotRequired[Annotated[Likeness, Doc("figures of the prototypes shown for held-out pictures")]]
    notes: NotRequired[Annotated[list[str], Doc("what the user should know")]]
    failures: NotRequired[Annotated[Failures, Doc("pictures that could not be read")]]
