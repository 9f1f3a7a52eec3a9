"""The words of ImageNet-1k: WordNet names and glosses of the 1,000 classes, read from the lists that timm carries.

The files are read without importing timm, which would cost more than a second for three text files.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ..errors import ModelError


@dataclass(frozen=True)
class ImageNetClass:
    """One class, in the order of the classifier's rows."""

    synset: str
    label: str
    names: tuple[str, ...]
    gloss: str


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """The 1,000 classes in the order every ImageNet-1k classifier uses.

    >>> imagenet_classes()[281].names
    ('tabby', 'tabby cat')
    """
    folder = _folder()
    synsets = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    lemmas = _table(folder / "imagenet_synset_to_lemma.txt")
    glosses = _table(folder / "imagenet_synset_to_definition.txt")
    names = [tuple(name.strip() for name in lemmas[synset].split(",")) for synset in synsets]
    labels = _unique_labels(names, [glosses[synset] for synset in synsets])
    return tuple(
        ImageNetClass(synset, label, own, glosses[synset])
        for synset, label, own in zip(synsets, labels, names, strict=True)
    )


@lru_cache(maxsize=1)
def imagenet_descriptions() -> dict[str, list[str]]:
    """Label → short phrases that say what such a thing is or looks like, out of its gloss.

    >>> imagenet_descriptions()["zebra"]
    ['any of several fleet black-and-white striped African equines']
    """
    return {c.label: split_gloss(c.gloss) for c in imagenet_classes()}


def imagenet_texts() -> list[list[str]]:
    """For each class: its name, a caption with it, all its names with the definition, and the definition alone."""
    return [
        [c.names[0], f"a photo of a {c.names[0]}", f"{', '.join(c.names)}: {c.gloss}", c.gloss]
        for c in imagenet_classes()
    ]


def split_gloss(gloss: str) -> list[str]:
    """A WordNet gloss → its phrases: cut at semicolons and long commas, without quoted examples and asides.

    A comma cuts only where both sides have at least three words, so that lists of adjectives stay whole.

    >>> split_gloss('a cat with a short tail; used in "the cat sat"; (informal) a small, grey, quiet animal')
    ['a cat with a short tail', 'a small, grey, quiet animal']
    """
    phrases: list[str] = []
    for part in re.sub(r"\([^)]*\)", " ", gloss).split(";"):
        if '"' in part:
            continue
        for phrase in _cut_at_commas(part):
            text = re.sub(r"\s+", " ", phrase).strip(" ,.:-")
            if len(text.split()) > 1 and text not in phrases:
                phrases.append(text)
    return phrases or [re.sub(r"\s+", " ", gloss.split(";")[0]).strip()]


def _cut_at_commas(part: str) -> list[str]:
    pieces = [part.split(",")[0]]
    for piece in part.split(",")[1:]:
        if min(len(piece.split()), len(pieces[-1].split())) >= 3:
            pieces.append(piece)
        else:
            pieces[-1] += "," + piece
    return pieces


def _unique_labels(names: list[tuple[str, ...]], glosses: list[str]) -> list[str]:
    """The usual name; where classes share it, with the first synonym of its own, else the start of its gloss."""
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


def _folder() -> Path:
    spec = find_spec("timm")
    folder = Path(spec.origin).parent / "data" / "_info" if spec and spec.origin else None
    if folder is None or not (folder / "imagenet_synsets.txt").is_file():
        raise ModelError("The names of the ImageNet classes were not found. They come with timm. Run: pip install timm")
    return folder
