"""Scores of the class descriptions for a picture, and controls with wrong descriptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..explanation.base import Word, Words
from ..explanation.kinds import WordControl, WordOrigin
from ..explanation.verdict import Level, Missing, Verdict
from ..heads.head import Projected
from ..heads.sparse_concepts import KeptConcepts
from ..heads.votes import Reason, Reranking
from ..trust.measure import auroc

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..descriptions.base import WordBank

WRONG, BEATS, RIGHT, RIGHT_IN_PART, SEPARATES = 0.01, 0.95, 0.5, 0.25, 0.70
RULE = (
    "SeeWhy compares the descriptions with wrong descriptions on held-out pictures. Wrong descriptions are those of "
    "other classes. If fewer than five classes have pictures, sentences about other subjects are added. The "
    "descriptions are partly believable under two conditions. When SeeWhy assigns the descriptions to wrong classes, "
    "at most 1 in 100 assignments fits the pictures as well as the true assignment. The descriptions of the explained "
    "class fit its held-out pictures, and this picture, better than 95 % of wrong descriptions. Descriptions that made "
    "the decision must also be right on a quarter of the pictures. The descriptions are believable if they also choose "
    "the class without the classifier, are right on half of the pictures, and distinguish the class from the class "
    "that it is compared with (mean area under the ROC curve at least 0.70). Otherwise do not rely on them. Do not "
    "rely on concepts that were not written for these classes. Without held-out pictures, SeeWhy uses the accuracy "
    "measured earlier: the descriptions are believable if they are right on half of the pictures, and partly "
    "believable if they are right on a quarter. In both cases the descriptions must be better than chance and choose "
    "the class."
)
N_SHOWN = 12
"""Largest number of sentences per class on a card."""
_CURE = 'Write descriptions in a file, {"class": ["text", …], …}, and give the file with --descriptions FILE.'


@dataclass(frozen=True)
class WordScores:
    """Cosines of pictures with texts and with classes."""

    texts: Float[Tensor, "b n"]
    classes: Float[Tensor, "b k"]
    measured: Float[Tensor, "b k"]

    def __getitem__(self, index: int) -> WordScores:
        one = slice(index, index + 1)
        return WordScores(self.texts[one], self.classes[one], self.measured[one])


def word_scores(classifier: Classifier, pooled: Float[Tensor, "b d"]) -> WordScores | None:
    """Compute the scores of a batch; ``None`` without descriptions."""
    words = classifier.words
    if words is None:
        return None
    joint = Projected(classifier.encoder.text)(pooled)
    texts = words.scores(joint)
    classes = texts if words.class_weight() is words.vectors else joint @ words.class_weight().T
    same = words.measured is words
    return WordScores(texts, classes, classes if same else joint @ words.measured.class_weight().T)


@dataclass(frozen=True)
class _Pair:
    """The explained class and the class it is compared with."""

    classifier: Classifier
    label: int
    other: int
    control: WordControl | None

    @property
    def both_ways(self) -> list[tuple[int, int]]:
        """The pairs (class, other class) and (other class, class), without duplicates."""
        ways = [(self.label, self.other), (self.other, self.label)]
        return ways[: 1 + (self.label != self.other)]

    def held_out(self, scores: Callable[[Float[Tensor, "n d"]], Float[Tensor, "n m"]]) -> Float[Tensor, "n m"] | None:
        """Return the scores of the held-out pictures of both classes, or ``None``."""
        held = self.classifier.held_out
        return None if held is None or self.label == self.other else scores(held.pooled[self._of_both(held.labels)])

    def _of_both(self, labels: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return (labels == self.label) | (labels == self.other)

    def separates(self, scores: Float[Tensor, " n"], one: int) -> float | None:
        """Return the area under the ROC curve of a score between the two classes."""
        held = self.classifier.held_out
        assert held is not None
        labels = held.labels[self._of_both(held.labels)]
        return auroc(scores[labels == one], scores[labels != one])

    def answer(self, method: str, shown: Sequence[Word], decision: int, would_change: str) -> Words:
        c = self.classifier
        label, chosen = c.classes[self.label], c.classes[decision]
        areas = [w.separates for w in shown if w.label == label and w.separates is not None]
        verdict = _judge(c, areas, decision, self.label, self.other, self.control)
        measured = (c.words_accuracy, c.words_accuracy_on)
        return Words(method, tuple(shown), chosen, *measured, would_change, verdict, self.control)


def show_words(
    classifier: Classifier, pooled: Float[Tensor, " d"], label: int, other: int, scored: WordScores | None = None
) -> Words | Missing:
    """Return the scores of two classes' descriptions, and a verdict on them."""
    found, votes = scored or word_scores(classifier, pooled[None]), classifier.head.votes
    measure = classifier.measured_words
    control = None
    if found is not None and measure is not None:
        joint = Projected(classifier.encoder.text)(pooled[None])[0]
        control = measure.of(label, joint.detach(), found.measured[0].detach())
    pair = _Pair(classifier, label, other, control)
    if classifier.decided_by_words and isinstance(votes, KeptConcepts):
        return _kept(pair, votes, pooled)
    if found is None or classifier.words is None:
        if not classifier.encoder.has_text:
            if classifier.network is not None and classifier.network.base.has_text:
                reason = "The encoder's texts match its pictures only before it is trained."
                return Missing(reason, "Use --method linear or fine_tune.")
            reason = f"The encoder {classifier.encoder.name} reads no text."
            cure = "Use an image-text encoder: lite0, open_clip:MODEL/PRETRAINED, or a CLIP model, hf:ORG/NAME."
            return Missing(reason, cure)
        return Missing("No descriptions of your classes were given.", _CURE)
    if classifier.decided_by_words and isinstance(votes, Reranking):
        return _second_look(pair, votes, pooled)
    return _described(pair, classifier.words, found)


