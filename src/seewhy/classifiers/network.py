"""What a self-explaining classifier learnt inside its network, saved and loaded with it."""

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


class Network(ABC):
    """Weights that a recipe trained inside, before or after the trunk of an encoder.

    Its classifier uses :meth:`encoder`, so every attribution, metric and card works on it. The head is the identity if
    the network itself ends in logits. ``where`` names the attribution that reads the network's own maps.
    """

    where: ClassVar[str]

    @property
    @abstractmethod
    def base(self) -> Encoder:
        """The encoder that was extended, found again by its name."""

    @abstractmethod
    def encoder(self) -> Encoder:
        """The encoder with the trained weights; its fingerprint covers them."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All trained tensors."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What is needed besides the tensors to build the network again, as JSON."""

    @classmethod
    @abstractmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the network again from the results of :meth:`facts` and :meth:`tensors`."""


@dataclass(frozen=True)
class Perception:
    """How a picture was redrawn before it was classified: the grey picture after 0, 1, … loops; the last one is
    classified.

    ``moves`` are root mean square changes over pixels, and ``spread`` is that of the final copies around their mean.
    ``nearest`` is the memorised picture at this ``distance``, with its file's ``name`` and its class.
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
    """A network that redraws a picture from memory and classifies the redrawn picture."""

    def perceived(self, pixels: Float[Tensor, "3 h w"]) -> Perception | None:
        """The redrawn form of a picture given as normalised pixels; ``None`` if the picture is classified as it is."""
        ...


@runtime_checkable
class ReadsPooled(Protocol):
    """A network between pooling and the head: the encoder stays the same, and the head reads this network's output."""

    def feature(self) -> Feature: ...


@runtime_checkable
class NamesClasses(Protocol):
    """A network that recognises classes by their names: those that it learnt, and any others."""

    @property
    def base(self) -> Encoder: ...

    def classifier(self, classes: Sequence[str]) -> Classifier: ...

    def untrained(self) -> Self: ...
