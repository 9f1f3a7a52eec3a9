"""What is climbed: the network that a picture is made for, exchanged without touching the generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.base import Classifier
from ..encoders.base import Encoder
from ..errors import InputError
from .reader import Reader

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