def _described(pair: _Pair, words: WordBank, found: WordScores) -> Words:
    """Return the sentences of both classes, highest cosine first."""
    scores, by_class, measured = found.texts[0], found.classes[0], found.measured[0]
    text = pair.classifier.encoder.text
    held = pair.held_out(lambda pooled: words.measured.scores(Projected(text)(pooled)))
    shown = [
        Word(
            words.texts[i],
            words.classes[c],
            float(scores[i]),
            float(by_class[other]),
            None if held is None else pair.separates(held[:, i], c),
        )
        for c, other in pair.both_ways
        for i in sorted(words.of(c), key=lambda i: -float(scores[i]))
    ]
    would_change = _would_change(words, scores, measured, pair.label, pair.other)
    return pair.answer("described", shown, int(measured.argmax()), would_change)


def _second_look(pair: _Pair, decides: Reranking, pooled: Float[Tensor, " d"]) -> Words:
    """Return the sentences that decided between the candidate classes."""
    head, names = pair.classifier.head, pair.classifier.classes
    scores = head.feature(pooled[None]) @ head.weight.T
    among = decides.ambiguous(scores)
    cosines = scores[0] / head.weight.norm(dim=1).clamp(min=1e-12)
    # A class that is no candidate has only its own sentences.
    used = {c: decides.reasons(among[0], c) if c in among[0].tolist() else () for c, _ in pair.both_ways}
    means = {c: float(cosines[[r.row for r in reasons] or [c]].mean()) for c, reasons in used.items()}
    held = pair.held_out(lambda pooled: head.feature(pooled) @ head.weight.T)
    shown = [
        Word(
            reason.text,
            names[c],
            float(cosines[reason.row]),
            means[other],
            None if held is None else pair.separates(held[:, reason.row], c),
            _origin(reason, names),
        )
        for c, other in pair.both_ways
        for reason in sorted(used[c], key=lambda r: (r.against != other, -float(cosines[r.row])))[:N_SHOWN]
    ]
    most = max(map(len, used.values()))
    in_question = f"The descriptions decided between {', '.join(names[i] for i in among[0].tolist())}."
    if most > N_SHOWN:
        in_question += f" The card shows up to {N_SHOWN} of {most} sentences per class."
    return pair.answer(decides.name, shown, int(decides.by_words(scores)[0]), in_question)


