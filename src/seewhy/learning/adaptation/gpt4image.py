"""GPT4Image (Ding et al. 2023, arXiv 2306.00693): a classifier with an auxiliary loss on texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ...bounds import Bound, OpenPart
from ...classifiers import classifiers
from ...classifiers.encoded_set import EncodedSet, with_logits
from ...classifiers.fitting import Fitting, Outcome
from ...classifiers.linear.recipe import Linear
from ...classifiers.network import Network
from ...encoders.base import Encoder
from ...encoders.split import freeze
from ...encoders.stream import encode_texts
from ...errors import InputError
from ...language.matching import of_pictures
from ...seeded import seeded
from ...training.batches import Batch, TrainingData
from ...training.loop import Schedule, Training, mean_terms, train
from ...training.task import classified
from ..contrast import PairTask, Still, recall
from ..network_recipe import NetworkRecipe
from ..objectives.pairs import GPT4Image as Alignment
from .backbone import Backbone, Predictor, Start, TunedNetwork, new_predictor, predictor_of, training_columns

Projection = Literal["mlp", "linear"]
RESNET_STD = 1024**-0.5
"""Standard deviation of the projection's initial weights with a ResNet (authors)."""
DEIT_STD = 0.02
"""Standard deviation of the projection's initial weights with a transformer (authors)."""


def projection(kind: Projection, width: int, text_width: int, *, convolutional: bool = True) -> nn.Sequential:
    """Return the authors' untrained projection from image features to the text space."""
    if kind == "linear":
        layers = nn.Sequential(nn.Linear(width, text_width, bias=False))
    else:
        first = nn.Linear(width, 2 * text_width, bias=not convolutional)
        normal = [nn.BatchNorm1d(2 * text_width)] if convolutional else []
        layers = nn.Sequential(first, *normal, nn.ReLU(), nn.Linear(2 * text_width, text_width))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=RESNET_STD if convolutional else DEIT_STD)
    return layers


