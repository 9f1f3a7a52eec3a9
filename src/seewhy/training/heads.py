"""Heads behind frozen towers, trained on what is looked at once; and what may be forgotten meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..encoders.base import Encoder, TextTower
from ..encoders.paired_heads import PairedHeads, own_vectors, sentence_fingerprint
from ..encoders.templates import filled
from ..objectives.contrastive import Contrastive, Temperature
from ..storage.tensors import cached_tensors
from .batches import Batch, TrainingData
from .contrast import Drawn, gathered_labels, gathered_pairs, read_texts
from .seen_pairs import SeenPairs
from .task import Task

TRAINED_AT = 0.5
"""How much the new space counts while it is learnt."""


@dataclass(frozen=True, eq=False)
class OwnClasses:
    """The classes that an encoder was trained to tell, by their names: what may be forgotten, without any picture more.

    Attributes:
        sentences: of the names, their own vectors.
        layer: pooled vector → the classes' scores.
    """

    sentences: Float[Tensor, "k e"]
    layer: nn.Linear

    @classmethod
    def of(cls, on: Encoder) -> OwnClasses | None:
        """Those of an encoder; ``None`` where it has none, or none with names."""
        layer = on.classifier
        if layer is None or not on.has_text or len(on.classes) != layer.out_features:
            return None
        return cls(own_sentences(on.text, names_of(on)), layer)

    @torch.no_grad()
    def named(self, heads: PairedHeads, keep: float, on: Encoder, pooled: Float[Tensor, "n p"]) -> Bool[Tensor, " n"]:
        """Whether each picture's nearest class by name is the one that the encoder's own last layer says."""
        image = heads.image(on.text.project(pooled), keep)
        text = heads.text(self.sentences, heads.placed(on.text, self.sentences, keep), keep)
        return (image @ text.T).argmax(1) == self.layer(pooled).argmax(1)


def names_of(on: Encoder) -> list[str]:
    """Its own classes as sentences."""
    return [filled(on.text.templates[0], name) for name in on.classes]


def own_sentences(tower: TextTower, names: Sequence[str]) -> Float[Tensor, "k e"]:
    """Classes' names → vectors of their own, kept in the cache: they are many, and asked in every run."""
    key = hashlib.sha256(repr((sentence_fingerprint(tower), names)).encode()).hexdigest()[:16]
    return cached_tensors("names", key, lambda: {"sentences": own_vectors(tower, names).clone()})["sentences"]


class HeadsTask(Task):
    """Pairs find one another by both spaces together, so that the new one learns what the old one does not know.

    Args:
        heads: what is trained.
        objective: between pictures and texts.
        labels: whether pictures have labels that the objective uses.
    """

    def __init__(self, heads: PairedHeads, objective: Contrastive, *, labels: bool = False) -> None:
        super().__init__()
        self.needs = ("image", "text", *(("labels",) if labels else ()))  # type: ignore[misc]
        self.heads, self.objective = heads.requires_grad_(True), objective
        self.temperature: Temperature = objective.state()

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        text = read_texts(partial(self.heads.text, keep=TRAINED_AT), batch, self.objective.n_texts)
        return self.heads.image(batch["image"], TRAINED_AT), text

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        image, text, share = gathered_pairs(*features)
        labels = gathered_labels(batch["labels"]) if "labels" in self.needs else None
        return {"loss": self.objective(image, text, labels, self.temperature, share=share)}

    def after_step(self) -> None:
        self.temperature.hold()


def heads_data(heads: PairedHeads, on: Encoder, seen: SeenPairs, n_texts: int = 1) -> TrainingData:
    """Each picture once an epoch, with one of its texts drawn anew, or ``n_texts``."""
    with torch.no_grad():
        image = on.text.project(seen.pooled)
        among = torch.cat([heads.placed(on.text, part, TRAINED_AT) for part in seen.sentences.split(4096)])
    said = Drawn(seen.choices, lambda rows: (seen.sentences[rows], among[rows]), n_texts)
    return TrainingData(len(seen), {"image": image, "text": said})


def heads_vectors(
    heads: PairedHeads, on: Encoder, seen: SeenPairs, keep: float
) -> tuple[Float[Tensor, "p d"], Float[Tensor, "n d"]]:
    """Pictures, and the text of each pair, where heads put them, from what the encoder itself has seen."""
    with torch.no_grad():
        image = normalize(heads.image(on.text.project(seen.pooled), keep), dim=1)
        parts = [heads.text(s, heads.placed(on.text, s, keep), keep) for s in seen.sentences.split(4096)]
        return image, torch.cat(parts)[seen.pairs[:, 1]]
