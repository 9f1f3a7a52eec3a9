"""Heads behind frozen towers, trained on what is looked at once; and what may be forgotten meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.base import Encoder
from ..encoders.names import named
from ..encoders.paired_heads import PairedHeads
from ..training.batches import Batch, TrainingData
from ..training.task import Task
from .contrast import Drawn, gathered_labels, gathered_pairs, read_texts
from .objectives.contrastive import Contrastive, Temperature
from .seen_pairs import SeenPairs

TRAINED_AT = 0.5
"""How much the new space counts while it is learnt."""


@torch.no_grad()
def agrees(heads: PairedHeads, keep: float, on: Encoder, pooled: Float[Tensor, "n p"]) -> Bool[Tensor, " n"] | None:
    """Whether each picture's nearest class by name is the one that the encoder's own last layer says.

    What may be forgotten, without any picture more. Each name is read as if it were none of the encoder's own, so that
    what is measured holds for others; ``None`` for an encoder that has no classes with names.
    """
    if on.classifier is None or not named(on):
        return None
    image = heads.image(on.text.project(pooled), keep)
    return (image @ heads.named_anew(on.text, keep).T).argmax(1) == on.classifier(pooled).argmax(1)


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
        parts = [heads.guarded(on.text, s, keep) for s in seen.sentences.split(4096)]
        return image, torch.cat(parts)[seen.pairs[:, 1]]
