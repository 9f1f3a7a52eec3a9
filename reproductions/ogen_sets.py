"""The sets of OGEN's reproduction: class folders, a table and captions, cut in classes to learn and classes to name."""

from __future__ import annotations

import csv
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seewhy.encoders.names import imagenet_classes
from seewhy.pictures.sources import list_pictures

ARTICLES = (
    "Belts", "Casual Shoes", "Flip Flops", "Formal Shoes", "Handbags", "Heels", "Kurtas", "Sandals", "Shirts", "Socks",
    "Sports Shoes", "Sunglasses", "Sweaters", "Tops", "Tshirts", "Watches",
)  # fmt: skip
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WORDS = {
    "basketball": "basketball", "beach": "beach", "bicycle": "bicycle", "boat": "boat", "dog": "dog", "horse": "horse",
    "motorcycle": "motorcycle", "rock climbing": "climb", "skateboard": "skateboard", "snow": "snow",
    "soccer": "soccer", "swimming pool": "pool",
}  # fmt: skip
"""Classes of the Flickr photographs, and how a word of a caption begins that says them."""
GLOSSES = {
    "bird": "bird", "dog": "dog|terrier", "insect": "insect|beetle|butterfl", "monkey": "monkey", "snake": "snake",
    "boat": "boat|ship|vessel", "car": "car|automobile|truck", "clothing": "garment|clothing|hat", "food": "dish|fruit",
    "musical instrument": "musical|instrument",
}  # fmt: skip
Pictures = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Cut:
    """Files of the learnt classes to draw from, and of all classes to test on."""

    classes: tuple[str, ...]
    pool: Pictures
    test: Pictures

    @classmethod
    def of(cls, pool: Pictures, test: Pictures, n_test: int, n_new: int) -> Cut:
        """The first half of the names is learnt; the rest is tested on all of its pictures; drawn once, of each."""
        classes = sorted(pool)
        base, found = classes[: (len(classes) + 1) // 2], {}
        for name in classes:
            every = [*test.get(name, ()), *(() if name in base else pool[name])]
            found[name] = drawn(every, n_test if name in base else n_new)
        return cls(tuple(classes), {name: pool[name] for name in base}, found)


def drawn(paths: Iterable[str], n: int) -> list[str]:
    every = sorted(paths)
    random.Random(0).shuffle(every)
    return every[:n]


def by_class(found: Iterable[tuple[str | None, str]]) -> dict[str, list[str]]:
    made: dict[str, list[str]] = defaultdict(list)
    for name, path in found:
        if name is not None:
            made[name].append(path)
    return made


def groceries(folder: Path) -> Cut:
    kinds = sorted(p.name for p in (folder / "train").iterdir() if p.is_dir())[::4][:20]

    def part(name: str) -> dict[str, list[str]]:
        return {kind: [str(p) for p in list_pictures([folder / name / kind])] for kind in kinds}

    return Cut.of(part("train"), part("test"), 6, 18)


def fashion(folder: Path) -> Cut:
    def part(name: str) -> dict[str, list[str]]:
        with (folder / f"{name}.csv").open(encoding="utf-8") as lines:
            rows = [(r["articleType"], str(folder / r["image"])) for r in csv.DictReader(lines)]
        return {kind: drawn(paths, 40) for kind, paths in by_class(rows).items() if kind in ARTICLES}

    return Cut.of(part("train"), part("test"), 20, 30)


def cifar(folder: Path) -> Cut:
    """Photographs alone; the number at the end of a name is the class, none the first."""

    def part(name: str) -> dict[str, list[str]]:
        paths = list_pictures([folder / name / "REAL"])
        numbers = [(re.search(r"_(\d+)$", Path(p).stem), str(p)) for p in paths]
        return {
            kind: drawn(own, 40)
            for kind, own in by_class((CIFAR[int(m[1]) - 1 if m else 0], p) for m, p in numbers).items()
        }

    return Cut.of(part("train"), part("test"), 36, 40)


def flickr(folder: Path) -> Cut:
    """Photographs of which three captions or more say one of the words, and none another."""

    def told(captions: Sequence[str]) -> str | None:
        often = {k: sum(bool(re.search(rf"\b{w}", c.lower())) for c in captions) for k, w in WORDS.items()}
        there = [k for k, n in often.items() if n]
        return there[0] if len(there) == 1 and often[there[0]] >= 3 else None

    lines = (folder / "train.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    every = {k: drawn(p, 56) for k, p in by_class((told(r["text"]), str(folder / r["image"])) for r in rows).items()}
    return Cut.of({k: p[16:] for k, p in every.items()}, {k: p[:16] for k, p in every.items()}, 16, 32)


def imagenet(folder: Path) -> Cut:
    """One picture of each class, in groups by a word of the class's definition; settings are chosen on it."""
    glosses = {c.synset: f"{c.names[0]}, {c.gloss}" for c in imagenet_classes()}

    def told(path: Path) -> str | None:
        gloss = glosses[path.name.split("_")[0]]
        there = [k for k, w in GLOSSES.items() if re.search(rf"\b({w})s?\b", gloss)]
        return there[0] if len(there) == 1 else None

    every = {k: drawn(p, 40) for k, p in by_class((told(Path(p)), str(p)) for p in list_pictures([folder])).items()}
    return Cut.of({k: p[:8] for k, p in every.items()}, {k: p[8:] for k, p in every.items()}, 32, 32)


SETS: dict[str, tuple[str, Callable[[Path], Cut]]] = {
    "grocery": ("groceries", groceries),
    "fashion": ("articles of fashion", fashion),
    "cifake": ("CIFAR-10 photographs", cifar),
    "flickr": ("Flickr photographs", flickr),
    "imagenet": ("groups of ImageNet", imagenet),
}