class JointTask(PairTask):
    def __init__(
        self,
        predictor: Predictor,
        beside: nn.Module,
        alignment: Alignment,
        smoothing: float = 0.0,
        *,
        still: bool = False,
    ) -> None:
        super().__init__(alignment, "pixels", "labels", "text")
        predictor.requires_grad_(True)
        self.network = Still(predictor.image, learns=True) if still else predictor.image
        self.feature, self.weight, self.bias = predictor.feature, predictor.weight, predictor.bias
        self.beside, self.lam = beside.requires_grad_(True), alignment.lam
        self.label_smoothing = smoothing

    def features(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        pooled = self.network(batch["pixels"])
        scores = linear(self.feature(pooled), self.weight, self.bias)
        return scores, self.beside(pooled), batch["text"]

    def loss(self, features: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        scores, projected, text = features
        told = classified(scores, batch["labels"], self.label_smoothing)
        aligned, x, y = self.compared(projected, text, batch)
        total = torch.stack([told["loss"], self.lam * aligned]).sum()
        watched = {"right": told["right"], "ce": told["loss"], "text": aligned}
        return {"loss": total, **watched, "recall": torch.tensor(recall(x, y))}


@classifiers.register
@dataclass(frozen=True)
class GPT4Image(NetworkRecipe):
    """Classifier that is trained with an auxiliary loss, which aligns each picture with a text about it.

        L = CE(head(f), y) + lam align(projection(f), text)

    ``f`` are the pooled features of a picture, ``y`` is its class, and ``CE`` the cross entropy. ``align`` is
    :class:`~seewhy.learning.objectives.pairs.GPT4Image` with a frozen text encoder. Predictions use neither the texts
    nor the projection, so the texts do not explain a prediction.

    Args:
        backbone: ``"encoder"`` trains a copy of the encoder; ``"scratch"`` trains a new small ResNet, for small
            pictures.
        form: form of the auxiliary loss (authors: ``"clip"``).
        tau: temperature; default: 0.2 for convolutional networks, 0.05 for transformers (authors).
        lam: weight of the auxiliary loss, at least 0 (authors: 0.3).
        projection: ``"mlp"`` (authors) or ``"linear"``.
        label_smoothing: label smoothing of the cross entropy, 0 to 1 (authors: 0.1 for DeiT, 0 for ResNets).
        size: side of the pictures in pixels; default: the encoder's input size. Smaller is faster.
        n_steps: number of training steps.
        batch_size: pictures per step; lower it if memory runs out.
        lr: highest learning rate.
        encoder_lr: learning rate of the encoder's layers, as a multiple of ``lr``.
        weight_decay: weight decay of AdamW (authors: 0.05).
        schedule: learning rate schedule (authors: cosine); see :class:`seewhy.training.loop.Training`.
    """

    name: ClassVar[str] = "gpt4image"
    paper: ClassVar[str] = "Ding et al. 2023, arXiv:2306.00693"
    needs: ClassVar[str] = "labelled pictures with a text each"
    network: ClassVar[type[Network] | None] = TunedNetwork
    takes: ClassVar = ("captions", "checkpoint")
    small: ClassVar = {"n_steps": 2, "batch_size": 4}

    backbone: Backbone = "encoder"
    form: Literal["clip", "ctr", "byol"] = "clip"
    tau: float | None = None
    lam: float = 0.3
    projection: Projection = "mlp"
    label_smoothing: OpenPart = 0.0
    size: Annotated[int, Bound(16)] | None = None
    n_steps: int = 300
    batch_size: Annotated[int, Bound(2)] = 32
    lr: float = 1e-3
    encoder_lr: float = 0.1
    weight_decay: float = 0.05
    schedule: Schedule = "cosine"
    n_bank: int = 1000

    def check(self) -> None:
        Alignment(self.form, 0.2 if self.tau is None else self.tau, self.lam)

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, progress = fitting.encoder, fitting.progress
        if fitting.captions is None:
            raise InputError(
                "gpt4image needs a text for each picture. Write a .jsonl file with seewhy describe match, and give it "
                "with --captions."
            )
        start = Start(self.backbone, self.size)
        base = start.of(encoder)
        pictures = start.encode(fitting, base)
        chosen = pictures.trained
        digests = [pictures.digests[i] for i in chosen]
        own = of_pictures(fitting.captions, digests, [str(pictures.items[i].image) for i in chosen])
        texts = [caption.texts[0] for caption in own]
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        vectors = encode_texts(encoder, [*place])[[place[text] for text in texts]]
        predictor, beside = self._student(base, pictures, vectors.shape[1])
        still = self.backbone == "encoder"
        task = JointTask(predictor, beside, self._alignment(base), self.label_smoothing, still=still)
        data = TrainingData(len(chosen), {**training_columns(fitting, base, pictures), "text": vectors})
        kept = fitting.sealed(json.dumps([self.parameters(), base.fingerprint, digests, texts]))
        done = train(task, data, self._training, checkpoint=kept, progress=progress)
        freeze(predictor)
        network, head = TunedNetwork(encoder, predictor.image, start), predictor.head()
        held = with_logits(head, pictures.held_by(network.encoder(), progress)[1])
        told = f"{len(chosen):,} of your pictures with a text each, {len(pictures.classes)} classes"
        made = replace(self.classifier(network, pictures, head, held), trained_on=told)
        # ``recall`` must rise between these, or the texts taught nothing.
        steps = {"first_steps": mean_terms(done.history[:20]), "last_steps": mean_terms(done.history[-20:])}
        figures = {**steps, "texts_by": sorted({c.model for c in own}), "n_texts": len(place)}
        return Outcome(made, pictures, figures, keep=False)

    def _alignment(self, base: Encoder) -> Alignment:
        own = 0.05 if base.layout.kind == "tokens" else 0.2
        return Alignment(self.form, own if self.tau is None else self.tau, self.lam)

    @property
    def _training(self) -> Training:
        parts = (("network.", self.encoder_lr),) if self.backbone == "encoder" else ()
        return Training.of(self, warmup=max(1, self.n_steps // 50), part_lr=parts)

    def _student(self, base: Encoder, pictures: EncodedSet, text_width: int) -> tuple[Predictor, nn.Module]:
        """Return the classifier, with a fitted linear layer if it uses the encoder, and a new projection."""
        with seeded(self.seed):
            if self.backbone == "scratch":
                predictor = new_predictor(len(pictures.classes))
            else:
                probe = Linear(n_crops=0, seed=self.seed)
                fitted = probe.learn_seen(base, replace(pictures, validation=True)).classifier
                predictor = predictor_of(base, fitted.head)
            convolutional = base.layout.kind != "tokens"
            width = predictor.weight.shape[1]
            return predictor, projection(self.projection, width, text_width, convolutional=convolutional)
