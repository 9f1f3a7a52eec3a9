"""Do only true descriptions win a verdict? Every picture's verdict in words, for true descriptions and for controls.

    python benchmarks/words.py PHOTOS TEST --descriptions FILE         # folders with a folder for each class
    python benchmarks/words.py PHOTOS TEST --descriptions FILE --n 3   # of three of its classes, other ones each trial

Two routes: a fitted classifier with descriptions, and `described`, measured on PHOTOS. Controls: the lists given to
wrong classes (``shuffled``), meaningless words of the same lengths (``nonsense``), sentences about trains (``trains``),
each once a seed. Pictures are encoded once.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import seewhy
from seewhy.classifiers.base import Classifier, HeldOut
from seewhy.classifiers.encoded_set import EncodedSet, encode_labelled
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.unfitted import Described
from seewhy.classifiers.words import measured_by
from seewhy.descriptions import Descriptions
from seewhy.evidence.words import show_words
from seewhy.explanation.base import Words
from seewhy.pictures.samples import Samples, load_samples

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproductions"))

from description_controls import swapped

SUBJECTS = (
    "a steam locomotive",
    "a freight train",
    "the night express",
    "a railway carriage",
    "the dining car",
    "a diesel engine",
    "a signal box",
    "the level crossing",
    "a conductor",
    "a sleeper car",
    "the goods yard",
    "the underground",
    "a shunting engine",
    "the platform",
    "a ticket office",
    "the rails",
)
DOINGS = (
    "waits in the tunnel",
    "pulls twelve wagons over the pass",
    "is late by ten minutes",
    "whistles before the bend",
    "stops at every village",
    "carries coal to the harbour",
    "has red seats and a luggage rack",
    "is painted dark green",
    "crosses the river at dawn",
    "needs a new boiler",
    "leaves from track nine",
    "slows down at the signal",
)
Texts = Mapping[str, Sequence[str]]


def trains(texts: Texts, seed: int) -> dict[str, list[str]]:
    rng = random.Random(seed)
    pool = [" ".join(pair) for pair in product(SUBJECTS, DOINGS)]
    n = sum(map(len, texts.values()))
    drawn: Iterator[str] = iter(rng.sample(pool * (1 + n // len(pool)), n))
    return {label: [next(drawn) for _ in lines] for label, lines in texts.items()}


def nonsense(texts: Texts, seed: int) -> dict[str, list[str]]:
    rng = random.Random(seed)

    def word(like: str) -> str:
        return "".join(rng.choices(string.ascii_lowercase, k=max(2, len(like))))

    return {label: [" ".join(map(word, line.split())) for line in lines] for label, lines in texts.items()}


def shuffled(texts: Texts, seed: int) -> dict[str, list[str]]:
    found = swapped(Descriptions.of({c: list(t) for c, t in texts.items()}), seed).texts
    return {label: list(lines) for label, lines in found.items()}


CONTROLS: dict[str, Callable[[Texts, int], Texts]] = {"shuffled": shuffled, "nonsense": nonsense, "trains": trains}


def verdicts(model: Classifier, pooled: Tensor) -> list[str]:
    """The level of every picture, for the class decided on against the next."""
    first, second = model.head.probabilities(pooled).topk(2, 1).indices.T.tolist()
    shown = [show_words(model, row, a, b) for row, a, b in zip(pooled, first, second, strict=True)]
    return [words.verdict.level for words in shown if isinstance(words, Words)]


def routes(fitted: Classifier, held: HeldOut, texts: Texts) -> Iterator[tuple[str, Classifier]]:
    given = Descriptions.of({c: list(t) for c, t in texts.items()})
    yield "fitted", fitted.with_descriptions(given)
    yield "described", measured_by(Described().build(fitted.encoder, given), held)


def trial(fitted: Classifier, held: HeldOut, test: EncodedSet, texts: Texts, seeds: int) -> dict[str, Any]:
    """Part of the pictures that are at least partly believed, and believable, a number for each seed."""
    found: dict[str, Any] = {}
    for name, control in {"true": lambda texts, _: texts, **CONTROLS}.items():
        for seed in range(1 if name == "true" else seeds):
            for route, model in routes(fitted, held, control(texts, seed)):
                count = Counter(verdicts(model, test.pooled))
                row = found.setdefault(f"{route}, {name}", {"partly or better": [], "believable": []})
                n = max(1, sum(count.values()))
                row["partly or better"].append(round((count["partly"] + count["believable"]) / n, 3))
                row["believable"].append(round(count["believable"] / n, 3))
    return found


def only(samples: Samples, classes: Sequence[str]) -> Samples:
    return replace(samples, items=tuple(s for s in samples.items if s.label in classes), classes=tuple(sorted(classes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--descriptions", type=Path, required=True)
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--n", type=int, help="classes a trial; left out, all")
    parser.add_argument("--trials", type=int, default=1, help="of other classes, with --n")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoder, store = seewhy.encoder(args.encoder), seewhy.FeatureStore()
    described = Descriptions.read(args.descriptions)
    photos, test = load_samples(args.photos), load_samples(args.test)
    names = [c for c in photos.classes if c in described.texts]
    for trial_seed in range(args.trials):
        classes = sorted(names if args.n is None else random.Random(trial_seed).sample(names, args.n))
        fitted = Linear(n_crops=0, n_bank=0).fit(encoder, only(photos, classes), store=store)
        seen = encode_labelled(encoder, fitted.classes, only(photos, classes), store)
        shown = encode_labelled(encoder, fitted.classes, only(test, classes), store)
        texts = {c: described.texts[c] for c in fitted.classes}
        found = trial(fitted, HeldOut(seen.pooled, seen.labels), shown, texts, args.seeds)
        print(json.dumps({"classes": len(classes), "pictures": len(shown.labels), **found}, indent=1))


if __name__ == "__main__":
    main()
