"""A second network says what is on the made pictures: never the one that was climbed, which would always agree."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.base import Classifier
from ..classifiers.zero_shot import ZeroShot
from ..encoders.base import Encoder
from ..errors import InputError
from .conditions import Condition
from .reader import Reader, batched


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the judge sees on one picture.

    Attributes:
        label: its likeliest class.
        probability: of the class that was asked for; of ``label`` where it has no such class.
        agrees: whether ``label`` is what was asked for; ``None`` where it has no such class.
    """

    label: str
    probability: float
    agrees: bool | None


@dataclass(frozen=True, eq=False)
class Judge:
    """A classifier of another network.

    Attributes:
        classifier: what decides.
        asked: what the pictures are to show.
    """

    classifier: Classifier
    asked: str

    @property
    def name(self) -> str:
        """As people are told it."""
        return f"{self.classifier.recipe} on {self.classifier.encoder.name}"

    @classmethod
    def of(cls, given: Classifier | Encoder, condition: Condition, classes: tuple[str, ...]) -> Judge:
        """A judge of what was climbed.

        Args:
            given: a classifier; or an encoder with words, which tells the climbed classifier's classes by name.
            condition: what was climbed.
            classes: of the climbed classifier.

        Raises:
            InputError: it is the network that was climbed.
            ModelError: an encoder without words.
        """
        encoder = given if isinstance(given, Encoder) else given.encoder
        if encoder.looks == condition.encoder.looks:
            raise InputError(
                f"The judge looks through {encoder.name!r}, the network that was climbed, which agrees with any "
                "picture made for it. Another network was expected. Name one with --judge, or leave it out."
            )
        if isinstance(given, Encoder):
            own = () if condition.asked in classes or not condition.in_words else (condition.asked,)
            names = (*classes, *own)
            if len(names) < 2:
                raise InputError(
                    f"{encoder.name!r} was to judge by names, and the model has no classes to tell apart. Names, or a "
                    "classifier as judge, were expected. Give --labels, or a classifier's folder with --judge."
                )
            given = ZeroShot().build(given, names)
        return cls(given, condition.asked)

    def look(self, pictures: Float[Tensor, "n 3 s s"]) -> tuple[list[Verdict], Float[Tensor, "n d"]]:
        """What is on each picture, and its features, of unit length."""
        pooled = batched(Reader(self.classifier.encoder), pictures.clamp(0, 1))
        classes = self.classifier.classes
        index = classes.index(self.asked) if self.asked in classes else None
        found = []
        for row in self.classifier.head.probabilities(pooled):
            best = int(row.argmax())
            agrees = None if index is None else best == index
            found.append(Verdict(classes[best], float(row[best if index is None else index]), agrees))
        return found, normalize(pooled, dim=1)


def diversity(features: Float[Tensor, "n d"]) -> float | None:
    """Mean distance ``1 - cosine`` of pairs of pictures, in the judge's features; ``None`` of a single picture.

    Example:
        >>> diversity(torch.eye(3)), diversity(torch.ones(2, 4) / 2)
        (1.0, 0.0)
    """
    n = len(features)
    if n < 2:
        return None
    alike = features @ features.T
    return float(1 - (alike.sum() - alike.trace()) / (n * (n - 1)))
