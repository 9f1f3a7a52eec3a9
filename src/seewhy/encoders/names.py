"""Class names: templates, unique names, the names of ImageNet-1k, and their sentence vectors."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ..errors import ModelError
from ..storage.tensors import cached_tensors
from .base import Encoder, SentenceText, TextTower

ARTICLE = re.compile(r"\b(a|an|the) $", re.IGNORECASE)
NAMED = re.compile(r"(a|an|the) ", re.IGNORECASE)


def filled(template: str, name: str) -> str:
    """Insert a name into a template in place of ``{}``.

    Example:
        >>> filled("a photo of a {}.", "dog"), filled("a photo of a {}.", "a dog"), filled("a photo of a {}.", "an owl")
        ('a photo of a dog.', 'a photo of a dog.', 'a photo of an owl.')
        >>> filled("{}", "a dog"), filled("a {}, or the {}", "the sky")
        ('a dog', 'the sky, or the sky')
    """
    if not NAMED.match(name.lstrip()):
        return template.replace("{}", name)
    *parts, last = template.split("{}")
    return "".join(ARTICLE.sub("", part) + name.lstrip() for part in parts) + last


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return unique names, in order; an index is appended to repeated names.

    >>> distinct(["crane", "cat", "crane"])
    ('crane (0)', 'cat', 'crane (2)')
    """
    unique = tuple(names)
    while len(set(unique)) < len(unique):
        counts = Counter(unique)
        unique = tuple(f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(unique))
    return unique


def named(on: Encoder) -> bool:
    """Check whether an encoder has named classes and a text encoder."""
    return on.classifier is not None and on.has_text and len(on.classes) == on.classifier.out_features


def names_of(on: Encoder) -> list[str]:
    return [on.text.templates[0].format(name) for name in on.classes]


def sentence_fingerprint(tower: TextTower) -> str:
    """Return the fingerprint of the network behind :func:`own_vectors`."""
    return tower.sentence_fingerprint if isinstance(tower, SentenceText) else tower.fingerprint


def own_vectors(tower: TextTower, texts: Sequence[str]) -> Float[Tensor, "n e"]:
    """Return sentence vectors or, if the text encoder has none, vectors in the shared space."""
    return tower.sentences(texts) if isinstance(tower, SentenceText) else tower.encode_text(texts)


def own_sentences(tower: TextTower, names: Sequence[str]) -> Float[Tensor, "k e"]:
    """Return the sentence vectors of class names, cached on disk."""
    key = hashlib.sha256(repr((sentence_fingerprint(tower), names)).encode()).hexdigest()[:16]
    return cached_tensors("names", key, lambda: {"sentences": own_vectors(tower, names).clone()})["sentences"]


@dataclass(frozen=True)
class ImageNetClass:
    synset: str
    label: str
    names: tuple[str, ...]
    gloss: str


def _folder() -> Path:
    # Read without importing timm, which would cost more than a second for three text files.
    spec = find_spec("timm")
    folder = Path(spec.origin).parent / "data" / "_info" if spec and spec.origin else None
    if folder is None or not (folder / "imagenet_synsets.txt").is_file():
        raise ModelError(
            "The names of the ImageNet classes come with timm, which is not installed. Run: pip install timm"
        )
    return folder


@lru_cache(maxsize=1)
def wordnet() -> dict[str, tuple[tuple[str, ...], str]]:
    """Return the names and the definition of each of ImageNet's 21,844 synsets."""
    folder = _folder()
    glosses = _table(folder / "imagenet_synset_to_definition.txt")
    lemmas = _table(folder / "imagenet_synset_to_lemma.txt")
    return {synset: (tuple(n.strip() for n in own.split(",")), glosses[synset]) for synset, own in lemmas.items()}


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """Return the 1,000 classes of ImageNet-1k in standard order."""
    synsets = (_folder() / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    found = [wordnet()[synset] for synset in synsets]
    labels = _unique_labels([names for names, _ in found], [gloss for _, gloss in found])
    return tuple(ImageNetClass(synset, label, *own) for synset, label, own in zip(synsets, labels, found, strict=True))


def imagenet_labels() -> tuple[str, ...]:
    return tuple(c.label for c in imagenet_classes())


@lru_cache(maxsize=1)
def imagenet_descriptions() -> dict[str, list[str]]:
    """Return short phrases from the definition of each ImageNet class."""
    return {c.label: split_gloss(c.gloss) for c in imagenet_classes()}


def imagenet_texts() -> list[list[str]]:
    """Return four texts per ImageNet class: name, caption, names with definition, and definition."""
    return [
        [c.names[0], f"a photo of a {c.names[0]}", f"{', '.join(c.names)}: {c.gloss}", c.gloss]
        for c in imagenet_classes()
    ]


def split_gloss(gloss: str) -> list[str]:
    """Split a WordNet definition at semicolons, and at commas with at least three words on both sides; remove asides.

    >>> split_gloss('a cat with a short tail; used in "the cat sat"; (informal) a small, grey, quiet animal')
    ['a cat with a short tail', 'a small, grey, quiet animal']
    """
    phrases: list[str] = []
    for part in re.sub(r"\([^)]*\)", " ", gloss).split(";"):
        if '"' in part:
            continue
        pieces = [part.split(",")[0]]
        for piece in part.split(",")[1:]:
            if min(len(piece.split()), len(pieces[-1].split())) >= 3:
                pieces.append(piece)
            else:
                pieces[-1] += "," + piece
        for phrase in pieces:
            text = re.sub(r"\s+", " ", phrase).strip(" ,.:-")
            if len(text.split()) > 1 and text not in phrases:
                phrases.append(text)
    return phrases or [re.sub(r"\s+", " ", gloss.split(";")[0]).strip()]


def _unique_labels(names: list[tuple[str, ...]], glosses: list[str]) -> list[str]:
    """Return the usual names, followed by a synonym or a definition if classes share a name."""
    first = Counter(own[0] for own in names)
    anywhere = Counter(name for own in names for name in set(own))
    labels = []
    for own, gloss in zip(names, glosses, strict=True):
        label = own[0]
        if first[label] > 1:
            short = re.split(r" (?:of|for|that|with|having) ", split_gloss(gloss)[0])[0]
            aside = next((name for name in own[1:] if anywhere[name] == 1), short)
            label = f"{label} ({aside})"
        labels.append(label)
    return labels


def _table(path: Path) -> dict[str, str]:
    rows = (line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if line)
    return {row[0]: row[1] for row in rows}
