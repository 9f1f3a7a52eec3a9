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
    """Weights that a recipe trained inside, before or behind the trunk of an encoder.

    A classifier that has one looks through :meth:`encoder`, so that every attribution, metric and card works on it. Its
    head is the identity where the network itself ends in logits. ``where`` is the attribution that reads its own.
    """

    where: ClassVar[str]

    @property
    @abstractmethod
    def base(self) -> Encoder:
        """The encoder it was grown on, which is found again by its name."""

    @abstractmethod
    def encoder(self) -> Encoder:
        """The encoder that looks through the trained weights; its fingerprint covers them."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything that was trained."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What beside tensors is needed to build it again, as JSON."""

    @classmethod
    @abstractmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build it again from what :meth:`facts` and :meth:`tensors` gave."""


@dataclass(frozen=True)
class Perception:
    """How one observed picture became the seen one, which alone was classified: the picture after 0, 1, … loops, grey.

    ``moves`` are root mean squares over pixels, ``spread`` that of the copies to their mean in the end; ``nearest`` is
    the memorised picture at this ``distance``, with its file's ``name`` and its class.
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
    """A network that redraws a picture from memory and classifies what it has drawn."""

    def perceived(self, pixels: Float[Tensor, "3 h w"]) -> Perception | None:
        """What is seen of a picture given as normalised pixels; ``None`` where it is classified as it is."""
        ...


@runtime_checkable
class ReadsPooled(Protocol):
    """A network between pooling and the head: the encoder looks as it did, and the head reads what this makes of it."""

    def feature(self) -> Feature: ...


@runtime_checkable
class NamesClasses(Protocol):
    """A network that tells classes by their names, whichever they are: those that it learnt, and any others."""

    @property
    def base(self) -> Encoder: ...

    def classifier(self, classes: Sequence[str]) -> Classifier: ...

    def untrained(self) -> Self: ...