def _kept(pair: _Pair, decides: KeptConcepts, pooled: Float[Tensor, " d"]) -> Words:
    """Return the concepts of a picture, with their contributions to the difference of the two classes' logits."""
    classifier, names = pair.classifier, pair.classifier.classes
    head = classifier.head

    def of_pictures(pooled: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        return head.feature(pooled) @ head.weight.T

    scores, held = of_pictures(pooled[None]), pair.held_out(of_pictures)
    kept = decides.which(scores)[0].nonzero()[:, 0]
    adds = decides.values(scores)[0] * (decides.layer[pair.label] - decides.layer[pair.other])
    shown: list[Word] = []
    for (c, other), sign in zip(pair.both_ways, (1.0, -1.0), strict=False):
        for row in kept[(-sign * adds[kept]).argsort(stable=True)].tolist():
            if sign * float(adds[row]) <= 0 and pair.label != pair.other:
                continue
            # A concept may be evidence for a class by a value below its mean.
            towards = torch.sign(decides.layer[c, row] - decides.layer[other, row])
            area = None if held is None else pair.separates(held[:, row] * towards, c)
            value = abs(float(adds[row]))
            shown.append(
                Word(decides.texts[row], names[c], float(scores[0, row]), float(decides.mean[row]), area, adds=value)
            )
    everything = None if classifier.held_out is None else of_pictures(classifier.held_out.pooled)
    would_change = _taken_out(classifier, decides, scores, everything)
    words = pair.answer(decides.name, shown, int(decides.by_words(scores)[0]), would_change)
    if classifier.words is not None:
        return words
    # The concepts were not written for these classes.
    foreign = "The concepts were not written for these classes, so meaningless concepts may fit equally well."
    return replace(words, verdict=replace(words.verdict, level="do not rely", sentence=foreign))


def _taken_out(
    classifier: Classifier, decides: KeptConcepts, scores: Float[Tensor, "1 m"], held: Float[Tensor, "n m"] | None
) -> str:
    """Return a text on how often the prediction changes without the strongest concepts, and without random concepts."""
    logits, without = decides.without(scores)
    label = classifier.classes[int(without[0].argmax())]
    stays = "the same" if int(without[0].argmax()) == int(logits[0].argmax()) else label
    strongest = "concept that adds most" if decides.n_out == 1 else f"{decides.n_out} concepts that add most"
    text = (
        f"{decides.kept} of {len(decides.texts)} concepts make the decision. Without the {strongest}, the decision "
        f"would be {stays}."
    )
    if held is None:
        return text
    whole, most = (found.argmax(1) for found in decides.without(held))
    other = decides.without(held, at_random=True)[1].argmax(1)
    return (
        f"{text} On held-out pictures, removing the strongest concepts changes "
        f"{100 * (float((whole != most).float().mean())):.0f} % "
        f"of the decisions; removing random concepts changes {100 * (float((whole != other).float().mean())):.0f} %."
    )


def _origin(reason: Reason, names: Sequence[str]) -> WordOrigin | None:
    if reason.attribute is None and reason.against is None and reason.written_for is None:
        return None
    against, origin = (None if i is None else names[i] for i in (reason.against, reason.written_for))
    return WordOrigin(reason.attribute, against, origin)


def _would_change(
    words: WordBank, scores: Float[Tensor, " n"], by_class: Float[Tensor, " k"], predicted: int, runner_up: int
) -> str:
    if predicted == runner_up:
        return ""
    gap = float(by_class[predicted] - by_class[runner_up])
    other = words.classes[runner_up]
    if gap < 0:
        return f"The descriptions of {other} fit better than those of {words.classes[predicted]} by {-gap:.3f}."
    weakest = min(words.of(runner_up), key=lambda i: float(scores[i]))
    return (
        f"The descriptions would choose {other} if the descriptions of {other} fitted better by {gap:.3f} on average. "
        f"The worst of them is “{words.texts[weakest]}”."
    )


def _judge(
    classifier: Classifier,
    areas: Sequence[float],
    decision: int,
    predicted: int,
    runner_up: int,
    control: WordControl | None,
) -> Verdict:
    label, chosen = classifier.classes[predicted], classifier.classes[decision]
    agrees, accuracy = decision == predicted, classifier.words_accuracy
    choice = f"The descriptions alone {'also ' if agrees else ''}choose {chosen}" + ("" if agrees else f", not {label}")
    right = "" if accuracy is None else f" They are right on {100 * accuracy:.0f} % of {classifier.words_accuracy_on}."
    if control is not None:
        area = sum(areas) / len(areas) if areas else None
        other = classifier.classes[runner_up]
        parted = (
            ""
            if area is None
            else f" They distinguish {label} from {other} with an area under the ROC curve of {area:.2f}."
        )
        clear = agrees and (accuracy or 0.0) >= RIGHT and area is not None and area >= SEPARATES
        level = _level(control, clear, enough=not classifier.decided_by_words or (accuracy or 0.0) >= RIGHT_IN_PART)
        figures = f"{_beside(control, label)}{parted} {choice}.{right}"
        return Verdict(level, _against_wrong(level, control, label, choice), RULE, figures)
    if accuracy is None or classifier.held_out is not None:
        held = classifier.held_out
        if held is None or len(held.labels.unique()) < 2:
            choice += "; their accuracy is unknown, because there are no held-out pictures of two classes"
        return Verdict("not measured", f"{choice}.", RULE, right.strip())
    if accuracy <= 1 / len(classifier.classes):
        choice += f", but may be no better than chance (1 in {len(classifier.classes)})"
    elif agrees and accuracy >= RIGHT_IN_PART:
        if accuracy >= RIGHT:
            return Verdict("believable", f"{choice}.", RULE, right.strip())
        return Verdict("partly", f"{choice}; on most other pictures they are wrong.", RULE, right.strip())
    return Verdict("do not rely", f"{choice}.", RULE, right.strip())


def _against_wrong(level: Level, control: WordControl, label: str, choice: str) -> str:
    if level == "not measured":
        return f"There are no held-out pictures of {label} to check its descriptions with."
    if level == "do not rely":
        as_well = control.picture_beats < BEATS
        return f"Descriptions of other classes fit {'this picture' if as_well else 'your pictures'} equally well."
    if level == "believable":
        return f"{choice}, and fit this picture better than {_part(control.picture_beats)} of wrong descriptions."
    return (
        f"The descriptions fit better than {_part(control.picture_beats)} of wrong ones, but do not choose a class "
        f"reliably."
    )


def _level(control: WordControl, clear: bool, *, enough: bool) -> Level:
    if control.as_good > WRONG or control.picture_beats < BEATS or not enough:
        return "do not rely"
    if control.class_beats is None:
        return "not measured"
    if control.class_beats < BEATS:
        return "do not rely"
    return "believable" if clear else "partly"


def _beside(control: WordControl, label: str) -> str:
    wrong = f"{100 * control.as_good:.1f} %" if control.as_good < 0.1 else f"{100 * control.as_good:.0f} %"
    on_others = (
        "; this class has no held-out pictures"
        if control.class_beats is None
        else f" and {_part(control.class_beats)} on held-out ones"
    )
    return (
        f"The descriptions of {label} fit better than {_part(control.picture_beats)} of wrong ones on this "
        f"picture{on_others} (95 % is needed). Assigned to wrong classes, descriptions fit equally well in {wrong} "
        f"of cases (1 % is allowed)."
    )


def _part(value: float) -> str:
    """Format a share in per cent, rounded down."""
    return f"{int(value * 100 + 1e-9)} %"


def words_heat(
    classifier: Classifier,
    grids: Float[Tensor, "b c h w"],
    pooled: Float[Tensor, "b d"],
    predicted: Sequence[int],
    runners_up: Sequence[int],
) -> Float[Tensor, "b h w"] | None:
    """Return maps of how much better the descriptions of a class fit each place than those of the other class."""
    words = classifier.words
    if words is None or not classifier.encoder.is_average:
        return None
    weight = words.class_weight()
    differ = torch.tensor(predicted) != torch.tensor(runners_up)
    rows = weight[predicted] - weight[runners_up] * differ[:, None]
    slope = Projected(classifier.encoder.text).slope(pooled, rows)
    return torch.einsum("bc,bchw->bhw", slope, grids)


class WordMap(NamedTuple):
    label: str
    text: str
    heat: np.ndarray


def word_maps(
    classifier: Classifier, grid: Float[Tensor, "c h w"], pooled: Float[Tensor, " d"], one: int, other: int
) -> tuple[WordMap, ...] | Missing:
    """Return a map for each sentence of two classes, against the mean of the other class's sentences.

    The map divides the difference between two cosines among the grid cells ``ij``: that of the picture ``x`` with a
    sentence ``d`` of one class, and that with ``mean_b``, the mean text embedding of the other class::

        (d − mean_b) · x = const + Σ_ij s · z_ij / (h w)      s = ∂((d − mean_b) · P(v)) / ∂v / |P(v)|

    ``v`` is the mean of the features ``z`` over the ``h × w`` grid cells, ``P`` is the affine projection into the space
    shared with texts, and ``x = P(v) / |P(v)|``. Each sentence takes one gradient with respect to ``v``. Values are
    unbounded.
    """
    words = classifier.words
    if words is None:
        return Missing("This classifier has no descriptions.", "Give some with --descriptions FILE.")
    if not classifier.encoder.is_average:
        return Missing(
            f"The encoder {classifier.encoder.name} does not use mean pooling, so a sentence has no exact map.",
            "Use a mean-pooled encoder: lite0, or a convolutional one.",
        )
    means = words.class_weight()
    pairs = [(one, other)] + ([(other, one)] if other != one else [])
    which = [(i, c, against) for c, against in pairs for i in words.of(c)]
    rows = torch.stack([words.vectors[i] - (means[b] if a != b else 0) for i, a, b in which])
    slopes = Projected(classifier.encoder.text).slope(pooled[None].expand(len(rows), -1), rows)
    maps = torch.einsum("nc,chw->nhw", slopes, grid) / grid[0].numel()
    return tuple(WordMap(words.classes[c], words.texts[i], m.numpy()) for (i, c, _), m in zip(which, maps, strict=True))
