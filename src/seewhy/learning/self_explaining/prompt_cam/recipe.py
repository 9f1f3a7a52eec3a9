"""Prompt-CAM (Chowdhury et al., CVPR 2025, arXiv 2501.09333): a classifier with a learnt prompt for each class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ....bounds import Count, Natural, OpenPart
from ....classifiers import classifiers
from ....classifiers.base import HeldOut
from ....classifiers.encoded_set import EncodedSet
from ....classifiers.fitting import Fitting, Outcome
from ....classifiers.network import Network
from ....encoders.stream import Encoded, encode_stream
from ....errors import InputError
from ....heads.head import Head
from ....heads.normalise import Normalise
from ....progress import Progress
from ....seeded import seeded
from ....storage.features import FeatureStore
from ....training.augmentation import TrainingPictures
from ....training.batches import Batch, TrainingData
from ....training.loop import Trained, Training, mean_terms, train
from ....training.task import Task, classified
from ...network_recipe import NetworkRecipe
from .network import PromptCAMNetwork, Prompts, parts_of

BORDER = 240 / 224
"""Ratio of resize and crop size (authors: 240 and 224)."""
RATES = {"sgd": (0.005, 0.05), "adamw": (0.001, 0.01)}
"""Default learning rates to try on held-out pictures (paper: 0.001 to 0.01 with SGD)."""


@classifiers.register
@dataclass(frozen=True)
class PromptCAM(NetworkRecipe):
    """Frozen vision transformer with a learnt prompt for each class; the prompt's attention explains the prediction.

        s_c = w · z_c

    ``s_c`` is the score of class ``c``, and ``z_c`` the output for its prompt after the last block and norm (paper,
    section 3.2). Prompts and the vector ``w`` are trained by cross entropy; each prompt learns to attend to patches
    that distinguish its class. The bias of the authors' ``Linear(d, 1)`` is left out.

    Args:
        variant: position of the prompts. ``"last"`` inserts them before the last block and trains on stored features.
            ``"deep"``, as in the main results of the paper, has new prompts before every block. ``"shallow"`` inserts
            them before the first block.
        first: with ``"deep"``, number of the first layer with class prompts, at least 0; default: the last layer. The
            paper's variants are the last layer and 0.
        shared: whether all classes share the scoring vector ``w``. With separate vectors, a class may get a high score
            without meaningful attention (paper).
        dropout: dropout of prompts in training, 0 to 1 (authors: 0.1 for DINO, 0 for DINOv2).
        epochs: number of passes over the pictures (paper: 100 to 130).
        batch_size: pictures per step; lower it if memory runs out.
        optimiser: ``"sgd"`` with momentum 0.9 (paper), or ``"adamw"``, which needs fewer epochs.
        lr: highest learning rate; default: the best of :data:`RATES` on held-out pictures.
        weight_decay: weight decay (authors: 1e-3).
        warmup: fraction of the steps for the warm-up, before a cosine schedule (authors: 20 of 100 epochs).
    """

    name: ClassVar[str] = "prompt_cam"
    paper: ClassVar[str] = "Chowdhury et al. 2025, arXiv:2501.09333"
    needs: ClassVar[str] = "labelled pictures and a vision transformer"
    network: ClassVar[type[Network] | None] = PromptCAMNetwork
    takes: ClassVar = ("checkpoint",)
    small: ClassVar = {"epochs": 2, "lr": 0.05}
    needs_attention: ClassVar[bool] = True

    variant: Literal["last", "deep", "shallow"] = "last"
    first: Natural | None = None
    shared: bool = True
    dropout: OpenPart = 0.1
    epochs: Count = 100
    batch_size: Count = 16
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float | None = None
    weight_decay: float = 1e-3
    warmup: OpenPart = 0.2
    n_bank: int = 1000

    def check(self) -> None:
        if self.first is not None and self.variant != "deep":
            raise InputError(
                "`first`, the first layer with prompts, can only be given with variant='deep', got "
                f"variant={self.variant!r} and first={self.first}."
            )

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, progress, checkpoint = fitting.encoder, fitting.progress, fitting.checkpoint
        parts, by_tokens = parts_of(encoder), self.variant == "last"
        last = parts.n_layers - 1
        first = {"last": last, "shallow": 0, "deep": last if self.first is None else self.first}[self.variant]
        if first > last:
            raise InputError(f"`first`, the first layer with prompts, must be from 0 to {last}, got {first}.")
        pictures, tokens = fitting.look(features=by_tokens), None
        if by_tokens:  # in half precision, as the store keeps them, so that a second run trains on the same
            tokens = torch.stack([s.features.half() for s in pictures.encoded if s.features is not None])
        rates = RATES[self.optimiser] if self.lr is None else (self.lr,)
        if not pictures.held.any():
            rates = rates[:1]
        n, held, tries = len(pictures.classes), pictures.held, []
        for lr in rates:
            file = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.{lr:g}")
            with seeded(self.seed):
                n_early = first if self.variant == "deep" else 0
                prompts = Prompts(n_early, n, parts.width, parts.area, self.shared, self.dropout)
            network = PromptCAMNetwork(encoder, first, prompts)
            trained = self._train(network, pictures, tokens, lr, file, progress)
            pooled = _held_pooled(network, pictures, tokens, fitting.store, progress)
            measured = HeldOut(pooled, pictures.labels[held], pooled[:, :n], pictures.groups[held])
            tries.append(_Try(lr, network, trained, measured if len(pooled) else None))
        best, n_held = max(tries, key=lambda t: t.right), int(held.sum())
        kind = "validation pictures" if pictures.validation else "pictures held out"
        head = Head(Normalise(), torch.eye(n, n + parts.width))
        told = f"; measured on {n_held:,} {kind}" if n_held else ""
        made = self.classifier(best.network, pictures, head, best.held, told)
        done = mean_terms(best.trained.history[-50:])
        figures = {
            "lr": best.lr,
            "held_out_accuracy_by_lr": {f"{t.lr:g}": t.right for t in tries} if n_held else {},
            "final_loss": done["loss"],
            "training_accuracy": done["right"],
            "seconds_per_step": round(best.trained.seconds_per_step, 4),
        }
        return Outcome(made, pictures, figures, patches=replace(pictures, validation=True))  # that stays out

    def _train(
        self,
        network: PromptCAMNetwork,
        pictures: EncodedSet,
        tokens: Float[Tensor, "n t d"] | None,
        lr: float,
        file: Path | None,
        progress: Progress,
    ) -> Trained:
        chosen = (~pictures.held).nonzero()[:, 0]
        labels, names = pictures.labels[chosen], [pictures.items[i].source for i in chosen.tolist()]
        n_steps = self.epochs * max(1, len(labels) // self.batch_size)
        usual: dict[str, Any] = {"weight_decay": self.weight_decay, "nesterov": False}
        usual["warmup"] = round(self.warmup * n_steps)
        how = Training(n_steps, self.batch_size, self.optimiser, lr, schedule="cosine", seed=self.seed, **usual)
        digests = "\0".join(pictures.encoded[i].digest for i in chosen.tolist())
        digest = hashlib.sha256(digests.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        seal = json.dumps([self.parameters(), network.base.fingerprint, digest], sort_keys=True)
        kept = None if file is None else (file, seal)
        read = TrainingPictures(network.base, names, None, progress, border=BORDER, stretch=True)
        shown = {"pixels": read} if tokens is None else {"tokens": tokens[chosen]}
        data = TrainingData(len(labels), {**shown, "labels": labels})
        return train(Prompting(network), data, how, checkpoint=kept, progress=progress)


@dataclass(frozen=True)
class _Try:
    """A training with one learning rate, and its held-out results."""

    lr: float
    network: PromptCAMNetwork
    trained: Trained
    held: HeldOut | None

    @property
    def right(self) -> float:
        if self.held is None or self.held.logits is None:
            return 0.0
        return round(float((self.held.logits.argmax(1) == self.held.labels).float().mean()), 4)


def _held_pooled(
    network: PromptCAMNetwork,
    pictures: EncodedSet,
    tokens: Float[Tensor, "n t d"] | None,
    store: FeatureStore | None,
    progress: Progress,
) -> Float[Tensor, "m p"]:
    held = pictures.held.nonzero()[:, 0].tolist()
    width = len(pictures.classes) + network.parts.width
    if tokens is not None:
        with torch.no_grad():
            found = [network.head(tokens[i : i + 1].float())[0] for i in held]
    else:
        stream = encode_stream(network.encoder(), [pictures.items[i].source for i in held], store=store)
        looked = progress.track(stream, "Looking at pictures again", len(held))
        # A picture that has gone since the first look counts as wrong.
        found = [s.pooled[0] if isinstance(s, Encoded) else torch.zeros(width) for s in looked]
    return torch.stack(found) if found else torch.empty(0, width)


class Prompting(Task):
    """Training of class prompts on ``"pixels"`` or on stored ``"tokens"``."""

    needs = ("labels",)
    moves = False

    def __init__(self, network: PromptCAMNetwork) -> None:
        super().__init__()
        self.network, self.prompts = network, network.prompts.requires_grad_(True)

    def features(self, batch: Batch) -> Float[Tensor, "b k"]:
        by_tokens = "tokens" in batch.columns
        return self.network.head.scores(batch["tokens"].float() if by_tokens else self.network.trunk(batch["pixels"]))

    def loss(self, features: Float[Tensor, "b k"], batch: Batch) -> Mapping[str, Tensor]:
        return classified(features, batch["labels"])
