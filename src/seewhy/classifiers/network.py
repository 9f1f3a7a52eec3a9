"""What a self-explaining classifier learnt inside its network, saved and loaded with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor

from ..encoders.base import Encoder


class Network(ABC):
    """Weights that a recipe trained inside, before or behind the trunk of an encoder.

    A classifier that has one looks through :meth:`encoder`, made from the base encoder and these weights, so that
    every attribution, metric and card works on it as on any other. Its head is the identity where the network itself
    ends in logits.

    Class attributes:
        where: the attribution that reads the network's own explanation; the default of :meth:`Classifier.explain`.
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
        """Build it again from what :meth:`facts` and :meth:`tensors` gave.

        Raises:
            KeyError, TypeError, ValueError: they do not fit together; the caller says which file is damaged.
        """
