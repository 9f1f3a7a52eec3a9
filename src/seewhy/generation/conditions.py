"""What is climbed: the network that a picture is made for; and a second one, which says what is on it."""

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
    """``log p(c | x)`` of a picture, differentiable.

    Attributes:
        scores: pictures → one number for the target, in the column ``index``, and for each of what it is compared with.
        value: pictures → what is told to people, a ``measure``.
        alone: whether there is nothing that the target is compared with.
        in_words: whether what is asked for is a name or a sentence, so that a judge can be told it.
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
        """The quantity to raise.

        ``"log_softmax"`` has the gradient of ``log p``. ``"own_logit"`` has ``1 - p`` at the target's own logit and 0
        at all others, as the released sampler, which leaves out ``-p_k`` there.
        """
        scores = self.scores(pictures)
        own = scores[:, self.index]
        if self.alone:
            return own
        log_p = scores.log_softmax(1)[:, self.index]
        return log_p if gradient == "log_softmax" else (1 - log_p.detach().exp()) * own


def of_class(classifier: Classifier, label: str | int) -> Condition:
    """The condition of a class of any classifier."""
    index, read = classifier.index_of(label), Reader(classifier.encoder)

    def scores(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return classifier.head(read(pictures))

    def value(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return scores(pictures).softmax(1)[:, index]

    return Condition("class", "probability", classifier.encoder, classifier.classes[index], scores, value, index=index)


def of_text(on: Encoder, text: str) -> Condition:
    """The condition of a sentence: how close the encoder puts the picture to it."""
    if not text.strip():
        raise InputError("The text is empty. Expected a phrase such as 'a photo of a wren'. Write one.")
    vector, read = on.encode_text([text])[0], Reader(on)

    def value(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return normalize(on.text.project(read(pictures)), dim=1) @ vector

    return Condition(
        "text", "similarity", on, text, lambda x: on.text.logit_scale * value(x)[:, None], value, alone=True
    )


def of_neuron(on: Encoder, number: int, n_units: int) -> Condition:
    """The condition of a unit of an encoder's pooled features, with a softmax over all units as in the authors'
    code.
    """
    if not 0 <= number < n_units:
        raise InputError(
            f"The neuron {number} was given. Expected a number from 0 to {n_units - 1}, the units of {on.name!r}. "
            "Give one of them."
        )
    read = Reader(on)
    return Condition(
        "neuron", "activation", on, f"neuron {number}", read, lambda x: read(x)[:, number], index=number, in_words=False
    )


def of_picture(on: Encoder, picture: Float[Tensor, "1 3 h w"], name: str, scale: float = 20.0) -> Condition:
    """The condition of a picture: how close the encoder puts another to it, as far as it can distinguish them."""
    read = Reader(on)
    vector = normalize(read(picture).detach(), dim=1)[0]

    def value(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return normalize(read(pictures), dim=1) @ vector

    return Condition(
        "like", "similarity", on, f"like {name}", lambda x: scale * value(x)[:, None], value, alone=True, in_words=False
    )


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the judge sees in a picture, whether that is the target, and the target's probability."""

    label: str
    probability: float
    agrees: bool | None


@dataclass(frozen=True, eq=False)
class Judge:
    """A classifier on another network than the one whose score was raised."""

    classifier: Classifier
    asked: str

    @property
    def name(self) -> str:
        """The judge's name for people."""
        return f"{self.classifier.recipe} on {self.classifier.encoder.name}"

    @classmethod
    def of(cls, given: Classifier | Encoder, condition: Condition, classes: tuple[str, ...]) -> Judge:
        """A judge of the network whose score was raised; an encoder with a text half judges that network's classes by
        name.
        """
        encoder = given if isinstance(given, Encoder) else given.encoder
        if encoder.looks == condition.encoder.looks:
            raise InputError(
                f"The judge uses {encoder.name!r}, the network whose score was raised, so it would agree with any "
                "picture made for it. Expected another network. Name one with --judge, or leave it out."
            )
        if isinstance(given, Encoder):
            own = () if condition.asked in classes or not condition.in_words else (condition.asked,)
            names = (*classes, *own)
            if len(names) < 2:
                raise InputError(
                    f"{encoder.name!r} was to judge by names, and the model has no classes to choose from. Expected "
                    "names, or a classifier as judge. Give --labels, or a classifier's folder with --judge."
                )
            given = ZeroShot().build(given, names)
        return cls(given, condition.asked)

    def look(self, pictures: Float[Tensor, "n 3 s s"]) -> tuple[list[Verdict], Float[Tensor, "n d"]]:
        """The judge's verdict on each picture, and the pictures' features at unit length."""
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
    """The mean distance ``1 - cosine`` over pairs of pictures, in the judge's features; ``None`` for one picture."""
    n = len(features)
    if n < 2:
        return None
    alike = features @ features.T
    return float(1 - (alike.sum() - alike.trace()) / (n * (n - 1)))
