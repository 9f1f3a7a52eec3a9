"""Targets of generation, and the judge: a second network that classifies the generated pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.base import Classifier
from ..classifiers.unfitted import ZeroShot
from ..encoders.base import Encoder
from ..errors import InputError
from .generator import Reader, batched

Gradient = Literal["log_softmax", "own_logit"]
OfPictures = Callable[[Float[Tensor, "b 3 h w"]], Tensor]


@dataclass(frozen=True, eq=False)
class Condition:
    """A differentiable target ``log p(c | x)`` of pictures ``x``.

    Attributes:
        scores: function from pictures to scores; the column ``index`` is the target, and the other columns are its
            alternatives.
        value: function from pictures to the displayed ``measure``.
        alone: whether the target has no alternatives.
        in_words: whether the target is a name or a sentence, which a judge can compare.
    """

    kind: str
    measure: str
    encoder: Encoder
    asked: str
    scores: OfPictures
    value: OfPictures
    index: int = 0
    alone: bool = False
    in_words: bool = True

    def objective(self, pictures: Float[Tensor, "b 3 h w"], gradient: Gradient) -> Float[Tensor, " b"]:
        """Return the objective to maximise.

        With ``"log_softmax"``, the gradient is that of ``log p``. With ``"own_logit"``, as in the released sampler, the
        gradient is ``1 - p`` at the target's logit and 0 at all other logits.
        """
        scores = self.scores(pictures)
        own = scores[:, self.index]
        if self.alone:
            return own
        log_p = scores.log_softmax(1)[:, self.index]
        return log_p if gradient == "log_softmax" else (1 - log_p.detach().exp()) * own


def of_class(classifier: Classifier, label: str | int) -> Condition:
    index, read = classifier.index_of(label), Reader(classifier.encoder)

    def scores(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return classifier.head(read(pictures))

    def value(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return scores(pictures).softmax(1)[:, index]

    return Condition("class", "probability", classifier.encoder, classifier.classes[index], scores, value, index=index)


def of_text(on: Encoder, text: str) -> Condition:
    """Return the target of a sentence, by its cosine with the picture."""
    if not text.strip():
        raise InputError("`text` must not be empty. Write a phrase such as 'a photo of a wren'.")
    vector, read = on.encode_text([text])[0], Reader(on)

    def value(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return normalize(on.text.project(read(pictures)), dim=1) @ vector

    return Condition(
        "text", "similarity", on, text, lambda x: on.text.logit_scale * value(x)[:, None], value, alone=True
    )


def of_neuron(on: Encoder, number: int, n_units: int) -> Condition:
    """Return the target of a unit of the pooled features, by a softmax over all units."""
    if not 0 <= number < n_units:
        raise InputError(f"`neuron` must be from 0 to {n_units - 1}, a unit of {on.name!r}, got {number}.")
    read = Reader(on)
    return Condition(
        "neuron", "activation", on, f"neuron {number}", read, lambda x: read(x)[:, number], index=number, in_words=False
    )


def of_picture(on: Encoder, picture: Float[Tensor, "1 3 h w"], name: str, scale: float = 20.0) -> Condition:
    """Return a condition that generated pictures resemble a picture, by the cosine of their features."""
    read = Reader(on)
    vector = normalize(read(picture).detach(), dim=1)[0]

    def value(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return normalize(read(pictures), dim=1) @ vector

    return Condition(
        "like", "similarity", on, f"like {name}", lambda x: scale * value(x)[:, None], value, alone=True, in_words=False
    )


@dataclass(frozen=True, eq=False)
class Verdict:
    """The judge's prediction for a picture, and its agreement with the target."""

    label: str
    probability: float
    agrees: bool | None


@dataclass(frozen=True, eq=False)
class Judge:
    """A classifier on another network, which judges generated pictures."""

    classifier: Classifier
    asked: str

    @property
    def name(self) -> str:
        return f"{self.classifier.recipe} on {self.classifier.encoder.name}"

    @classmethod
    def of(cls, given: Classifier | Encoder, condition: Condition, classes: tuple[str, ...]) -> Judge:
        """Return a judge for a target; an encoder judges as a zero-shot classifier of ``classes``."""
        encoder = given if isinstance(given, Encoder) else given.encoder
        if encoder.looks == condition.encoder.looks:
            raise InputError(
                f"The judge, which classifies the generated pictures, must not use {encoder.name!r}, the network "
                "for which they are generated. Give another --judge, or leave it out."
            )
        if isinstance(given, Encoder):
            own = () if condition.asked in classes or not condition.in_words else (condition.asked,)
            names = (*classes, *own)
            if len(names) < 2:
                raise InputError(
                    f"The judge must have class names, and {encoder.name!r} has none. Give --labels, or a classifier's "
                    "folder with --judge."
                )
            given = ZeroShot().build(given, names)
        return cls(given, condition.asked)

    def look(self, pictures: Float[Tensor, "n 3 s s"]) -> tuple[list[Verdict], Float[Tensor, "n d"]]:
        """Return the verdict on each picture, and the normalised features of the pictures."""
        pooled = batched(Reader(self.classifier.encoder), pictures.clamp(0, 1))
        classes = self.classifier.classes
        index = classes.index(self.asked) if self.asked in classes else None
        verdicts = []
        for row in self.classifier.head.probabilities(pooled):
            best = int(row.argmax())
            agrees = None if index is None else best == index
            verdicts.append(Verdict(classes[best], float(row[best if index is None else index]), agrees))
        return verdicts, normalize(pooled, dim=1)


def diversity(features: Float[Tensor, "n d"]) -> float | None:
    """Return the mean distance ``1 - cosine`` between pictures."""
    n = len(features)
    if n < 2:
        return None
    alike = features @ features.T
    return float(1 - (alike.sum() - alike.trace()) / (n * (n - 1)))
