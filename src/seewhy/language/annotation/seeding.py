"""What a model proposes before anybody has written: boxes with class names and descriptors, and a first text.

A seed saves typing and it anchors: what is wrong in it tends to stay (see ``reproductions/imageinwords.py``). So the
page shows where a text came from, and an empty start is the default where no model is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from ...classifiers import recipe_of
from ...heads.head import Projected
from ..experts import CellDetector, FoundObject, Scene, colour_name, covered, look_at
from ..textualize import position_in_words, sentence_for
from .records import BoxedObject

if TYPE_CHECKING:
    from ...classifiers.base import Classifier


LEAST = 1e-5
"""Width and height of a box at least, of the picture's."""


@dataclass(frozen=True)
class Seed:
    """What is proposed for one picture."""

    author: str
    objects: tuple[BoxedObject, ...]
    text: str


class Seeder(Protocol):
    """Anything that proposes: a classifier here, a detector with a writer elsewhere."""

    def __call__(self, name: str) -> Seed:
        """What is proposed for a picture's file."""
        ...


@dataclass(frozen=True)
class ClassifierSeeder:
    """A classifier's proposal: its objects, or its strongest regions where no place is sure enough."""

    classifier: Classifier
    threshold: float = 0.5
    most: int = 5

    def __call__(self, name: str) -> Seed:
        scene = Scene.read(name)
        found = CellDetector(self.classifier, self.threshold, self.most).detect(scene) or self._regions(scene)
        objects = tuple(
            BoxedObject(f"seed-{i + 1}", o.label, _inside(o.box), self._words(scene, o)) for i, o in enumerate(found)
        )
        return Seed(f"the model ({self.classifier.recipe})", objects, " ".join(sentence_for(o) for o in found))

    def _regions(self, scene: Scene) -> Sequence[FoundObject]:
        """The strongest cells of the decision."""
        explanation = self.classifier.explain(scene.name, measure=False)
        regions = getattr(explanation.where, "regions", ())
        found = []
        for region in regions:
            left, top, right, bottom = region.query_box
            box = (left / scene.width, top / scene.height, right / scene.width, bottom / scene.height)
            colour = colour_name(covered(scene.pixels, box))
            found.append(FoundObject(explanation.prediction.label, box, explanation.prediction.score, colour))
        return found[:1]

    def _words(self, scene: Scene, found: FoundObject) -> str:
        """The class's best descriptor on the picture, or what can be measured: colour and place."""
        words = self.classifier.words
        where = position_in_words(found.box)
        described = words is not None and found.label in words.classes
        if words is None or not described or recipe_of(self.classifier.recipe).words_are == "names":
            return f"{found.colour}, {where}" if found.colour else where
        rows = words.of(words.classes.index(found.label))
        with torch.no_grad():
            joint = Projected(self.classifier.encoder.text)(look_at(self.classifier, scene.name).pooled[:1])
            best = rows[int((joint @ words.vectors[rows].T).argmax())]
        return f"{words.texts[best]}, {where}"


def _inside(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Rounded, and still on the picture."""
    left, top, right, bottom = (round(min(max(v, 0.0), 1.0), 5) for v in box)
    left, top = min(left, 1 - LEAST), min(top, 1 - LEAST)
    return left, top, max(right, round(left + LEAST, 5)), max(bottom, round(top + LEAST, 5))
