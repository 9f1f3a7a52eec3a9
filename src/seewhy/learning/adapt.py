"""Adaptation of an image-text encoder to pictures with texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from ..bounds import Count, check_fields
from ..encoders.base import Encoder
from ..encoders.names import named, names_of
from ..errors import InputError
from ..pictures.pairs import load_pairs
from ..pictures.samples import Sample
from ..progress import Progress
from ..results import Doc, Share
from ..seeded import seeded
from ..storage.features import FeatureStore
from ..training.batches import Batch, TrainingData
from ..training.loop import Trained, Training
from ..training.task import Task
from .contrast import Drawn, PairTask, Ranks, ranks, read_texts, towers_columns, towers_task
from .encoders.adapted import Adaptation, Keep, Named
from .encoders.heads import WIDTH, PairedHeads
from .encoders.towers import TunedTowers, trainable
from .objectives import objectives
from .objectives.contrastive import Contrastive, RandomBoxes, Regional
from .pooled import PooledPairs, encode_pairs, findings, joint_vectors, spanned
from .way import Finished, Way, noted

KEEPS = (0.05, 0.08, 0.1, 0.12, 0.14, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Default values of ``keep`` to try with heads."""
TOWER_KEEPS = (0.25, 0.5, 0.75, 1.0)
"""Default values of ``keep`` to try with encoders; each costs a pass over the held-out pictures."""
TRAINED_AT = 0.5
"""Value of ``keep`` during training of heads."""


@dataclass(frozen=True)
class Kept:
    """Held-out results for one value of ``keep``."""

    keep: Keep
    image_to_text: Annotated[Share, Doc("R@5 on held-out pictures")]
    text_to_image: Annotated[Share, Doc("R@5 on held-out pictures")]
    named: Named

    @classmethod
    def of(cls, keep: float, found: Ranks, named: Bool[Tensor, " n"] | None) -> Kept:
        part = None if named is None else round(float(named.float().mean()), 4)
        to_text, to_image = found.recall(5)
        return cls(keep, round(to_text, 4), round(to_image, 4), part)

    @property
    def gain(self) -> float:
        return (self.image_to_text + self.text_to_image) / 2


class Adapted(Finished[PooledPairs, Kept]):
    """The result of a training on pairs of a picture and a text."""


