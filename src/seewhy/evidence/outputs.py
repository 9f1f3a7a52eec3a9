"""The JSON that evidence answers with, as types."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from ..explanation.outputs import (
    Characteristics,
    FailureOutput,
    Map,
    Memorised,
    Missing,
    Model,
    PixelBox,
    PredictionOutput,
    Run,
    Strengths,
    Verdict,
)
from ..results import Count, Doc, Share


class Region(TypedDict):
    letter: Annotated[str, Doc('`"A"`, `"B"`, …')]
    box: Annotated[PixelBox, Doc("on this picture, pixels")]
    share: Annotated[Share, Doc("part of what speaks for the class ([definition](concepts.md#share))")]


class Neuron(TypedDict):
    channel: Annotated[Count, Doc("its number")]
    share: Annotated[float, Doc("what it adds to the class's logit as a part of all that is added")]
    name: Annotated[str | None, Doc("the word that leans on it most")]
    strength: Annotated[float, Doc("how much the nearest word leans on it, in standard deviations over the channels")]
    box: Annotated[PixelBox, Doc("where it is strongest, pixels")]


class Outside(TypedDict):
    masks: Annotated[str, Doc("who drew them")]
    share: Annotated[Share | None, Doc("part of the positive heat outside the object")]
    area: Annotated[Share | None, Doc("part of the view outside it, which is the share by chance")]
    why: Annotated[str | None, Doc("why it was not measured")]


class Where(TypedDict):
    method: Annotated[str, Doc("registered name")]
    target: Annotated[str, Doc("the class the map speaks for; `anything but …` for a counterfactual map")]
    contrast: Annotated[str | None, Doc("the class it speaks against")]
    deletion: Annotated[Share | None, Doc("area under the probability as the hottest pixels go")]
    insertion: Annotated[Share | None, Doc("area under the probability as the hottest pixels come first; high is good")]
    deletion_random: Annotated[Share | None, Doc("the same for the map with its cells shuffled once")]
    insertion_random: Annotated[Share | None, Doc("the same for the map with its cells shuffled once")]
    match: Annotated[float | None, Doc("how well the heat goes with what hiding halves of the picture does, −1…1")]
    match_centre: Annotated[float | None, Doc("the same of a bump in the middle of the picture")]
    rival: Annotated[str | None, Doc("the most probable class beside those explained")]
    match_lead: Annotated[float | None, Doc("how well what the map has more than the rival's goes with what hiding")]
    all_zero: Annotated[bool, Doc("true when nothing on the picture speaks for the class")]
    heat: Annotated[Map, Doc("the signed map, rows from top to bottom, at the network's own resolution")]
    regions: Annotated[list[Region], Doc("the strongest cells")]
    verdict: Annotated[Verdict, Doc("whether to believe it")]
    neurons: NotRequired[Annotated[list[Neuron], Doc("with `--set neurons`")]]
    outside: NotRequired[Annotated[Outside, Doc("heat outside the object")]]


class Because(TypedDict):
    lost: Annotated[Characteristics, Doc("part of the similarity lost when this property of the picture is changed")]
    phi: Annotated[Characteristics, Doc("the same in units of the similarity, with the same keys")]
    change: Annotated[Characteristics, Doc("how much the picture was changed for it")]
    overall: NotRequired[Annotated[Characteristics, Doc("after `fit-prototypes --because`")]]
    strengths: Annotated[Strengths, Doc("of the changes")]
    sentence: Annotated[str, Doc("which properties matter; empty with `paper`, whose strengths may not be compared")]


class LikeRow(TypedDict):
    letter: Annotated[str, Doc("the region it resembles")]
    image: Annotated[str, Doc("file name of that picture")]
    label: Annotated[str, Doc("its class")]
    box: Annotated[PixelBox, Doc("the patch on that picture, pixels")]
    query_box: Annotated[PixelBox, Doc("the region on this picture, pixels")]
    similarity: Annotated[float, Doc("cosine of the two, −1…1; with `epic`, the patch's purity")]
    share: Annotated[float, Doc("the region's share, or the channel's")]
    channel: NotRequired[Annotated[Count, Doc("with `epic`, the channel the two have in common")]]
    contribution: NotRequired[Annotated[float, Doc("with `epic` and `protopnet`")]]
    times: Annotated[Count, Doc("how many patches or prototypes it stands for on the card")]
    because: NotRequired[Annotated[Because, Doc("with `--because`; what the likeness rests on")]]


class OfTarget(TypedDict):
    share: Annotated[Share, Doc("part of the neighbours shown that does")]
    limit: Annotated[float, Doc("the part that a wrong class, neither right nor decided for")]
    near: Annotated[float | None, Doc("similarity of the nearest neighbours, mean over regions; `null` with `epic`")]
    near_limit: Annotated[float | None, Doc("what nineteen held-out pictures in twenty have at least")]
    n: Annotated[Count, Doc("held-out pictures with about as many neighbours of the class decided for; 0 with `epic`")]
    right: Annotated[Count, Doc("of these, decided rightly")]


class LikeMeasured(TypedDict):
    method: Annotated[str, Doc("registered name")]
    share_shown: Annotated[float, Doc("sum of the shares shown")]
    remainder: Annotated[float, Doc("the rest of what speaks for the class: in other places, or in other channels")]
    held_out_precision: Annotated[Share | None, Doc("how often such neighbours carry the predicted class on held-out")]
    chance: Annotated[Share | None, Doc("the same for patches drawn at random")]
    of_target: NotRequired[Annotated[OfTarget, Doc("with `nearest` and `epic`, where it was measured")]]
    lead: NotRequired[Annotated[float, Doc("when measured; the class's logit, less the mean over classes")]]
    deletion: NotRequired[Annotated[float, Doc("what the lead loses when the places shown are hidden at once")]]
    deletion_random: NotRequired[Annotated[float, Doc("the same for as much elsewhere on the picture, mean of eight")]]
    purity: NotRequired[Annotated[float, Doc("with `epic`; of the channels on pictures held out, −1…1")]]
    purity_fit: NotRequired[Annotated[float, Doc("with `epic`; on the pictures they were fitted to")]]
    purity_before: NotRequired[Annotated[float, Doc("with `epic`; on pictures held out, without a rotation")]]
    purity_random: NotRequired[Annotated[float, Doc("with `epic`; on pictures held out, with a random rotation")]]
    logit_difference: NotRequired[Annotated[float, Doc("with `epic`; largest change of a logit by the rotation")]]
    removed: NotRequired[Annotated[Count, Doc("with `voters`")]]
    without: NotRequired[Annotated[str, Doc("with `voters`; the class that is then decided for")]]
    changed: NotRequired[Annotated[Share | None, Doc("with `voters`")]]
    changed_random: NotRequired[Annotated[Share | None, Doc("with `voters`")]]
    changed_on: NotRequired[Annotated[Count, Doc("with `voters`; held-out pictures that was measured on")]]
    verdict: Annotated[Verdict, Doc("as above")]


class Word(TypedDict):
    text: Annotated[str, Doc("as written")]
    label: Annotated[str, Doc("its class")]
    score: Annotated[float, Doc("cosine of picture and text, −1…1")]
    score_other: Annotated[float, Doc("mean cosine of the picture with the other class's texts, −1…1")]
    separates: NotRequired[Annotated[Share, Doc("area under the ROC curve of this text between the two classes on")]]
    adds: NotRequired[Annotated[float, Doc("what it adds to the lead of its class over the other")]]
    attribute: NotRequired[Annotated[str, Doc("what it is about, where it was written to part two classes")]]
    against: NotRequired[Annotated[str, Doc("the class it was written to be told apart from")]]
    written_for: NotRequired[Annotated[str, Doc("the class it was written for, where it was chosen for another")]]


class Control(TypedDict):
    as_good: Annotated[Share, Doc("part of wrong assignments of lists to classes that fit the held-out pictures as")]
    class_beats: Annotated[Share | None, Doc("part of other lists that fit the class's held-out pictures less well")]
    picture_beats: Annotated[Share, Doc("part of other lists that fit this picture less well")]


class WordsMeasured(TypedDict):
    method: Annotated[str, Doc("registered name")]
    decision: Annotated[str, Doc("the class the words alone choose")]
    accuracy: Annotated[Share | None, Doc("of the words alone")]
    accuracy_on: Annotated[str, Doc("the pictures that was measured on")]
    control: Annotated[Control, Doc("the words beside wrong ones; `null` without held-out pictures")]
    verdict: Annotated[Verdict, Doc("as above")]


class AgreementParts(TypedDict):
    neighbours: NotRequired[Annotated[Share, Doc("part of the neighbours that carry the class of `agreement_about`")]]
    words: NotRequired[Annotated[Share, Doc("1 when the words choose that class, else 0")]]
    place: NotRequired[Annotated[float, Doc("rank correlation of the two maps, cut at 0")]]


class Subject(TypedDict):
    label: Annotated[str, Doc("the class whose likenesses and words are shown: the target asked for, or the decision")]
    contrast: Annotated[str | None, Doc("the class it is explained against, or `null`")]
    sentence: Annotated[str | None, Doc("with `--set target_text`, what the map speaks for, in quotation marks")]
    contrast_sentence: Annotated[str | None, Doc("with `--set contrast_text`, what it speaks against; else `null`")]
    against: Annotated[bool, Doc("true where the map shows what speaks against it (counterfactual)")]
    is_decision: Annotated[bool, Doc("true where all of the evidence is about the decision")]
    said: Annotated[str, Doc("the line on the card that says what the evidence is about; empty where `is_decision`")]


class Rle(TypedDict):
    size: Annotated[list[int], Doc("height and width")]
    counts: Annotated[str, Doc("runs down the columns, packed")]


class Outside2(TypedDict):
    probability: Annotated[Share, Doc("of its name, as the picture is")]
    without_inside: Annotated[Share, Doc("the same with the part hidden")]
    without_outside: Annotated[Share, Doc("the same with everything else hidden")]
    fall_inside: Annotated[float, Doc("of the logarithm of the odds, when the part is hidden")]
    fall_outside: Annotated[float, Doc("when everything else is hidden")]
    falls_elsewhere: Annotated[list[float], Doc("when the same shape is hidden in other places")]
    share_inside: Annotated[Share, Doc("part of what the picture does to the odds that is done inside")]
    verdict: Annotated[str, Doc("believable, partly, do not rely or not measured")]


class Part(TypedDict):
    kind: Annotated[str, Doc("box or segment")]
    number: Annotated[int, Doc("its place among those of the picture")]
    n: Annotated[int, Doc("how many the picture has")]
    label: Annotated[str, Doc("the name it was given")]
    score: Annotated[float, Doc("how sure the method is of it, as it has it; not calibrated")]
    box: Annotated[list[float], Doc("left, top, right, bottom around it, in pixels")]
    width: Annotated[int, Doc("of the picture")]
    height: Annotated[int, Doc("of the picture")]
    rle: NotRequired[Annotated[Rle, Doc("the mask as COCO writes it")]]
    outside: Annotated[Outside2 | None, Doc("what hiding inside and outside does; `null` when not measured")]


class Seen(TypedDict):
    picture: Annotated[list[list[int]], Doc("that picture, rows from top to bottom, grey, 0…255")]
    loops: Annotated[Count, Doc("how often it was redrawn")]
    n_copies: Annotated[Count, Doc("disturbed copies that were redrawn, of which it is the mean")]
    moved: Annotated[float, Doc("by how much the last loop moved it")]
    spread: Annotated[float, Doc("how far the copies end from their mean, in the same unit")]
    nearest: Annotated[Memorised, Doc("the memorised picture nearest to it")]
    verdict: Annotated[Verdict, Doc("as above")]


class Picture(TypedDict):
    value: Annotated[Share, Doc("the climbed classifier's own probability, which proves nothing")]
    seen: Annotated[str | None, Doc("the class that the second network sees; `null` where none was named")]
    agrees: Annotated[bool | None, Doc("whether that is the class; `null` where it has no such class")]


class Typical(TypedDict):
    label: Annotated[str, Doc("the class")]
    climbed: Annotated[str, Doc("the network that they were made for")]
    judge: Annotated[str | None, Doc("the second network; `null` where none was named")]
    generator: Annotated[str, Doc("how well the generator draws")]
    pictures: Annotated[list[Picture], Doc("different ones")]
    verdict: Annotated[Verdict, Doc("as above")]


class ExplanationOutput(PredictionOutput):
    """One picture explained, as a saved card's .json."""

    where: Annotated[Where, Doc("the heat map and its measures")]
    like: Annotated[list[LikeRow], Doc("patches of the user's pictures; empty without them")]
    like_measured: NotRequired[Annotated[LikeMeasured, Doc("there when `like` could be made")]]
    like_missing: NotRequired[Annotated[Missing, Doc("there instead of `like_measured`")]]
    words: Annotated[list[Word], Doc("descriptions of the target class, then of the class it is weighed against")]
    words_measured: NotRequired[Annotated[WordsMeasured, Doc("there when there are words")]]
    words_missing: NotRequired[Annotated[Missing, Doc("there instead of `words_measured`")]]
    agreement: Annotated[Share | None, Doc("mean of the parts below")]
    agreement_parts: Annotated[AgreementParts, Doc("the parts that exist")]
    agreement_about: Annotated[str, Doc("the class the agreement is about")]
    subject: NotRequired[Annotated[Subject, Doc("what the evidence is about")]]
    part: NotRequired[Annotated[Part, Doc("the box or segment that is explained, where it is not the whole picture")]]
    model: Annotated[Model, Doc("where the decision comes from")]
    seen: NotRequired[Annotated[Seen, Doc("of a [perceiver](methods/perceptual.md)")]]
    typical: NotRequired[Annotated[Typical, Doc("with `--typical`; pictures of the class that a generator made")]]


class ExplainOutput2(ExplanationOutput):
    card: Annotated[str | None, Doc("path of the card, or `null` without `-o`")]


ExplainOutput = Run | FailureOutput | ExplainOutput2
"""A line of seewhy explain --json."""
