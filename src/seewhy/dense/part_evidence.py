"""Boxes and segments explained: the one look that found them, and where, like what and in words of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from ..attributions.base import Attribution
from ..classifiers.base import Classifier
from ..descriptions.base import Descriptions, Words
from ..encoders.base import EncoderOutput
from ..encoders.stream import Encoded
from ..errors import InputError
from ..evidence.explain import ExplainOptions, explain_seen
from ..evidence.goals import Watched
from ..explanation.base import Explanation, Where
from ..explanation.part import Part
from ..explanation.prediction import Prediction, Ranked
from ..explanation.similar import Like
from ..explanation.verdict import Missing
from ..storage.features import FeatureStore
from .detections import Detections
from .detector import Detector
from .outside import measure_outside
from .part_encoder import PartEngine, PartPlace, WholeEngine, WholePicture, part_encoder, part_picture, place_of
from .pooled_score import PooledScore, PoolsBoxes, cannot_pool
from .segmentation import Segmentation
from .segmenter import Segmenter

T = TypeVar("T", Where | Missing, Like | Missing)
HIDING = "occlusion"
"""The map of a part that a network reads."""
MOST = 20
"""Parts of one picture that are explained unless more are asked for."""
Found = Detections | Segmentation
NO_WORDS = Missing(
    "What this method reads of the part does not stand among words.",
    "Find it by words, with --labels: maskclip and word_regions score it by sentences.",
)
NO_PICTURES = Missing(
    "No pictures of yours were given, so there is nothing to compare with.",
    "Give some with --known: folders of one class each, or pictures with boxes or masks.",
)


@dataclass(frozen=True, eq=False)
class PartExplainer:
    """Explains what a detector or a segmenter found.

    Attributes:
        finder: what finds.
        score: how the score of a part comes from its cells.
        model: the layer as a classifier, on the encoder that looks; each part gets an encoder of its own.
    """

    finder: Detector | Segmenter
    score: PooledScore = field(repr=False)
    model: Classifier = field(repr=False)

    @classmethod
    def of(
        cls, finder: Detector | Segmenter, descriptions: Words | None = None, store: FeatureStore | None = None
    ) -> PartExplainer:
        """For a detector or a segmenter."""
        if isinstance(finder, Segmenter):
            score = finder.scorer.pooled(finder)
        elif isinstance(finder, PoolsBoxes):
            score = finder.pooled()
        else:
            raise cannot_pool(f"a {type(finder).__name__}")
        model = Classifier(score.method, score.parameters, score.reader.encoder, score.classes, score.head)
        if descriptions is not None:
            if score.text(lambda: torch.zeros(1)) is None:
                raise InputError(
                    f"Descriptions were given, and the cells that {score.method} reads are not among words. One whose "
                    "cells are, such as maskclip or word_regions, was expected. Leave the descriptions out."
                )
            own = Descriptions.given(descriptions).texts
            # What is no object has no words of the user's; its name stands for it.
            rest = {name: (name,) for name in score.classes if name not in finder.classes}
            model = model.with_descriptions(Descriptions({**rest, **own}), store)
        return cls(finder, score, replace(model, trained_on=score.trained_on))

    def options(self, options: ExplainOptions) -> ExplainOptions:
        """The same with the map that parts get where none is named."""
        if self.score.reads is not None and options.where is None:
            options = replace(options, where=HIDING)
        method = options.method(self.model.where)
        check_options(options, method)
        if self.score.reads is not None and not method.needs_pixels:
            raise InputError(
                f"A box of {self.score.method} was to be explained with {method.name}, and its score is a network's, "
                "not a layer on its cells. A map that changes the picture was expected. Choose occlusion or rise."
            )
        return options

    def find(self, picture: Any) -> Found:
        """What is in a picture."""
        return self.finder.segment(picture) if isinstance(self.finder, Segmenter) else self.finder.detect(picture)

    def explain(
        self, picture: Any, found: Found, options: ExplainOptions, numbers: Iterable[int] | None = None
    ) -> Iterator[Explanation]:
        """Explain parts of a picture."""
        options = self.options(options)
        parts = parts_of(found)
        chosen = range(1, min(len(parts), MOST) + 1) if numbers is None else sorted(numbers)
        if not chosen:
            return
        whole = WholePicture(self.score, picture)
        small = whole.small()
        for number in chosen:
            yield self._explained(whole, replace(parts[number - 1], picture=small), options)

    def _explained(self, whole: WholePicture, part: Part, options: ExplainOptions) -> Explanation:
        place = place_of(whole, part.box, part.mask)
        engine = PartEngine(whole, place)
        features = place.cut(whole.own_cells)
        model = replace(self.model, encoder=part_encoder(engine), head=place.head)
        picture, view, frame = part_picture(whole, place)
        pooled = model.encoder.head(features)
        target = options.target if options.target is not None else part.label
        own = options if options.target_text is not None else replace(options, target=target)
        seen = Encoded(picture.name, picture.digest, pooled, features[0], picture)
        (made,) = explain_seen(model, [seen], own)
        part = replace(part, frame=frame)
        if options.measure:
            part = replace(part, outside=self._outside(model, engine, place, part, target, options.seed))
        decided = made.prediction
        if part.label in model.classes:
            decided = _named(model, decided, EncoderOutput(features, pooled), part.label)
        subject = made.subject and replace(made.subject, decision=decided.label)
        like = NO_PICTURES if isinstance(made.like, Missing) and model.bank is None else _of_parts(made.like, part)
        words = made.words if model.encoder.has_text else NO_WORDS
        where = _of_parts(made.where, part)
        made = replace(made, where=where, like=like, words=words)
        return replace(made, prediction=decided, view=view, subject=subject, part=part)

    def _outside(
        self, model: Classifier, engine: PartEngine, place: PartPlace, part: Part, target: str | int, seed: int
    ) -> Any:
        on_whole = replace(model, encoder=part_encoder(WholeEngine(engine.whole, place)))
        watched = Watched(on_whole, model.index_of(target))
        return measure_outside(watched, engine.whole.pixels, place.inside, part.kind, seed)


def _of_parts(evidence: T, part: Part) -> T:
    """The same, its verdict being said of the part and of parts held out, not of pictures."""
    if isinstance(evidence, Missing):
        return evidence
    verdict = evidence.verdict
    named = {"of the picture": f"of the {part.kind}", "held-out pictures": "parts of held-out pictures"}
    said, rule = verdict.sentence, verdict.rule
    for whole, own in named.items():
        said, rule = said.replace(whole, own), rule.replace(whole, own)
    return replace(evidence, verdict=replace(verdict, sentence=said, rule=rule))


def _named(model: Classifier, prediction: Prediction, look: EncoderOutput, label: str) -> Prediction:
    """The name that the part was given, with its probability, and the others after it."""
    values = model.head.probabilities(look.pooled)[0]
    others = [one for one in prediction.top if one.label != label][: len(prediction.top) - 1]
    first = Ranked(label, float(values[model.classes.index(label)]))
    return replace(prediction, top=(first, *others), decision=None)


def parts_of(found: Found) -> list[Part]:
    """What was found, each as a part: the surest box or the largest segment first."""
    nothing, frame = torch.zeros(1, 1, 3).byte().numpy(), (0.0, 0.0, 1.0, 1.0)
    if isinstance(found, Detections):
        n = len(found.found)
        return [
            Part("box", i, n, d.label, d.score, d.box, found.size, nothing, frame) for i, d in enumerate(found.found, 1)
        ]
    n = len(found.segments)
    return [
        Part(
            "segment", i, n, s.label, s.score, tuple(map(float, s.box)), found.size, nothing, frame,  # type: ignore[arg-type]
            found.mask_of(s.label), found.coded[s.label],
        )
        for i, s in enumerate(found.segments, 1)
    ]  # fmt: skip


def check_options(options: ExplainOptions, method: Attribution) -> None:
    """See that parts can be explained so."""
    asked = {
        "an inner layer": options.layer, "neurons": options.neurons, "because": options.because,
        "prototypes": options.prototypes, "a typical picture": options.typical, "likenesses by name": options.like,
        method.name: method.needs_attention or method.needs_training or method.needs_words or method.recipe,
    }  # fmt: skip
    if wrong := [name for name, value in asked.items() if value]:
        raise InputError(
            f"A box or segment was to be explained with {wrong[0]}, and is read from the last map alone. A map of "
            "that, or one that changes the picture, was expected. Choose grad_cam, occlusion or rise, and leave it out."
        )
