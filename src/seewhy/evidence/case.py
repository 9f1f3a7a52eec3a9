"""The explained picture, the question about it, and the data that all kinds of evidence use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..attributions import Attribution
from ..attributions.neuron_words import dictionary, important_channels
from ..attributions.shares import cell_evidence, shares, strongest_cells
from ..encoders.base import Encoder, EncoderOutput
from ..encoders.stream import Encoded
from ..errors import InputError
from ..explanation.base import Neuron, Region, Subject
from ..explanation.prediction import Prediction
from ..heads.head import Head, Projected, Target, TargetFunction
from ..pictures.images import Picture
from ..prototypes.bank import cell_box
from ..types import PixelBox
from .words import WordScores, word_scores, words_heat

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from .explain import ExplainOptions

LEAST = 0.5
"""Smallest heat of a lettered region, as a share of the heat of the hottest region."""


@dataclass(frozen=True)
class Sentences:
    """A stand-in for a classifier whose logits are the cosines with one or two sentences."""

    encoder: Encoder
    head: Head
    classes: tuple[str, ...]

    @classmethod
    def of(cls, encoder: Encoder, text: str | None, against: str | None = None) -> Sentences | None:
        """Encode the user's sentences; ``None`` if there are none."""
        texts = [t.strip() for t in (text, against) if t is not None]
        if not texts:
            return None
        if text is None or not all(texts):
            raise InputError(
                "`target_text` must not be empty. Give a sentence with --set target_text=…; `contrast_text` is "
                "optional."
            )
        head = Head(Projected(encoder.text), encoder.encode_text(texts))
        return cls(encoder, head, tuple(f'"{t}"' for t in texts))

    @property
    def contrast(self) -> int | None:
        return 1 if len(self.classes) > 1 else None

    def goal(self, n_pictures: int) -> TargetFunction:
        """Return the cosine with the sentence, minus the cosine with the contrast sentence if there is one."""
        if self.contrast is None:
            return lambda logits: logits[:, 0]
        first = torch.zeros(n_pictures, dtype=torch.long)
        return Target(first, first + 1)

    def probabilities(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Return cosines, or their differences from the contrast sentence."""
        with torch.no_grad():
            cosines = self.head(self.encoder.pooled(pixels))
        return cosines if self.contrast is None else cosines - cosines[:, 1:]


@dataclass(frozen=True)
class Watched:
    """The explained output, computed for changed copies of the picture."""

    subject: Classifier | Sentences
    target: int
    contrast: int | None = None
    rival: int | None = None
    against: bool = False

    @property
    def of_sentence(self) -> bool:
        """Whether a sentence is explained instead of a class."""
        return isinstance(self.subject, Sentences)

    @property
    def quantity(self) -> str:
        if self.of_sentence:
            return "similarity"
        return "probability" if self.contrast is None else f"probability of {self.name}"

    @property
    def name(self) -> str:
        rather = "" if self.contrast is None else f" rather than {self.name_of(self.contrast)}"
        return f"{self.name_of(self.target)}{rather}"

    def name_of(self, index: int) -> str:
        """Return the name of a class; for a counterfactual map, "anything but" the class."""
        name = self.subject.classes[index]
        return f"anything but {name}" if self.against else name

    def read(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3"]:
        """Return three numbers per picture: the probability, its log odds, and the difference from the logit of the
        rival class.

        If there is a contrast, the probability and the log-odds compare the target with the contrast. If a
        sentence is explained, both are the cosine or the difference of cosines.
        """
        sign = -1.0 if self.against else 1.0
        with torch.no_grad():
            if isinstance(self.subject, Sentences):
                cosine = self.subject.probabilities(pixels)[:, self.target]
                value = 1 - cosine if self.against else cosine
                return torch.stack([value, sign * cosine, torch.zeros_like(cosine)], 1)
            logits = self.subject.head(self.subject.encoder.pooled(pixels)).double()
        mine = logits[:, self.target]
        if self.contrast is None:
            others = logits.clone()
            others[:, self.target] = -torch.inf
            odds = mine - others.logsumexp(1)
        else:
            odds = mine - logits[:, self.contrast]
        lead = mine - logits[:, self.target if self.rival is None else self.rival]
        return torch.stack([(sign * odds).sigmoid(), sign * odds, sign * lead], 1).float()


@dataclass(frozen=True)
class Question:
    classifier: Classifier
    options: ExplainOptions
    method: Attribution
    target: int | None
    contrast: int | None
    sentences: Sentences | None

    @classmethod
    def of(cls, classifier: Classifier, options: ExplainOptions) -> Question:
        """Build the question from the options.

        Raises:
            InputError: the options contradict each other.
        """
        method = options.method(classifier.where)
        sentences = Sentences.of(classifier.encoder, options.target_text, options.contrast_text)
        if sentences is not None and (options.target, options.contrast) != (None, None):
            raise InputError("A class and a sentence cannot be explained together. Give either target or target_text.")
        target, contrast = (
            None if label is None else classifier.index_of(label) for label in (options.target, options.contrast)
        )
        asked = cls(classifier, options, method, target, contrast, sentences)
        if asked.against and (options.contrast, options.contrast_text) != (None, None):
            raise InputError(
                "`contrast` cannot be combined with `counterfactual`: evidence against one class is evidence for the "
                "other. Exchange --target and --contrast, and drop `counterfactual`."
            )
        both = (asked.target, asked.contrast) if sentences is None else (options.target_text, options.contrast_text)
        if both[0] is not None and both[0] == both[1]:
            raise InputError("`target` and `contrast` must be two different classes.")
        return asked

    @property
    def against(self) -> bool:
        """Whether the map shows evidence against the target."""
        return bool(getattr(self.method, "counterfactual", False))

    @property
    def subject(self) -> Classifier | Sentences:
        return self.classifier if self.sentences is None else self.sentences


@dataclass(frozen=True, eq=False)
class Case:
    question: Question
    encoded: Encoded
    probabilities: Float[Tensor, " k"]
    target: int
    contrast: int | None
    heat: Float[Tensor, "h w"]
    share: Float[Tensor, "gh gw"]
    neurons: tuple[Neuron, ...]
    scores: WordScores | None
    spoken: Float[Tensor, "gh gw"] | None

    @property
    def classifier(self) -> Classifier:
        return self.question.classifier

    @property
    def options(self) -> ExplainOptions:
        return self.question.options

    @property
    def picture(self) -> Picture:
        assert self.encoded.picture is not None
        return self.encoded.picture

    @property
    def pooled(self) -> Float[Tensor, " d"]:
        return self.encoded.pooled[0]

    @property
    def label(self) -> str:
        return self.classifier.classes[self.target]

    @property
    def other(self) -> int:
        """Index of the class that the target is compared with: the contrast, or the most probable other class."""
        return runner_up(self.probabilities, self.target) if self.contrast is None else self.contrast

    @property
    def look(self) -> EncoderOutput:
        assert self.encoded.features is not None
        return EncoderOutput(self.encoded.features[None], self.encoded.pooled[:1])

    @cached_property
    def pixels(self) -> Float[Tensor, "3 h w"] | None:
        """Normalised pixels; ``None`` if nothing is measured."""
        return self.classifier.encoder.pixels([self.picture.pixels])[0] if self.options.measure else None

    @cached_property
    def cells(self) -> list[tuple[int, int]]:
        """The grid cells of the hottest regions or, without heat, those with the largest shares of the evidence."""
        h, w = self.share.shape
        hot = adaptive_avg_pool2d(self.heat.clamp(min=0)[None], (h, w))[0]
        hot = hot if bool((hot > 0).any()) else self.share
        least = LEAST * float(hot.max())
        return [cell for cell in strongest_cells(hot, self.options.n_regions) if float(hot[cell]) >= least]

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        regions, shares = [], self.share.tolist()
        for letter, (row, column) in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", self.cells, strict=False):
            box = cell_box((row, column), (self.share.shape[0], self.share.shape[1]))
            regions.append(Region(letter, box, self.picture.to_original(box), shares[row][column]))
        return tuple(regions)

    @cached_property
    def watched(self) -> Watched:
        """The outputs to compute for changed copies; the rival is the most probable class that is not explained."""
        if (sentences := self.question.sentences) is not None:
            return Watched(sentences, 0, sentences.contrast, against=self.question.against)
        best = self.probabilities.topk(min(3, len(self.probabilities))).indices.tolist()
        rival = next((k for k in best if k not in (self.target, self.contrast)), None)
        return Watched(self.classifier, self.target, self.contrast, rival, self.question.against)

    def heat_of(self, index: int) -> Float[Tensor, "h w"]:
        contrast = None if self.contrast is None else torch.tensor([self.contrast])
        pixels = None if self.pixels is None else self.pixels[None]
        look = EncoderOutput(self.look.features, self.look.pooled, pixels)
        return self.question.method(self.classifier, look, Target(torch.tensor([index]), contrast))[0]

    @cached_property
    def prediction(self) -> Prediction:
        name, o = self.encoded.name, self.options
        return self.classifier.prediction(name, self.probabilities, o.top, self.pooled, o.level)

    @cached_property
    def subject(self) -> Subject:
        classes, asked, decision = self.classifier.classes, self.question.contrast, self.prediction.decision
        names = () if self.question.sentences is None else self.question.sentences.classes
        return Subject(
            decision=self.prediction.label,
            label=self.label,
            contrast=None if self.contrast is None else classes[self.contrast],
            asked_contrast=None if asked is None else classes[asked],
            sentence=names[0] if names else None,
            contrast_sentence=names[1] if len(names) > 1 else None,
            against=self.question.against,
            unknown=decision is not None and decision.is_unknown,
        )


def cases(question: Question, encoded: Sequence[Encoded]) -> list[Case]:
    """Compute maps, shares, neurons and description scores of a batch of pictures."""
    classifier, method = question.classifier, question.method
    pictures = [one.picture for one in encoded if one.picture is not None]
    pixels = classifier.encoder.pixels([p.pixels for p in pictures]) if method.reads_pixels else None
    features = torch.stack([one.features for one in encoded if one.features is not None])
    look = EncoderOutput(features, torch.cat([one.pooled for one in encoded]), pixels)
    probabilities = classifier.head.probabilities(look.pooled)
    named, contrast = question.target, question.contrast
    targets = probabilities.argmax(1) if named is None else torch.full((len(encoded),), named)
    # If the contrast is the predicted class, it is compared with the most probable other class.
    contrasts = [
        contrast if k != contrast else runner_up(p, k) for p, k in zip(probabilities, targets.tolist(), strict=True)
    ]
    goal: TargetFunction = Target(targets, None if contrast is None else torch.tensor(contrasts))
    if question.sentences is not None:
        goal = question.sentences.goal(len(encoded))
    heats = method(question.subject, look, goal)
    evidence = cell_evidence(question.subject, look, goal)
    share = shares(-evidence if question.against else evidence)
    neurons = important_neurons(question, look, goal, pictures)
    others = [
        runner_up(p, k) if other is None else other
        for p, k, other in zip(probabilities, targets.tolist(), contrasts, strict=True)
    ]
    scores = word_scores(classifier, look.pooled)
    grids = classifier.encoder.layout.to_grid(look.features)
    spoken = words_heat(classifier, grids, look.pooled, targets.tolist(), others)
    nothing = [None] * len(encoded)
    scored = nothing if scores is None else [scores[i] for i in range(len(encoded))]
    where = nothing if spoken is None else list(spoken)
    columns = (encoded, probabilities, targets.tolist(), contrasts, heats, share, neurons, scored, where)
    return [Case(question, *row) for row in zip(*columns, strict=True)]


def important_neurons(
    question: Question, look: EncoderOutput, goal: TargetFunction, pictures: Sequence[Picture]
) -> list[tuple[Neuron, ...]]:
    """Return, for each picture, the channels that most raise and most lower the target's score."""
    classifier, n = question.classifier, question.options.neurons
    if n == 0:
        return [()] * len(look)
    bank = classifier.words if classifier.encoder.classifier is None else None
    given = None if bank is None else (bank.texts, bank.vectors)
    words = dictionary(classifier, look.features.shape[1], given)
    grid = (look.features.shape[2], look.features.shape[3])

    def place(i: int, cell: tuple[int, int]) -> PixelBox:
        return pictures[i].to_original(cell_box(cell, grid))

    return important_channels(question.subject, look, goal, words, n, place)


def runner_up(probabilities: Float[Tensor, " k"], target: int) -> int:
    """Return the most probable class other than ``target``; ``target`` itself if it is the only class."""
    if len(probabilities) == 1:
        return target
    first, second = probabilities.topk(2).indices.tolist()
    return int(second if first == target else first)
