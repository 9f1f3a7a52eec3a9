"""GPT4Image (Ding et al. 2023, arXiv 2306.00693): a classifier that also learns from a text about each picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from ....classifiers import classifiers
from ....classifiers.base import Classifier
from ....classifiers.encoded_set import EncodedSet, Split, with_logits
from ....classifiers.fitting import Fitting, Outcome, PictureRecipe
from ....classifiers.linear.recipe import Linear
from ....classifiers.network import Network
from ....encoders.base import Encoder, Layout
from ....encoders.split import freeze
from ....errors import InputError
from ....language.matching import Caption, of_pictures
from ....progress import Progress
from ....seeded import seeded
from ....training.augmentation import TrainingPictures
from ....training.batches import TrainingData
from ....training.loop import Schedule, Trained, Training, mean_terms, train
from ....training.task import Supervised, Task
from ...contrast import Contrast
from ...multitask import POOLED, Multitask
from ...objectives.gpt4image import Form, Projection, projection
from ...objectives.gpt4image import GPT4Image as Alignment
from ...regions import Still
from ..backbone import Backbone, Predictor, new_predictor, predictor_of, reader_of, sized
from .network import TunedNetwork
from .texts import TextVectors


@classifiers.register
@dataclass(frozen=True)
class GPT4Image(PictureRecipe):
    """A network is trained by its classes and, beside them, to place each picture near a text about that very picture.

    ``L = CE(head(f), y) + lam align(projection(f), text)``, with the text's vector fixed; see
    :class:`~seewhy.learning.objectives.gpt4image.GPT4Image`. When predicting, text and projection are gone and a
    picture costs what it cost before. So the texts are no explanation of a decision, and the card shows none.

    Differences: a trained encoder is tuned for minutes, its last layer fitted before and its batch normalisation held
    (the authors train ResNets and DeiTs on ImageNet from nothing, for 120 and 300 epochs; ``backbone="scratch"`` trains
    a small ResNet from nothing); AdamW throughout; no mixing of pictures, with which the authors keep the text of one.

    Args:
        backbone: ``"encoder"`` tunes the encoder; ``"scratch"`` trains a small ResNet for small pictures.
        form: of the alignment; the authors' ``"clip"``.
        tau: temperature; left out, the authors' 0.2 for convolutional networks and 0.05 for transformers.
        lam: weight of the alignment; the authors' 0.3. With 0 the texts change nothing.
        projection: ``"mlp"`` (authors) or ``"linear"``.
        label_smoothing: of the cross entropy; the authors' 0.1 for DeiT, 0 for ResNets.
        size: side of the pictures in pixels; left out, the encoder's own.
        n_steps: batches.
        batch_size: pictures a batch.
        lr: learning rate, at its highest.
        encoder_lr: that of the encoder's weights, as a multiple.
        weight_decay: the authors' 0.05 with AdamW.
        schedule: see :class:`seewhy.training.loop.Training`; the authors' is a cosine.
        held_out: part of the pictures that is never trained on, and measured on; the strength of the first layer's
            regularisation is chosen on it as well.
        split: "grouped" keeps pictures of the same thing on one side; "random" does not, and flatters.
        n_bank: pictures whose patches are kept as evidence.
        seed: of split, weights, crops and order.
    """

    name: ClassVar[str] = "gpt4image"
    paper: ClassVar[str] = "Ding et al. 2023, arXiv:2306.00693"
    needs: ClassVar[str] = "pictures in classes, and a text of each"
    stochastic: ClassVar[bool] = True
    network: ClassVar[type[Network] | None] = TunedNetwork
    takes: ClassVar = ("captions", "checkpoint")
    small: ClassVar = {"n_steps": 2, "batch_size": 4}

    backbone: Backbone = "encoder"
    form: Form = "clip"
    tau: float | None = None
    lam: float = 0.3
    projection: Projection = "mlp"
    label_smoothing: float = 0.0
    size: int | None = None
    n_steps: int = 300
    batch_size: int = 32
    lr: float = 1e-3
    encoder_lr: float = 0.1
    weight_decay: float = 0.05
    schedule: Schedule = "cosine"
    held_out: float = 0.2
    split: Split = "grouped"
    n_bank: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        Alignment(self.form, 0.2 if self.tau is None else self.tau, self.lam)
        if self.backbone not in ("encoder", "scratch") or self.projection not in ("mlp", "linear"):
            raise InputError(
                f"gpt4image was given backbone={self.backbone!r}, projection={self.projection!r}. 'encoder' or "
                "'scratch', and 'mlp' or 'linear', were expected. Change them."
            )
        if self.batch_size < 2 or not 0 <= self.label_smoothing < 1 or (self.size is not None and self.size < 16):
            raise InputError(
                f"gpt4image was given batch_size={self.batch_size}, label_smoothing={self.label_smoothing:g}, "
                f"size={self.size}. Batches of two or more, a smoothing in [0, 1) and a size from 16 were expected. "
                "Change them."
            )

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, progress = fitting.encoder, fitting.progress
        if fitting.captions is None:
            raise InputError(
                "gpt4image was given no texts of pictures. A .jsonl with one for each was expected. Give it with "
                "--captions, for example from: seewhy describe match"
            )
        base, scratch = sized(encoder, self.size), self.backbone == "scratch"
        pictures = fitting.look(reader_of(base) if scratch else base, keep=not scratch)
        chosen = pictures.trained
        digests = [pictures.encoded[i].digest for i in chosen]
        own = of_pictures(fitting.captions, digests, [str(pictures.items[i].image) for i in chosen])
        texts = TextVectors(encoder, [c.texts[0] for c in own])
        predictor, beside = self._student(base, pictures, texts.width)
        task = joint_task(predictor, beside, self._alignment(base), self.label_smoothing, still=not scratch)
        read = TrainingPictures(base, [pictures.items[i].source for i in chosen], None, progress)
        columns = {"pixels": read, "labels": pictures.labels[torch.tensor(chosen)], "text": texts}
        seal = json.dumps([self.parameters(), base.fingerprint, digests, [c.texts[0] for c in own]])
        kept = fitting.sealed(seal)
        done = train(task, TrainingData(len(chosen), columns), self._training, checkpoint=kept, progress=progress)
        layout = Layout() if scratch else base.layout
        settings = {"backbone": self.backbone, "size": self.size}
        parts = freeze(predictor.trunk), freeze(predictor.pool)
        network = TunedNetwork(encoder, *parts, layout, settings)
        return Outcome(self._classifier(network, predictor, pictures, progress), pictures, told(done, own), keep=False)

    def _alignment(self, base: Encoder) -> Alignment:
        tokens = self.backbone == "encoder" and base.layout.kind == "tokens"
        tau = (0.05 if tokens else 0.2) if self.tau is None else self.tau
        return Alignment(self.form, tau, self.lam)

    @property
    def _training(self) -> Training:
        slow = (("network.", self.encoder_lr),)
        return Training(
            self.n_steps,
            self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            seed=self.seed,
            warmup=max(1, self.n_steps // 50),
            part_lr=slow if self.backbone == "encoder" else (),
        )

    def _student(self, base: Encoder, pictures: EncodedSet, text_width: int) -> tuple[Predictor, nn.Module]:
        """The classifier and the projection at their start; its random numbers come after the classifier's."""
        scratch = self.backbone == "scratch"
        with seeded(self.seed):
            predictor = new_predictor(len(pictures.classes)) if scratch else self._fitted(base, pictures)
            width = predictor.weight.shape[1]
            convolutional = scratch or base.layout.kind != "tokens"
            return predictor, projection(self.projection, width, text_width, convolutional=convolutional)

    def _fitted(self, base: Encoder, pictures: EncodedSet) -> Predictor:
        """The encoder under a linear layer that was fitted on what is trained on."""
        linear = Linear(n_crops=0, seed=self.seed)
        return predictor_of(base, linear.learn_seen(base, replace(pictures, validation=True)).classifier.head)

    def _classifier(
        self, network: TunedNetwork, predictor: Predictor, pictures: EncodedSet, progress: Progress
    ) -> Classifier:
        looks, head = network.encoder(), predictor.head()
        held = with_logits(head, pictures.held_by(looks, progress)[1])
        n = int((~pictures.held).sum())
        return Classifier(
            self.name,
            self.parameters(),
            looks,
            pictures.classes,
            head,
            held_out=held,
            trained_on=f"{n:,} of your pictures with a text each, {len(pictures.classes)} classes",
            network=network,
        )


def joint_task(
    predictor: Predictor, beside: nn.Module, alignment: Alignment, label_smoothing: float = 0.0, *, still: bool = False
) -> Multitask:
    """``CE + lam alignment`` on the same pooled vectors; which features find their own text in the batch is watched."""
    seen, last = predictor.requires_grad_(True).parts()
    aligned = Contrast(beside.requires_grad_(True), nn.Identity(), alignment, column=POOLED, watch=True)
    tasks: dict[str, tuple[float, Task]] = {
        "ce": (1.0, Supervised(last, label_smoothing, column=POOLED)),
        "text": (alignment.lam, aligned),
    }
    return Multitask(Still(seen, learns=True) if still else seen, tasks)


def told(done: Trained, captions: Sequence[Caption]) -> dict[str, Any]:
    """The first and the last steps, and whose texts they were; ``recall`` must rise, or the texts taught nothing."""
    return {
        "first_steps": mean_terms(done.history[:20]),
        "last_steps": mean_terms(done.history[-20:]),
        "texts_by": sorted({c.model for c in captions}),
        "n_texts": len({c.texts[0] for c in captions}),
    }
