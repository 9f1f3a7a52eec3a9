"""Classifiers: what turns a look into a decision for the user's own classes. A recipe makes one."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Literal

from ..bounds import check_fields
from ..errors import UnknownNameError
from ..heads.votes import WordDecision
from ..registry import Registry
from .network import Network

__all__ = ["Recipe", "classifiers"]


class Recipe(ABC):
    """A frozen dataclass whose fields are the paper's parameters; it makes a classifier of names, words or pictures.

    Class attributes:
        name: registered name, the file's stem; ``paper``: where it is from; ``needs``: what it is made from.
        cost: in forward passes a picture, when predicting.
        network: what it trains inside the network, for recipes that do.
        reranking: how its sentences decide, for recipes in which they do other than by their mean.
        needs_attention: whether it is made of transformers alone.
        needs_tokens: whether the encoder's words half must show its single tokens.
        words_are: what its words are: ``"names"`` of the classes and nothing more, ``"the encoder's"``, which came with
            it, or ``"given"`` ones that describe.
        small: settings with which it takes a moment, for tests and trials: ``cls(**cls.small)``.
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

    def __post_init__(self) -> None:
        check_fields(self)

    def parameters(self) -> dict[str, Any]:
        """The values of the fields, for cards and saved models."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


classifiers: Registry[Recipe] = Registry(
    "classifier", __name__, ("unfitted", "follow_up", "by_sentences", "linear.recipe", "neighbours")
)


def recipe_of(name: str) -> type[Recipe]:
    """The recipe of that name; the base class, which has no texts, if no installed package has it."""
    try:
        return classifiers[name]
    except UnknownNameError:
        return Recipe