@dataclass(frozen=True)
class Adapt(Way[PooledPairs, Kept]):
    """Adaptation of an image-text encoder to pictures with texts.

    Args:
        objective: name of the loss.
        train: what to train: ``"heads"`` on top of the frozen encoder, the ``"image"`` encoder, the ``"text"`` encoder,
            or both (``"towers"``).
        micro_batch: number of pairs per forward pass; default: as many as fit into memory. Lower it if memory runs out.
        lr: highest learning rate; default: 1.5e-3 for heads, otherwise set by the encoder.
        width: output dimensions of the heads.
        refit: with ``"heads"``, whether to refit the encoder's regression from sentences to pictures, if it has one.
        guard: with ``"heads"``, whether a sentence keeps its original vector if it is nearer to one of the encoder's
            class names than to the training texts.
        may_forget: largest allowed loss of agreement with the original encoder on its own classes, 0 to 1; a lower
            value forgets less. With ``"heads"``, each of these class names is treated as a new name.
    """

    columns: ClassVar[tuple[str, ...]] = ("image", "text", "label", "group")
    all_of_it: ClassVar[Mapping[str, Any]] = {"train": "towers", "keep": 1.0, "epochs": 20, "batch_size": 256}
    result: ClassVar[type[Finished[Any, Any]]] = Adapted

    objective: str = "clip"
    train: Literal["heads", "image", "text", "towers"] = "heads"
    micro_batch: int | None = None
    width: Count = WIDTH
    refit: bool = True
    guard: bool = True

    def __post_init__(self) -> None:
        check_fields(self, "adapt")
        self.contrastive()

    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> tuple[Sample, ...]:
        return noted(load_pairs(source, **columns), progress)

    def refuse(self, on: Encoder, read: Sequence[Sample]) -> None:
        _ = on.text if self.train == "heads" else trainable(on)

    def look(self, on: Encoder, read: Sequence[Sample], store: FeatureStore | None, progress: Progress) -> PooledPairs:
        return encode_pairs(on, read, store, progress)

    def spanned(self, on: Encoder, own: PooledPairs, store: FeatureStore | None, progress: Progress) -> PooledPairs:
        return spanned(on, own, self.contrastive().spans, store, progress)

    def contrastive(self) -> Contrastive:
        able = {n: of for n in objectives if issubclass(of := objectives[n], Contrastive) and of.plain_pairs}
        if self.objective not in able:
            found = objectives[self.objective]
            raise InputError(
                f"`objective` must accept pictures with texts, got {self.objective!r}, which needs {found.needs}. Use "
                f"one of {', '.join(able)}, or "
                f"{f'give seewhy adapt {found.options}' if found.options else 'use seewhy pretrain'}."
            )
        return able[self.objective]()

    def training(self, data: TrainingData, on: Encoder) -> Training:
        lr = self.lr or (1.5e-3 if self.train == "heads" else trainable(on).tuning_lr)
        return Training.cosine(self, data, lr)

    def seal(self, own: PooledPairs) -> list[Any]:
        labels = [item.label for item in own.items] if self.contrastive().uses_labels else []
        return [asdict(self), labels, own.texts, own.pairs.tolist()]

    def prepared(
        self, on: Encoder, own: PooledPairs, progress: Progress
    ) -> tuple[PairedHeads | TunedTowers, Task, TrainingData]:
        objective = self.contrastive()
        if isinstance(objective, RandomBoxes) and self.train in ("heads", "text"):
            progress.note(
                f"{self.objective} trains a detector's heads only together with the image encoder, so no heads are "
                "trained here"
            )
        labels = findings(own) if objective.uses_labels else None
        if objective.uses_labels and labels is None:
            progress.note(f"{self.objective} uses no classes or findings, because some pictures have none")
        part, task, columns = self._parts(on, own, objective, labels is not None, progress)
        return part, task, TrainingData(len(own), columns if labels is None else {**columns, "labels": labels})

    def _parts(
        self, on: Encoder, own: PooledPairs, objective: Contrastive, labelled: bool, progress: Progress
    ) -> tuple[PairedHeads | TunedTowers, Task, dict[str, Any]]:
        if self.train != "heads":
            towers = TunedTowers.before(on, self.train)
            with seeded(self.seed):
                task = towers_task(on, towers, objective, labels=labelled)
            return towers, task, towers_columns(on, towers, own, progress, objective)
        if isinstance(objective, Regional):
            progress.note(
                f"{self.objective} does not compare regions with words here, because the heads get features of whole "
                f"pictures and texts only"
            )
        with seeded(self.seed), torch.no_grad():
            heads = PairedHeads.before(on, self.width, refit=self.refit).measure(on.text.project(own.pooled))
            if self.guard:
                heads.hear(own.sentences)
        if "coefficients" in heads.refit and "left" not in heads.refit:
            progress.note(
                f"{on.name} has no vectors of emoji, so the projection of its sentences is fitted on its classes only"
            )
        with torch.no_grad():
            image = on.text.project(own.pooled)
            among = torch.cat([heads.placed(on.text, part, TRAINED_AT) for part in own.sentences.split(4096)])
        text = Drawn(own.choices, lambda rows: (own.sentences[rows], among[rows]), objective.n_texts)
        return heads, HeadsTask(heads, objective, labels=labelled), {"image": image, "text": text}

    def keeps(self) -> Sequence[float]:
        return KEEPS if self.train == "heads" else TOWER_KEEPS

    def measured(
        self, on: Encoder, part: Any, own: PooledPairs, chosen_on: PooledPairs, held: PooledPairs, progress: Progress
    ) -> Callable[[float], Kept]:
        if isinstance(part, PairedHeads):
            heads = part.level(on.text.project(own.pooled))

            def behind(keep: float) -> Kept:
                with torch.no_grad():
                    image = normalize(heads.image(on.text.project(chosen_on.pooled), keep), dim=1)
                    texts = torch.cat([heads.guarded(on.text, s, keep) for s in chosen_on.sentences.split(4096)])
                found = ranks(image, texts[chosen_on.pairs[:, 1]], chosen_on.owner)
                return Kept.of(keep, found, agrees(heads, keep, on, chosen_on.pooled))

            return behind

        def through(keep: float) -> Kept:
            grown = Adaptation(on, part, keep).encoder() if keep else on
            encoded = chosen_on if not keep else encode_pairs(grown, chosen_on.items, None, progress)
            image, text = joint_vectors(grown, encoded)
            agree, whole = None, len(encoded) == len(chosen_on)
            if on.classifier is not None and len(on.classes) == on.classifier.out_features and whole:
                own_class = on.classifier(chosen_on.pooled).argmax(1)
                agree = (image @ grown.encode_text(names_of(on)).T).argmax(1) == own_class
            return Kept.of(keep, ranks(image, text, encoded.owner), agree)

        return through

    def told(self, own: PooledPairs, data: TrainingData, done: Trained) -> dict[str, Any]:
        return {**asdict(self), "n_pictures": len(own), "n_texts": len(own.texts), "loss": done.loss}


@torch.no_grad()
def agrees(heads: PairedHeads, keep: float, on: Encoder, pooled: Float[Tensor, "n p"]) -> Bool[Tensor, " n"] | None:
    """Return, for each picture, whether the nearest class name is the prediction of the encoder's classifier."""
    if on.classifier is None or not named(on):
        return None
    image = heads.image(on.text.project(pooled), keep)
    return (image @ heads.named_anew(on.text, keep).T).argmax(1) == on.classifier(pooled).argmax(1)


class HeadsTask(PairTask):
    """Contrastive training of the heads on the original and the new space together."""

    def __init__(self, heads: PairedHeads, objective: Contrastive, *, labels: bool = False) -> None:
        super().__init__(objective, "image", "text", labels=labels)
        self.heads = heads.requires_grad_(True)

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        text = read_texts(partial(self.heads.text, keep=TRAINED_AT), batch, self.objective.n_texts)
        return self.heads.image(batch["image"], TRAINED_AT), text

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": self.compared(*features, batch)[0]}
