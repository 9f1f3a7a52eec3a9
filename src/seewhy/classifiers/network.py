"""Interface of the trained layers inside a self-explaining classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..encoders.base import Encoder

if TYPE_CHECKING:
    from ..heads.head import Feature
    from .base import Classifier


@dataclass(frozen=True, eq=False)
class Network(ABC):
    """Layers that were trained inside, before or after the encoder's trunk.

    The classifier uses :meth:`encoder`, so all attribution methods and metrics apply to the trained layers. The head is
    the identity if the network ends in logits. ``where`` is the name of the attribution method that reads the network's
    own maps, and ``base`` is the original encoder, loaded by its name.
    """

    where: ClassVar[str]

    base: Encoder

    @abstractmethod
    def encoder(self) -> Encoder:
        """Return the encoder with the trained weights; its fingerprint includes them."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return all trained tensors."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return all values except tensors that :meth:`restore` needs, as JSON."""

    @classmethod
    @abstractmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the network from the results of :meth:`facts` and :meth:`tensors`."""


@dataclass(frozen=True)
class Perception:
    """The iterations of an autoencoder on one picture, of which the last reconstruction is classified.

    Attributes:
        path: grey pictures after 0, 1, … iterations.
        moves: root mean square change of the pixels per iteration.
        spread: root mean square deviation of the final copies from their mean.
        n_copies: number of copies.
        nearest: memorised picture that is nearest to the reconstruction.
        distance: distance of that picture.
        name: file name of that picture.
        label: class index of that picture.
    """

    path: Float[Tensor, "t h w"]
    moves: tuple[float, ...]
    spread: float
    n_copies: int
    nearest: Float[Tensor, "h w"]
    name: str
    label: int
    distance: float


@runtime_checkable
class Perceiver(Protocol):
    """A network that passes a picture through an autoencoder several times, then classifies the result."""

    def perceived(self, pixels: Float[Tensor, "3 h w"]) -> Perception | None:
        """Iterate the autoencoder on a normalised picture; ``None`` if the picture is classified unchanged."""
        ...


@runtime_checkable
class ReadsPooled(Protocol):
    """A network between pooling and the head, which leaves the encoder unchanged."""

    def feature(self) -> Feature: ...


@runtime_checkable
class NamesClasses(Protocol):
    """A network that classifies by class names, including names of classes without training pictures."""

    @property
    def base(self) -> Encoder: ...

    def classifier(self, classes: Sequence[str]) -> Classifier: ...

    def untrained(self) -> Self: ...
