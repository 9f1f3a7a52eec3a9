"""Registry of recipes: the methods that make a classifier."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Literal

from ..bounds import Checked
from ..errors import UnknownNameError
from ..heads.votes import WordDecision
from ..registry import Registry
from .network import Network

__all__ = ["Recipe", "classifiers"]


class Recipe(Checked, ABC):
    """The base class of methods that make a classifier; a frozen dataclass whose fields are the method's settings.

    Class attributes:
        name: registered name of the method.
        paper: reference of the paper.
        needs: required inputs.
        cost: number of forward passes per predicted picture.
        network: class of the layers that are trained inside the network; ``None`` if there are none.
        reranking: class that decides between classes by their sentences; default: by the mean similarity.
        needs_attention: whether the encoder must be a transformer.
        needs_tokens: whether the text encoder must return a vector for each token.
        words_are: origin of the texts: ``"names"`` for class names, ``"the encoder's"`` for texts of the encoder, or
            ``"given"`` for descriptions from the user.
        small: fast settings for tests: ``cls(**cls.small)``.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str]
    cost: ClassVar[str] = "1"
    stochastic: ClassVar[bool] = False
    network: ClassVar[type[Network] | None] = None
    reranking: ClassVar[type[WordDecision] | None] = None
    needs_attention: ClassVar[bool] = False
    needs_tokens: ClassVar[bool] = False
    words_are: ClassVar[Literal["given", "names", "the encoder's"]] = "given"
    small: ClassVar[Mapping[str, Any]] = {}

    n_bank: int | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the settings by name, for cards and saved models."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


classifiers: Registry[Recipe] = Registry(
    "classifier", __name__, ("unfitted", "follow_up", "by_sentences", "linear.recipe", "neighbours")
)


def recipe_of(name: str) -> type[Recipe]:
    """Return the recipe class with this name, or the base class if no installed package has it."""
    try:
        return classifiers[name]
    except UnknownNameError:
        return Recipe
