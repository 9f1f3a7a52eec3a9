"""Fine-tuning: the whole image network is trained on the user's pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from ...bounds import Bound, Natural, OpenPart, Part, Positive
from ...classifiers import classifiers
from ...classifiers.base import Classifier
from ...classifiers.certainty import paired_gain
from ...classifiers.encoded_set import EncodedSet
from ...classifiers.fit_answers import SHOWN
from ...classifiers.fitting import Fitting, Outcome, PictureRecipe
from ...classifiers.linear.recipe import UNCHOSEN, Linear
from ...classifiers.linear.solvers import fit_temperature
from ...classifiers.network import Network
from ...encoders.base import Encoder
from ...encoders.split import freeze
from ...errors import DataError
from ...heads.head import Head
from ...pictures.answers import Answers
from ...pictures.sources import natural_key
from ...progress import Progress
from ...storage.features import FeatureStore
from ...training.augmentation import Augmentation, TrainingPictures
from ...training.batches import Batch, TrainingData
from ...training.loop import Training, mean_terms, train
from ...training.memory import N_MEASURED, training_cost
from ...training.task import Supervised, classified
from ..contrast import Still
from ..encoders.adapted import Adaptation
from ..encoders.image_copy import Learns
from ..network_recipe import NetworkRecipe
from .backbone import Predictor, Start, TunedNetwork, predictor_of, training_columns

AUGMENTATION = Augmentation(
    scale=(0.25, 1.0), brightness=0.2, contrast=0.2, saturation=0.2, hue=0.0, grey=0.0, blur=(0.0,)
)
N_PER_CLASS = 10
"""Number of pictures per class below which no gain is to be expected."""
MIN_BATCH = 8
MAX_EPOCHS, N_VIEWS = 24, 8000
"""Few pictures are shown more often, up to ``MAX_EPOCHS`` times or until there are ``N_VIEWS`` training views."""
N_HELD, MIN_HELD = 200, 0.1
"""Of many pictures, this number is held out, or this fraction if it is more."""


class Several(Supervised):
    """A network whose outputs are the class logits of several decisions, ``sizes`` of each."""

    def __init__(self, network: nn.Module, label_smoothing: float, *, sizes: Sequence[int]) -> None:
        super().__init__(network, label_smoothing)
        self.needs, self.sizes = ("pixels", "answers"), list(sizes)  # type: ignore[misc]

    def loss(self, features: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        each = [
            classified(scores[answers >= 0], answers[answers >= 0], self.label_smoothing)
            for scores, answers in zip(features.split(self.sizes, 1), batch["answers"].T, strict=True)
            if bool((answers >= 0).any())
        ]
        if not each:
            return {"loss": features.sum() * 0, "right": features.new_zeros(())}
        return {key: torch.stack([terms[key] for terms in each]).mean() for key in each[0]}


@classifiers.register
@dataclass(frozen=True)
class FineTune(NetworkRecipe):
    """Classifier whose image network is trained on the pictures, from its pretrained weights.

    The last layer starts as logistic regression on the features of the frozen encoder (LP-FT, Kumar et al. 2022). Then
    the weights are trained with AdamW and a cosine schedule, on random crops that are mirrored and slightly changed in
    colour. Batch normalisation keeps its statistics, and the layers of the finest feature maps keep their weights. The
    trained weights are averaged over about the last tenth of the steps. The final weights are ``(1 - mix)`` times the
    pretrained and ``mix`` times the averaged ones (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903).

    The linear classifier on the frozen encoder is fitted too, and compared on pictures from which neither learnt.
    Unless the 95 % interval of the paired difference (one-sided, over groups of pictures) shows a gain, the frozen
    classifier is returned. With fewer than about ten pictures per class, expect this.

    Where we differ: the paper tunes the linear layer on held-out pictures; ours has a fixed ``C``.

    Args:
        epochs: how often each picture is shown; default: 8, and up to 24 if there are few pictures.
        train: weights to train: ``"late_stages"`` (after the first feature map with a quarter of the input's side,
            which halves the time), ``"last_stage"`` or ``"all"``.
        batch_size: pictures per step; lower it if memory runs out.
        lr: highest learning rate of the encoder.
        head_lr: highest learning rate of the last layer, as a multiple of ``lr``.
        weight_decay: weight decay of AdamW.
        label_smoothing: label smoothing of the cross entropy, 0 to 1.
        mix: weight of the trained network, 0 to 1.
        n_crops: number of random crops per picture for the frozen classifier, as of the method ``linear``.
        held_out: largest fraction of the pictures to hold out, between 0 and 1. Of more than 1,000 pictures, 200 or a
            tenth are enough; to hold out more, give validation pictures.
    """

    name: ClassVar[str] = "fine_tune"
    paper: ClassVar[str] = "Kumar et al. 2022, arXiv:2202.10054"
    needs: ClassVar[str] = "labelled pictures"
    network: ClassVar[type[Network] | None] = TunedNetwork
    takes: ClassVar = ("descriptions", "checkpoint")
    small: ClassVar = {"epochs": 1, "batch_size": 4, "n_crops": 0}

    epochs: Annotated[int, Bound(1)] | None = None
    train: Learns = "late_stages"
    batch_size: Annotated[int, Bound(2)] = 32
    lr: Positive = 5e-4
    head_lr: Positive = 5.0
    weight_decay: float = 0.02
    label_smoothing: OpenPart = 0.1
    mix: Part = 1.0
    n_crops: Natural = 8
    n_bank: int = 1000

    def learn(self, fitting: Fitting) -> Outcome:
        share = min(self.held_out, max(N_HELD / max(1, len(fitting.samples)), MIN_HELD))
        fitting = replace(fitting, held_out=replace(fitting.held_out, fraction=share))
        frozen = replace(self.frozen, held_out=share).learn(fitting)
        pictures, progress = frozen.pictures, fitting.progress
        if not bool(pictures.held.any()):
            raise DataError(
                "No picture can be held out, so fine-tuning cannot be compared with the frozen encoder. Give each "
                "class pictures of different objects, or give validation pictures."
            )
        network, head, steps = self._tuned(fitting, pictures)
        places, held = pictures.held_by(network.encoder(), progress)
        if held is None:
            raise DataError("None of the held-out pictures can be read again. Do not move pictures during a fit.")
        with torch.no_grad():
            logits = head(held.pooled)
        before, after = right_of(frozen, places), logits.argmax(1) == held.labels
        gain, error = paired_gain(before, after, held.groups)
        is_shown = gain > SHOWN * error
        figures = {
            "frozen_accuracy": round(float(before.float().mean()), 4),
            "tuned_accuracy": round(float(after.float().mean()), 4),
            "gain_error": round(error, 4),
            "kept": "tuned" if is_shown else "frozen",
            **steps,
        }
        shown = f"{100 * gain:+.1f} points, standard error {100 * error:.1f}, on {len(places):,} held-out pictures"
        if not is_shown:
            progress.note(f"fine-tuning shows no gain ({shown}), so the classifier on the frozen encoder is kept")
            kept = replace(frozen.classifier, recipe=self.name, parameters=self.parameters())
            return replace(frozen, classifier=kept, figures={**frozen.figures, **figures})
        progress.note(f"fine-tuning is more accurate than the frozen encoder: {shown}")
        temperature = fit_temperature(logits, held.labels)
        calibrated = Head(head.feature, head.weight / temperature, head.bias / temperature)
        made = self.classifier(network, pictures, calibrated, replace(held, logits=logits / temperature))
        figures["temperature"] = round(temperature, 4)
        return Outcome(made, pictures, figures, index=places, keep=False)

    def _tuned(self, fitting: Fitting, pictures: EncodedSet) -> tuple[TunedNetwork, Head, dict[str, Any]]:
        """Train a copy of the encoder and its linear head; return the mix with the weights before."""
        encoder, known, progress = fitting.encoder, pictures.subset(pictures.trained), fitting.progress
        centres = replace(known, encoded=[replace(one, pooled=one.pooled[:1]) for one in known.encoded])
        c = UNCHOSEN / float(centres.pooled.square().sum(1).mean())
        predictor, task = self._task(encoder, Linear(n_crops=0, power=1.0, l2=False).fit_at(centres, c))
        data = TrainingData(len(known), training_columns(fitting, encoder, pictures, AUGMENTATION))
        seal = [encoder.fingerprint, known.digests, known.labels.tolist()]
        steps = self._train(predictor, task, data, seal, fitting.checkpoint, progress)
        return TunedNetwork(encoder, predictor.image, Start()), predictor.head(), steps

    def _train(
        self, predictor: Predictor, task: Supervised, data: TrainingData, of: list[Any], checkpoint: Path | None,
        progress: Progress,
    ) -> dict[str, Any]:  # fmt: skip
        """Train, and leave the mix of the weights before and after; ``of`` is what the training depends on."""
        before = {name: p.detach().clone() for name, p in predictor.named_parameters()}
        how = self._training(data.n_samples)
        progress.note(training_cost(task, data, how))
        sealed = None if checkpoint is None else (checkpoint, json.dumps([self.parameters(), *of]))
        done = train(task, data, how, checkpoint=sealed, progress=progress)
        with torch.no_grad():
            for name, p in predictor.named_parameters():
                p.copy_(before[name].lerp(p, self.mix))
        freeze(predictor.to(memory_format=torch.contiguous_format))  # type: ignore[call-overload]
        return {"first_steps": mean_terms(done.history[:20]), "last_steps": mean_terms(done.history[-20:])}

    def shared(
        self, encoder: Encoder, answers: Answers, *, store: FeatureStore | None, progress: Progress,
        checkpoint: Path | None,
    ) -> Adaptation:  # fmt: skip
        """Train one network for several decisions, by the mean of their cross entropies; unknown answers do not count.

        For a label, this is the binary cross entropy. The last layers start as for one decision.
        """
        pictures = EncodedSet.of(encoder, answers.items, (), store, progress)
        index = {id(item): i for i, item in enumerate(answers.items)}
        kept = [index[id(item)] for item in pictures.items]
        c = UNCHOSEN / float(pictures.pooled.square().sum(1).mean())
        heads, columns = list[Head](), list[Tensor]()
        for given in answers.given.values():
            classes = tuple(sorted({*given} - {""}, key=natural_key))
            number = {name: k for k, name in enumerate(classes)}
            labels = torch.tensor([number.get(given[i], -1) for i in kept])
            own = replace(pictures, classes=classes, labels=labels).subset((labels >= 0).nonzero()[:, 0].tolist())
            heads.append(Linear(n_crops=0, power=1.0, l2=False).fit_at(own, c))
            columns.append(labels)
        weight, bias = (torch.cat([getattr(head, name) for head in heads]) for name in ("weight", "bias"))
        predictor, task = self._task(encoder, Head(heads[0].feature, weight, bias), [len(h.bias) for h in heads])
        read = TrainingPictures(encoder, [s.source for s in pictures.items], None, progress, augmentation=AUGMENTATION)
        data = TrainingData(len(kept), {"pixels": read, "answers": torch.stack(columns, 1)})
        seal = [encoder.fingerprint, pictures.digests, data.columns["answers"].tolist()]
        steps = self._train(predictor, task, data, seal, checkpoint, progress)
        return Adaptation(encoder, predictor.image, provenance=steps, trained_on=pictures.digests)

    @property
    def frozen(self) -> Linear:
        """The method on the features of a frozen or of the trained encoder."""
        own = {field.name: getattr(self, field.name) for field in fields(PictureRecipe)}
        return Linear(n_crops=self.n_crops, n_bank=self.n_bank, **own)

    def _task(self, encoder: Encoder, head: Head, sizes: Sequence[int] = ()) -> tuple[Predictor, Supervised]:
        predictor = predictor_of(encoder, head)
        network = Still(predictor, learns=True)
        task = (
            Several(network, self.label_smoothing, sizes=sizes) if sizes else Supervised(network, self.label_smoothing)
        )
        predictor.image.learn(encoder, self.train)
        for p in filter(lambda p: p.ndim == 4, predictor.parameters()):
            p.data = p.data.contiguous(memory_format=torch.channels_last)  # twice as fast on a processor
        return predictor, task

    def _training(self, n: int) -> Training:
        """Return the settings for ``n`` pictures; few pictures are shown in smaller batches, for more steps."""
        size = min(self.batch_size, max(MIN_BATCH, n // MIN_BATCH), n)
        steps = (self.epochs or min(MAX_EPOCHS, max(8, round(N_VIEWS / n)))) * (n // size)
        layer = tuple((f"network.network.{name}", self.head_lr) for name in ("weight", "bias"))
        length = {"n_steps": steps, "warmup": max(steps // 10, min(20, steps // 2)), "ema": max(0.0, 1 - 10 / steps)}
        return Training.of(self, **length, batch_size=size, schedule="cosine", part_lr=layer)

    def time_for(self, classifier: Classifier) -> str:
        """Return the time and memory that fine-tuning would take instead of a frozen encoder."""
        _, task = self._task(classifier.encoder, classifier.head)
        n = min(N_MEASURED, self.batch_size)
        pixels = torch.zeros(n, 3, *classifier.encoder.transform.input_size)
        data = TrainingData(n, {"pixels": pixels, "labels": torch.zeros(n, dtype=torch.long)})
        return training_cost(task, data, self._training(classifier.measures["n_pictures"]))


def right_of(outcome: Outcome, places: Int[Tensor, " m"]) -> Bool[Tensor, " m"]:
    """Return which pictures a method predicts correctly without having learnt from them."""
    measured, index = cast(Any, (outcome.measured, outcome.index))
    at = (places[:, None] == index).int().argmax(1)
    return cast(Tensor, measured.logits[at].argmax(1) == measured.labels[at])
