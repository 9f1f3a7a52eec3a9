"""Descriptions of classes, their files and their vectors; captions of pictures; differences between two classes."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.stream import encode_texts
from ..errors import DataError
from ..storage.features import FeatureStore
from ..storage.output import write
from ..storage.reading import json_value, read_text, readable

APART = r"[\s_-]+"
"""Pattern between the words of a name."""


@dataclass(frozen=True)
class Descriptions:
    """Descriptive texts by class, in the order of the file."""

    texts: Mapping[str, tuple[str, ...]]

    @classmethod
    def given(cls, words: Words) -> Descriptions:
        """Convert a dictionary or a file name to descriptions."""
        if isinstance(words, Descriptions):
            return words
        return cls.of(dict(words)) if isinstance(words, Mapping) else cls.read(words)

    @classmethod
    @checked
    def read(cls, path: str | Path) -> Descriptions:
        """Read a file of ``{"class": ["text", …], …}``; a class with an empty list is described by its name."""
        with readable(path, 'It must contain {"class": ["text", …], …}.'):
            pairs = json_value(read_text(path), list)
        named = pairs
        if isinstance(pairs, list) and all(isinstance(p, tuple) for p in pairs):
            named = [(label, [label] if lines == [] else lines) for label, lines in pairs]
        return cls.of(named, str(path))

    @classmethod
    def of(cls, pairs: object, source: str = "The descriptions") -> Descriptions:
        """Check a dictionary or a list of pairs, and convert it to descriptions."""
        items = list(pairs.items()) if isinstance(pairs, Mapping) else pairs
        in_pairs = isinstance(items, list) and all(isinstance(p, tuple | list) and len(p) == 2 for p in items)
        if not isinstance(items, list) or not items or not in_pairs:
            raise DataError(f'{source} must have at least one class: {{"class": ["text", …], …}}.')
        texts: dict[str, tuple[str, ...]] = {}
        for label, lines in items:
            if label in texts:
                raise DataError(f"{source} must have each class once, got {label!r} twice. Merge its texts.")
            lines = [lines] if isinstance(lines, str) else lines
            if not isinstance(lines, list | tuple) or not all(isinstance(t, str) for t in lines):
                raise DataError(f"{source}: the class {label!r} must have a list of texts.")
            kept = tuple(dict.fromkeys(t.strip() for t in lines if t.strip()))
            if not kept:
                raise DataError(
                    f"{source}: the class {label!r} must have at least one text. Write one, or remove the class."
                )
            texts[str(label)] = kept
        return cls(texts)

    def sentences(self) -> list[str]:
        """Return each text as a sentence that names its class."""
        return [describe(c, "" if ts == (c,) else t) for c, ts in self.texts.items() for t in ts]

    def write(self, path: str | Path, *, force: bool = False) -> None:
        """Write to a file; ``force`` also overwrites a file that SeeWhy did not write or that was edited."""
        data = json.dumps({k: list(v) for k, v in self.texts.items()}, indent=2, ensure_ascii=False)
        write(path, data, force=force)

    def limited_to(self, classes: Sequence[str]) -> Descriptions:
        missing = [c for c in classes if c not in self.texts]
        if missing:
            raise DataError(
                f"There are no descriptions for {', '.join(map(repr, missing[:5]))}"
                f"{f' and {len(missing) - 5} more classes' if len(missing) > 5 else ''}. "
                "Use the class names of the pictures; the descriptions have "
                f"{', '.join(map(repr, list(self.texts)[:5])) or 'no class'}."
            )
        return Descriptions({c: self.texts[c] for c in classes})


Words = Descriptions | Mapping[str, Sequence[str]] | str | Path
"""Descriptions, a dictionary of them, or the path of their JSON file."""


@dataclass(frozen=True)
class Change:
    """A change of one description; ``after`` is ``None`` if it was removed."""

    label: str
    before: str
    after: str | None


def describe(label: str, text: str) -> str:
    """Return a class name and a descriptor as one sentence (Menon & Vondrick 2022, section 2.2).

    As in the authors' code, any text that begins with the letter a counts as having an article (*robin, which is amber
    eyes*).

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
class WordBank:
    """Descriptions as unit vectors; ``nameless`` are the vectors without class names, if requested."""

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    owner: Int[Tensor, " n"]
    vectors: Float[Tensor, "n d"]
    nameless: Float[Tensor, "n d"] | None = None

    @classmethod
    def build(
        cls, encoder: Encoder, descriptions: Descriptions, *, with_names: bool, store: FeatureStore | None = None
    ) -> WordBank:
        """Encode every text, with or without its class's name."""
        sentences = descriptions.sentences() if with_names else [t for ts in descriptions.texts.values() for t in ts]
        return cls.of_vectors(descriptions, encode_texts(encoder, sentences, store))

    @classmethod
    def of_vectors(cls, descriptions: Descriptions, vectors: Float[Tensor, "n d"]) -> WordBank:
        """Make a word bank from text vectors, which are in the order of the descriptions."""
        owner = [i for i, texts in enumerate(descriptions.texts.values()) for _ in texts]
        texts = tuple(t for texts in descriptions.texts.values() for t in texts)
        return cls(tuple(descriptions.texts), texts, torch.tensor(owner), vectors)

    def scores(self, joint: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        return joint @ self.vectors.T

    @cached_property
    def measured(self) -> WordBank:
        """The word bank without class names in its texts, if it has such vectors."""
        return self if self.nameless is None else replace(self, vectors=self.nameless, nameless=None)

    def class_weight(self) -> Float[Tensor, "k d"]:
        """Return the mean vector of each class's texts, which scores pictures by inner product (paper, eq. 1)."""
        return self._class_weight

    @cached_property
    def _class_weight(self) -> Float[Tensor, "k d"]:
        if self.owner.tolist() == list(range(len(self.classes))):
            return self.vectors  # one text a class, in order
        counts = torch.bincount(self.owner, minlength=len(self.classes)).clamp(min=1)
        total = torch.zeros(len(self.classes), self.vectors.shape[1]).index_add_(0, self.owner, self.vectors)
        return total / counts[:, None]

    def of(self, index: int) -> list[int]:
        return (self.owner == index).nonzero()[:, 0].tolist()


def naming(name: str) -> re.Pattern[str] | None:
    """Return a pattern that finds a name as whole words, in any case, singular or plural; ``None`` for an empty name.

    Example:
        >>> finder = naming("red_cherry")
        >>> [bool(finder.search(text)) for text in ("Ripe Red-Cherries", "a red cherry", "a cherry", "red cherryade")]
        [True, True, False, False]
    """
    words = [re.escape(word) for word in re.split(APART, name.strip()) if word]
    if not words:
        return None
    is_y = words[-1][-1:].lower() == "y"
    stem = APART.join(words)[:-1] if is_y else APART.join(words)
    return re.compile(rf"(?<!\w){stem}{'(?:y|ies|ys)' if is_y else '(?:s|es)?'}(?!\w)", re.IGNORECASE)


def without_names(descriptions: Descriptions) -> tuple[Descriptions, int]:
    """Replace each class's name by *it* in its texts; also return the number of changed texts.

    Single words of a longer name are not replaced, because they may describe the class (*orange* in *orange bell
    pepper*).

    >>> without_names(Descriptions({"red-beet": ("Red beets are round", "dark red")}))[0].texts["red-beet"]
    ('it are round', 'dark red')
    """
    n = 0
    found: dict[str, tuple[str, ...]] = {}
    for label, lines in descriptions.texts.items():
        name = naming(label)
        said = [t if name is None else name.sub("it", t) for t in lines]
        n += sum(a != b for a, b in zip(lines, said, strict=True))
        found[label] = tuple(dict.fromkeys(said))
    return Descriptions(found), n


def name_only(descriptions: Descriptions) -> dict[str, tuple[str, ...]]:
    return {label: (label,) for label in descriptions.texts}


def random_words(descriptions: Descriptions, seed: int) -> Mapping[str, tuple[str, ...]]:
    """Return the random sentences of WaffleCLIP (arXiv 2306.07282), a class's name with random words.

    All classes share the same random words, with the mean length of the descriptions' words.
    """
    texts = [t for lines in descriptions.texts.values() for t in lines]
    n_words = max(1, round(sum(len(t.split()) for t in texts) / len(texts)))
    length = max(2, round(sum(len(w) for t in texts for w in t.split()) / sum(len(t.split()) for t in texts)))
    rng = random.Random(seed)
    most = max(len(lines) for lines in descriptions.texts.values())
    noise = [
        " ".join("".join(rng.choices(string.ascii_lowercase, k=length)) for _ in range(n_words)) for _ in range(most)
    ]
    return {
        label: tuple(f"{label}, which has {n}" for n in noise[: len(lines)])
        for label, lines in descriptions.texts.items()
    }


@dataclass(frozen=True)
class Caption:
    """The texts of one picture."""

    image: str
    digest: str
    texts: tuple[str, ...]
    label: str | None = None
    scores: tuple[float, ...] = ()
    model: str = ""
    prompt: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not empty as JSON."""
        found = {**vars(self), "texts": list(self.texts), "scores": [round(s, 6) for s in self.scores]}
        return {name: value for name, value in found.items() if value not in (None, "", [])}


@dataclass(frozen=True)
class Difference:
    attribute: str
    first: str
    second: str


@dataclass(frozen=True)
class Pair:
    """Two classes and the differences between them (arXiv 2311.07593, section 3.2)."""

    classes: tuple[str, str]
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "differences": [vars(d) for d in self.differences]}


def check_pairs(pairs: Sequence[Pair], classes: Sequence[str]) -> list[Pair]:
    kept = [p for p in pairs if set(p.classes) <= set(classes)]
    if not kept:
        named = sorted({n for p in pairs for n in p.classes})
        raise DataError(
            f"The pairs must have the names of the {len(classes)} classes ({', '.join(map(repr, classes[:3]))}, …), "
            f"but the {len(pairs)} pairs name other classes ({', '.join(map(repr, named[:3]))}, …)."
        )
    return kept
