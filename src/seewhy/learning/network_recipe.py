"""Base class of methods that train a network on an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..bounds import check_fields
from ..classifiers.base import Classifier
from ..classifiers.encoded_set import EncodedSet, HeldOut
from ..classifiers.fitting import PictureRecipe
from ..classifiers.network import Network
from ..heads.head import Head


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe(PictureRecipe):
    """Method that trains a network for a classifier."""

    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        self.check()

    def check(self) -> None:
        """Check that fields do not contradict each other."""
        return

    def classifier(
        self, network: Network, pictures: EncodedSet, head: Head, held_out: HeldOut | None, told: str = "", **more: Any
    ) -> Classifier:
        """Return the classifier; ``told`` is added to the description of its training pictures."""
        origin = f"{len(pictures.trained):,} of your pictures, {len(pictures.classes)} classes{told}"
        parts = {"held_out": held_out, "trained_on": origin, "network": network, **more}
        return Classifier(self.name, self.parameters(), network.encoder(), pictures.classes, head, **parts)
