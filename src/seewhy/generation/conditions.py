"""What is climbed: the network that a picture is made for; and what a person may ask for, as one of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.base import Classifier
from ..classifiers.zero_shot import ZeroShot
from ..encoders.base import Encoder
from ..errors import InputError
from .generator import Reader, batched

Gradient = Literal["log_softmax", "own_logit"]


class Condition(ABC):
    """``log p(c | x)`` of a picture, differentiable.

    Class attributes:
        kind: ``"class"``, ``"text"``, ``"neuron"`` or ``"like"``.
        measure: what :meth:`value` is.
        alone: whether there is nothing that the target is compared with.
        in_words: whether what is asked for is a name or a sentence, so that a judge can be told it.
    """

    kind: ClassVar[str]
    measure: ClassVar[str]
    alone: ClassVar[bool] = False
    in_words: ClassVar[bool] = True

    @property
    @abstractmethod
    def encoder(self) -> Encoder:
        """What is climbed."""

    @property
    @abstractmethod
    def asked(self) -> str:
        """What the pictures are to show, in words."""

    @property
    @abstractmethod
    def index(self) -> int:
        """The target's column."""

    @abstractmethod
    def scores(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """One number for the target and for each of what it is compared with."""

    @abstractmethod
    def value(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """What is told to people."""

    def objective(self, pictures: Float[Tensor, "b 3 h w"], gradient: Gradient) -> Float[Tensor, " b"]:
        """What goes up.

        ``"log_softmax"`` has the gradient of ``log p``. ``"own_logit"`` has ``1 - p`` at the target's own logit and 0
        at all others, as the released sampler, which leaves out ``-p_k`` there.
        """
        scores = self.scores(pictures)
        own = scores[:, self.index]
        if self.alone:
            return own
        log_p = scores.log_softmax(1)[:, self.index]
        return log_p if gradient == "log_softmax" else (1 - log_p.detach().exp()) * own


@dataclass(frozen=True, eq=False)
class OfClass(Condition):
    """A class of any classifier.

    Args:
        classifier: what decides.
        label: the class, by name or number.
    """

    kind: ClassVar[str] = "class"
    measure: ClassVar[str] = "probability"
    classifier: Classifier
    label: str | int

    def __post_init__(self) -> None:
        _ = self.index

    @property
    def encoder(self) -> Encoder:
        return self.classifier.encoder

    @property
    def asked(self) -> str:
        return self.classifier.classes[self.index]

    @property
    def index(self) -> int:
        return self.classifier.index_of(self.label)

    def scores(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        found: Tensor = self.classifier.head(Reader(self.encoder)(pictures))
        return found

    def value(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.scores(pictures).softmax(1)[:, self.index]


class OfText(Condition):
    """A sentence: how near the encoder's words half puts the picture to it.

    Args:
        on: an encoder with words.
        text: the sentence.
    """

    kind = "text"
    measure = "similarity"
    alone = True
    index = 0

    def __init__(self, on: Encoder, text: str) -> None:
        if not text.strip():
            raise InputError("The text is empty. A sentence was expected, such as 'a photo of a wren'. Write one.")
        self.on, self.text, self.vector = on, text, on.encode_text([text])

    @property
    def encoder(self) -> Encoder:
        return self.on

    @property
    def asked(self) -> str:
        return self.text

    def scores(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return self.on.text.logit_scale * self.value(pictures)[:, None]

    def value(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return normalize(self.on.text.project(Reader(self.on)(pictures)), dim=1) @ self.vector[0]


class OfNeuron(Condition):
    """A unit of an encoder's pooled features, among all of them, as the authors take a softmax over channels.

    Args:
        on: the encoder.
        number: of the unit.
        n_units: how many there are.
    """

    kind = "neuron"
    measure = "activation"
    in_words = False

    def __init__(self, on: Encoder, number: int, n_units: int) -> None:
        if not 0 <= number < n_units:
            raise InputError(
                f"The neuron {number} was given. One from 0 to {n_units - 1} was expected, the units of "
                f"{on.name!r}. Give one of them."
            )
        self.on, self.number = on, number

    @property
    def encoder(self) -> Encoder:
        return self.on

    @property
    def asked(self) -> str:
        return f"neuron {self.number}"

    @property
    def index(self) -> int:
        return self.number

    def scores(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return Reader(self.on)(pictures)

    def value(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.scores(pictures)[:, self.number]


class Like(Condition):
    """A picture: how near the encoder puts another to it. What it takes for the same, it cannot tell apart.

    Args:
        on: the encoder.
        picture: of 0…1.
        name: of the picture.
        scale: of the cosine.
    """

    kind = "like"
    measure = "similarity"
    alone = True
    in_words = False
    index = 0

    def __init__(self, on: Encoder, picture: Float[Tensor, "1 3 h w"], name: str, scale: float = 20.0) -> None:
        self.on, self.name, self.scale = on, name, scale
        self.vector = normalize(Reader(on)(picture).detach(), dim=1)

    @property
    def encoder(self) -> Encoder:
        return self.on

    @property
    def asked(self) -> str:
        return f"like {self.name}"

    def scores(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return self.scale * self.value(pictures)[:, None]

    def value(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return normalize(Reader(self.on)(pictures), dim=1) @ self.vector[0]


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
