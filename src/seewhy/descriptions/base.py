"""Descriptions of classes, as files people edit, and as vectors a picture is scored against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.stream import encode_texts
from ..errors import DataError
from ..storage.features import FeatureStore
from ..storage.output import write
from ..storage.reading import json_value, read_text, reason


@dataclass(frozen=True)
class Descriptions:
    """Texts for each class, in the order of the file."""

    texts: Mapping[str, tuple[str, ...]]

    @classmethod
    def given(cls, words: Words) -> Descriptions:
        """Descriptions in any of the forms they are given in."""
        if isinstance(words, Descriptions):
            return words
        return cls.of(dict(words)) if isinstance(words, Mapping) else cls.read(words)

    @classmethod
    @checked
    def read(cls, path: str | Path) -> Descriptions:
        """Read ``{"class": ["text", …], …}``; a class with an empty list is described by its name alone."""
        try:
            pairs = json_value(read_text(path), list)
        except (OSError, ValueError) as error:
            raise DataError(f'{path} cannot be read: {reason(error)}. Write {{"class": ["text", …], …}}.') from error
        named = pairs
        if isinstance(pairs, list) and all(isinstance(p, tuple) for p in pairs):
            named = [(label, [label] if lines == [] else lines) for label, lines in pairs]
        return cls.of(named, str(path))

    @classmethod
    def of(cls, pairs: object, source: str = "The descriptions") -> Descriptions:
        """Check what was read (a list of pairs, so that a class written twice is seen) or a dictionary."""
        items = list(pairs.items()) if isinstance(pairs, Mapping) else pairs
        if (
            not isinstance(items, list)
            or not items
            or not all(isinstance(p, tuple | list) and len(p) == 2 for p in items)
        ):
            raise DataError(f'{source} hold no classes. Write {{"class": ["text", …], …}}.')
        texts: dict[str, tuple[str, ...]] = {}
        for label, lines in items:
            if label in texts:
                raise DataError(f"{source} name the class {label!r} twice. Merge its texts.")
            lines = [lines] if isinstance(lines, str) else lines
            if not isinstance(lines, list | tuple) or not all(isinstance(t, str) for t in lines):
                raise DataError(
                    f"{source}: the class {label!r} holds something that is not text. Write a list of texts."
                )
            kept = tuple(dict.fromkeys(t.strip() for t in lines if t.strip()))
            if not kept:
                raise DataError(f"{source}: the class {label!r} has no texts. Write at least one, or leave it out.")
            texts[str(label)] = kept
        return cls(texts)

    def sentences(self) -> list[str]:
        """Every text with its class's name, class after class; a class that has only its name *has* nothing.

        That is the authors' sentence for a class with an empty list. Texts that are written twice for one class count
        twice with them and once here.
        """
        return [describe(c, "" if ts == (c,) else t) for c, ts in self.texts.items() for t in ts]

    def write(self, path: str | Path, *, force: bool = False) -> None:
        """Keep as a file, over one that SeeWhy wrote and nobody has edited since, or with ``force`` over any."""
        data = json.dumps({k: list(v) for k, v in self.texts.items()}, indent=2, ensure_ascii=False)
        write(path, data, force=force)

    def limited_to(self, classes: Sequence[str]) -> Descriptions:
        """Those of these classes, in their order."""
        missing = [c for c in classes if c not in self.texts]
        if missing:
            raise DataError(
                f"There are no descriptions for {', '.join(map(repr, missing[:5]))}"
                f"{f' and {len(missing) - 5} more classes' if len(missing) > 5 else ''}. "
                "Name the classes in the descriptions exactly as in the pictures' labels."
            )
        return Descriptions({c: self.texts[c] for c in classes})


def describe(label: str, text: str) -> str:
    """Class name and descriptor as one sentence, letter for letter as the authors of description make it.

    Menon & Vondrick 2022, arXiv 2210.07183, section 2.2. Any text beginning with the letter a counts as one with an
    article (*robin, which is amber eyes*), *the* and *is* as things it has.

    Example:
        >>> describe("robin", "a red breast"), describe("robin", "thin legs")
        ('robin, which is a red breast', 'robin, which has thin legs')
    """
    if text.startswith(("a", "used")):
        return f"{label}, which is {text}"
    if text.startswith(("has", "often", "typically", "may", "can")):
        return f"{label}, which {text}"
    return f"{label}, which has {text}"


@dataclass(frozen=True)
class Change:
    """What happened to one description: as it was, and as it is now, or ``None`` when it was taken out."""

    label: str
    before: str
    after: str | None


Words = Descriptions | Mapping[str, Sequence[str]] | str | Path
"""Descriptions, or a dictionary of them, or the JSON they are in."""


@dataclass(frozen=True)
class WordBank:
    """Descriptions as unit vectors."""

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    owner: Int[Tensor, " n"]
    vectors: Float[Tensor, "n d"]
    nameless: Float[Tensor, "n d"] | None = None

    @classmethod
    def build(
        cls, encoder: Encoder, descriptions: Descriptions, *, with_names: bool, store: FeatureStore | None = None
    ) -> WordBank:
        """Encode every text, alone or as a sentence with its class's name."""
        sentences = descriptions.sentences() if with_names else [t for ts in descriptions.texts.values() for t in ts]
        return cls.of_vectors(descriptions, encode_texts(encoder, sentences, store))

    @classmethod
    def of_vectors(cls, descriptions: Descriptions, vectors: Float[Tensor, "n d"]) -> WordBank:
        """Texts that are encoded already, class after class."""
        owner = [i for i, texts in enumerate(descriptions.texts.values()) for _ in texts]
        texts = tuple(t for texts in descriptions.texts.values() for t in texts)
        return cls(tuple(descriptions.texts), texts, torch.tensor(owner), vectors)

    def scores(self, joint: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """Cosine of each picture with each text."""
        return joint @ self.vectors.T

    @cached_property
    def measured(self) -> WordBank:
        """The words as they are measured: without names, where that was asked for."""
        return self if self.nameless is None else replace(self, vectors=self.nameless, nameless=None)

    @property
    def told(self) -> str:
        """What to add to where they were measured."""
        return "" if self.nameless is None else ", the classes' names left out"

    def class_weight(self) -> Float[Tensor, "k d"]:
        """Rows whose product with a picture is the mean cosine over the class's texts (their equation 1)."""
        return self._class_weight

    @cached_property
    def _class_weight(self) -> Float[Tensor, "k d"]:
        if self.owner.tolist() == list(range(len(self.classes))):
            return self.vectors  # one text a class, in order
        counts = torch.bincount(self.owner, minlength=len(self.classes)).clamp(min=1)
        total = torch.zeros(len(self.classes), self.vectors.shape[1]).index_add_(0, self.owner, self.vectors)
        return total / counts[:, None]

    def of(self, index: int) -> list[int]:
        """Positions of a class's texts."""
        return list(self._positions.get(index, ()))

    @cached_property
    def _positions(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for position, owner in enumerate(self.owner.tolist()):
            found.setdefault(owner, []).append(position)
        return found
