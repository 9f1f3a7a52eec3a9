"""In words: which descriptions hold for this picture, and whether they mean anything on held-out pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..classifiers.head import Projected
from ..explanation import Missing, Verdict, Word, Words

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..descriptions.base import WordBank

RULE = (
    "With held-out pictures: believable when the words of the predicted class separate it from the runner-up (mean "
    "area under the ROC curve at least 0.70) and the words alone choose the same class; partly when only one of the "
    "two holds, the area being at least 0.60. Without pictures of both classes, by the accuracy of the words alone: "
    "believable from one half, partly from one quarter, each when they choose the same class. Otherwise do not rely "
    "on them."
)
_CURE = (
    'Write descriptions, {"class": ["text", …], …}, and give them with --descriptions FILE when fitting or explaining.'
)


def show_words(classifier: Classifier, pooled: Float[Tensor, " d"], predicted: int, runner_up: int) -> Words | Missing:
    """Scores of the descriptions of two classes, and the verdict on them."""
    words = classifier.words
    if words is None:
        if not classifier.encoder.has_text:
            reason = f"The encoder {classifier.encoder.name} has no text half."
            return Missing(reason, "Use an image-text encoder: lite0, open_clip:MODEL/PRETRAINED, or a CLIP under hf:.")
        return Missing("No descriptions of your classes were given.", _CURE)
    joint = Projected(classifier.encoder.text)(pooled[None])
    scores = words.scores(joint)[0]
    by_class = (joint @ words.class_weight().T)[0]
    decision = int(by_class.argmax())
    auc = separation(classifier, words, predicted, runner_up)
    pairs = [(predicted, runner_up)] + ([(runner_up, predicted)] if runner_up != predicted else [])
    shown = tuple(
        Word(words.texts[i], words.classes[c], float(scores[i]), float(by_class[other]), auc.get(i))
        for c, other in pairs
        for i in sorted(words.of(c), key=lambda i: -float(scores[i]))
    )
    return Words(
        "described",
        shown,
        words.classes[decision],
        classifier.words_accuracy,
        classifier.words_accuracy_on,
        _would_change(words, scores, by_class, predicted, runner_up),
        _judge(classifier, [auc[i] for i in words.of(predicted) if i in auc], decision, predicted, runner_up),
    )


def separation(classifier: Classifier, words: WordBank, one: int, other: int) -> dict[int, float]:
    """For each text of the two classes: how well its score alone tells its class from the other, held out."""
    held = classifier.held_out
    if held is None or one == other:
        return {}
    mine, theirs = held.labels == one, held.labels == other
    if not (mine.any() and theirs.any()):
        return {}
    joint = Projected(classifier.encoder.text)(held.pooled[mine | theirs])
    scores = words.scores(joint)
    is_one = mine[mine | theirs]
    found = {i: area_under_roc(scores[:, i], is_one) for i in words.of(one)}
    found.update({i: area_under_roc(scores[:, i], ~is_one) for i in words.of(other)})
    return found


def area_under_roc(scores: Float[Tensor, " n"], positive: Bool[Tensor, " n"]) -> float:
    """Probability that a positive scores higher than a negative, ties counted half."""
    gap = scores[positive][:, None] - scores[~positive][None, :]
    return float(((gap > 0).float() + 0.5 * (gap == 0).float()).mean())


def _would_change(
    words: WordBank, scores: Float[Tensor, " n"], by_class: Float[Tensor, " k"], predicted: int, runner_up: int
) -> str:
    if predicted == runner_up:
        return ""
    gap = float(by_class[predicted] - by_class[runner_up])
    other = words.classes[runner_up]
    if gap < 0:
        return f"By the words alone {other} is already ahead by {-gap:.3f}."
    weakest = min(words.of(runner_up), key=lambda i: float(scores[i]))
    return (
        f"For {other}, its descriptions would have to score {gap:.3f} higher on average; "
        f"furthest from holding is “{words.texts[weakest]}”."
    )


def _judge(classifier: Classifier, areas: list[float], decision: int, predicted: int, runner_up: int) -> Verdict:
    label, chosen = classifier.classes[predicted], classifier.classes[decision]
    agrees = decision == predicted
    accuracy = classifier.words_accuracy
    choice = f"The words alone choose {chosen}" + ("" if agrees else f", not {label}")
    if accuracy is not None:
        choice += f"; alone they are right on {accuracy:.0%} of {classifier.words_accuracy_on}"
    if areas:
        area = sum(areas) / len(areas)
        other = classifier.classes[runner_up]
        parted = f"the words for {label} separate it from {other} with {area:.2f} (chance 0.50)"
        figures = f"On held-out pictures {parted}. {choice}."
        if area >= 0.7 and agrees:
            return Verdict("believable", figures, RULE)
        return Verdict("partly" if area >= 0.6 and (agrees or area >= 0.7) else "do not rely", figures, RULE)
    if accuracy is None:
        return Verdict("not measured", f"{choice}; without labelled pictures their worth is not known.", RULE)
    if not agrees:
        return Verdict("do not rely", f"{choice}.", RULE)
    level = "believable" if accuracy >= 0.5 else "partly" if accuracy >= 0.25 else "do not rely"
    return Verdict(level, f"{choice}.", RULE)  # type: ignore[arg-type]


def words_heat(
    classifier: Classifier, grid: Float[Tensor, "c h w"], pooled: Float[Tensor, " d"], predicted: int, runner_up: int
) -> Float[Tensor, "h w"] | None:
    """Where the words of the class hold rather than the runner-up's; only behind a mean-pooled head."""
    words = classifier.words
    if words is None or not classifier.encoder.is_average:
        return None
    weight = words.class_weight()
    rows = weight[predicted] - (weight[runner_up] if runner_up != predicted else torch.zeros_like(weight[0]))
    slope = Projected(classifier.encoder.text).slope(pooled[None], rows[None])[0]
    return torch.einsum("c,chw->hw", slope, grid)
