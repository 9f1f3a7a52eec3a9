"""Typical pictures of a class, generated once per class and cached."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifiers.base import Classifier
from ..encoders.base import Encoder
from ..explanation.kinds import MadePicture, Typical
from ..explanation.verdict import Level
from ..explanation.verdict import Verdict as Believed
from ..storage.reading import file_sha256
from ..storage.tensors import cached_tensors
from .conditions import Judge, of_class
from .generator import FILE, Generator, Reader, batched, bytes_of, is_poor, load_generator
from .sampler import PPGN, facets_among

FOLDER = "typical"
"""Folder name in the cache."""
FORMAT = 1
WALK = PPGN(n_steps=60, n_shown=1)
"""Sampler settings for typical pictures."""
RULE = (
    "The generated pictures are believable if a second network, which did not guide the generator, recognises the "
    "class in every picture. They are partly believable if it recognises the class in some pictures. Otherwise do not "
    "rely on them. Do not rely on them either if the generator's error on held-out pictures is above 90 % of the error "
    "of the mean picture. They are not judged if there is no second network, or if it does not know the class. The "
    "network that guided the generator cannot judge them, because it agrees with any picture made for it."
)


class Typicals:
    """Generated typical pictures of each class of a classifier."""

    def __init__(
        self,
        classifier: Classifier,
        generator: Generator,
        judge: Classifier | Encoder | None,
        digest: str,
        *,
        n: int = 3,
        walk: PPGN = WALK,
        seed: int = 0,
    ) -> None:
        self.classifier, self.generator, self.n, self.walk, self.seed = classifier, generator, n, walk, seed
        self.judge = None if judge is None else Judge.of(judge, of_class(classifier, 0), classifier.classes)
        by = None if self.judge is None else self.judge.classifier.digest
        told = json.dumps([FORMAT, digest, classifier.digest, by, repr(walk), n, seed])
        self.digest = hashlib.sha256(told.encode()).hexdigest()
        self._known: dict[int, Typical] = {}

    @classmethod
    def open(cls, folder: str | Path, classifier: Classifier, judge: Classifier | Encoder | None = None) -> Typicals:
        """Load a generator from a folder, to show typical pictures of each class of a classifier."""
        generator = load_generator(folder, own=classifier.encoder)
        path = Path(folder)
        return cls(classifier, generator, judge, file_sha256(path / FILE if path.is_dir() else path))

    def __repr__(self) -> str:  # recorded in a folder of cards to recognise its model
        return f"Typicals({self.digest})"

    def of(self, label: int) -> Typical:
        if label not in self._known:
            found = cached_tensors(FOLDER, f"{self.digest[:40]}-{label}", lambda: self._made(label))
            self._known[label] = self._told(label, found)
        return self._known[label]

    @cached_property
    def _fits(self) -> Float[Tensor, "n k"]:
        """Return ``log p`` of every class for the generator's codes."""
        read, network = Reader(self.classifier.encoder), self.generator.network
        with torch.no_grad():
            parts = [network(part) for part in self.generator.codes.split(32)]
            return torch.cat([self.classifier.head(read(part)).log_softmax(1) for part in parts])

    def _made(self, label: int) -> dict[str, Tensor]:
        condition = of_class(self.classifier, label)
        starts = facets_among(self.generator.codes, self._fits[:, label], self.n, self.seed)
        walk = self.walk.sample(self.generator, condition, starts, seed=self.seed)
        made = {"pictures": bytes_of(walk.pictures[-1]), "values": walk.values[-1]}
        if self.judge is not None:
            looks = batched(Reader(self.judge.classifier.encoder), walk.pictures[-1].clamp(0, 1))
            made["seen"] = self.judge.classifier.head.probabilities(looks).argmax(1)
        return made

    def _told(self, label: int, made: dict[str, Tensor]) -> Typical:
        name, judge = self.classifier.classes[label], self.judge
        known = () if judge is None else judge.classifier.classes
        seen = [known[i] for i in made["seen"].tolist()] if judge is not None else [None] * self.n
        agrees = [one == name if name in known else None for one in seen]
        values = made["values"].tolist()
        pictures = tuple(
            MadePicture(p.numpy(), v, s, a) for p, v, s, a in zip(made["pictures"], values, seen, agrees, strict=True)
        )
        climbed = self.classifier.encoder.name
        by = None if judge is None else judge.name
        worth = believed(name, climbed, by, pictures, is_poor(self.generator.facts))
        return Typical(name, climbed, pictures, by, self.generator.recipe, worth)


def believed(label: str, climbed: str, judge: str | None, pictures: tuple[MadePicture, ...], poor: bool) -> Believed:
    agreements = [one.agrees for one in pictures if one.agrees is not None]
    level: Level = "not measured"
    figures = f"{climbed} guided the generator, and agrees with any picture made for it."
    if judge is None:
        sentence = "No second network has judged these pictures."
    elif not agreements:
        predictions = ", ".join(sorted({str(one.seen) for one in pictures}))
        sentence = f"The second network, {judge}, does not know {label}, and predicts {predictions}."
    else:
        level = "believable" if all(agreements) else "partly" if any(agreements) else "do not rely"
        sentence = f"A second network recognises {sum(agreements)} of {len(agreements)} pictures."
        figures = f"The second network is {judge}. {figures}"
    if poor:
        level, figures = "do not rely", f"{sentence} {figures}"
        sentence = "The generator's pictures are hardly more like real pictures than the mean picture is."
    return Believed(level, sentence, RULE, figures)
