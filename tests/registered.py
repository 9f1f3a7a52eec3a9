"""Every registered class with settings that take a moment, and the encoders that it works on: nobody is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from seewhy.registry import Registry
from tiny import tiny_cnn, tiny_tokens
from tiny_transformer import tiny_vit
from tiny_words import opened, opened_vit, tiny_pair

ENCODERS: dict[str, Callable[[], Any]] = {"cnn": tiny_cnn, "tokens": tiny_tokens, "vit": tiny_vit}
SHOWS_WORDS = "words"
PROMPTS_INSIDE = "prompts inside"
MAKE = {**ENCODERS, SHOWS_WORDS: tiny_pair, "prompts": opened, PROMPTS_INSIDE: opened_vit}


def small(registry: Registry[Any], name: str, **settings: Any) -> Any:
    """An instance with the class's own small settings."""
    cls: Any = registry[name]
    return cls(**{**cls.small, **settings})


def pairs(registry: Registry[Any], names: list[str], encoders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Methods with encoders that they work on: those that read attention with a transformer alone."""
    for name in names:
        yield from ((name, e) for e in only_on(registry[name]) or encoders)


def only_on(cls: Any) -> tuple[str, ...]:
    """The encoders that a class is bound to; none where any will do."""
    if getattr(cls, "needs_words", False):
        return (SHOWS_WORDS,)
    if getattr(cls, "needs_tokens", False):
        return (PROMPTS_INSIDE,) if cls.needs_attention else ("prompts",)
    return ("vit",) if cls.needs_attention else ()


def check_class(registry: Registry[Any], name: str, *attributes: str) -> None:
    """Name, file and what the tables say of it."""
    cls: Any = registry[name]
    assert cls.name == name
    family = [one for one in registry if registry[one].__module__ == cls.__module__]
    own = name in cls.__module__.split(".")[-2:]
    assert own or len(family) > 1, "a file or a folder of its own name, or one that a family shares"
    assert all(isinstance(getattr(cls, a), str) and getattr(cls, a) for a in ("paper", "needs", "cost", *attributes))
    assert cls.__doc__
    assert small(registry, name) == small(registry, name)
    assert hash(cls()) == hash(cls()), "frozen"
