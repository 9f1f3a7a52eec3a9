"""PromptSRC (Khattak et al. 2023, arXiv 2307.06948): a prompt that is held near what was known before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, l1_loss

from ....classifiers import classifiers
from ....errors import InputError
from ....training.batches import Batch
from ....training.task import classified
from ..prompt_recipe import Lesson, PromptLearning
from ..prompts import PromptTask, SharedPrompt, as_it_was, opened


def consistency(
    text: Float[Tensor, "k d"],
    before: Float[Tensor, "k d"],
    logits: Float[Tensor, "b k"],
    logits_before: Float[Tensor, "b k"],
    weight: float,
) -> Tensor:
    """``weight mean|text - before| + sum KL(before || now) / (b k)``; the authors divide by all numbers."""
    now, then = logits.log_softmax(1), logits_before.log_softmax(1)
    return weight * l1_loss(text, before) + kl_div(now, then, reduction="sum", log_target=True) / logits.numel()


def epoch_weights(n_epochs: int, mean: float, std: float) -> list[float]:
    """How much each epoch's prompt counts in the end: a Gaussian over epochs 1, 2, …, that adds up to 1.

    >>> [round(w, 3) for w in epoch_weights(4, 3, 1)]
    [0.058, 0.259, 0.427, 0.259]
    """
    raw = [math.exp(-0.5 * ((epoch - mean) / std) ** 2) for epoch in range(1, n_epochs + 1)]
    return [one / sum(raw) for one in raw]


class ConsistentTask(PromptTask):
    """CoOp's loss, the distance from what names were, and an average over epochs in the end.

    Args:
        prompt: what learns.
        lesson: pictures, names, and how long.
        scale: of the cosines.
        weight: of the distance of texts.
        weights: of the epochs.
    """

    n_done: Tensor
    average: Tensor

    def __init__(self, prompt: SharedPrompt, lesson: Lesson, scale: float, weight: float, weights: list[float]) -> None:
        super().__init__(prompt, lesson.names, scale)
        self.weight, self.weights, self.steps_per_epoch = weight, weights, lesson.steps_per_epoch
        self.before = as_it_was(lesson.on.text, lesson.classes)
        self.register_buffer("n_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros_like(prompt.vectors.detach()))

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        image, text = features
        logits = self.scale * image @ text.T
        terms = classified(logits, batch["labels"])
        held = consistency(text, self.before, logits, self.scale * image @ self.before.T, self.weight)
        return {**terms, "loss": terms["loss"] + held, "held": held}

    def after_step(self) -> None:
        self.n_done += 1
        epoch, left = divmod(int(self.n_done), self.steps_per_epoch)
        if left:
            return
        self.average += self.weights[min(epoch, len(self.weights)) - 1] * self.prompt.vectors.detach()
        if epoch == len(self.weights):
            self.prompt.vectors.copy_(self.average)


@classifiers.register
@dataclass(frozen=True)
class PromptSRC(PromptLearning):
    """CoOp's prompt, held near the names as they were, and averaged over epochs.

    ``L = CE + text_weight mean|T - T_0| + KL(p_0 || p) / k``, with ``T_0`` and ``p_0`` what the encoder's own templates
    make of the names, and in the end ``v = sum_e w_e v_e``, ``w`` a Gaussian over epochs (sections 3.2 and 3.3).

    Differences: no prompts in the picture tower and none in deeper layers, so that pictures stay as they are and the
    paper's distance of pictures is 0; the encoder's own templates instead of the authors' sixty; and those of CoOp.

    Cost: as CoOp.

    Args:
        words: that the prompt begins with; empty, ``n_tokens`` random vectors.
        n_tokens: of a prompt that begins without words.
        shots: pictures of each class to train on; left out, all that are not held out.
        keep: how much is kept, 0 to 1; left out, chosen on half of the held-out pictures.
        may_forget: most of the agreement with the encoder's own classes that a chosen ``keep`` costs.
        epochs: times that each picture is seen (authors: 20).
        batch_size: pictures per step (authors: 4).
        lr: of SGD with momentum 0.9, at its highest; left out, as for CoOp.
        weight_decay: of the vectors (authors: 5e-4).
        held_out: part of the pictures that is never trained on.
        split: "grouped" keeps pictures of the same thing on one side; "random" does not, and flatters.
        n_bank: pictures whose patches are kept as evidence.
        seed: of split, pictures drawn, vectors and order.
        text_weight: of the distance from what names were (authors: 25).
        mean_epoch: middle of the Gaussian, as a part of the epochs (authors: 15 of 20).
        epoch_std: its width, as a part of the epochs (authors: 1 of 20).
    """

    name: ClassVar[str] = "promptsrc"
    spelt: ClassVar[str] = "PromptSRC"
    paper: ClassVar[str] = "Khattak et al. 2023, arXiv:2307.06948"

    text_weight: float = 25.0
    mean_epoch: float = 0.75
    epoch_std: float = 0.05

    def check(self) -> None:
        if self.text_weight < 0 or not 0 < self.mean_epoch <= 1 or self.epoch_std <= 0:
            raise InputError(
                f"promptsrc was given text_weight={self.text_weight:g}, mean_epoch={self.mean_epoch:g}, "
                f"epoch_std={self.epoch_std:g}. A weight from 0, a part up to 1 and a width above 0 were expected. "
                "Change them."
            )

    def task(self, lesson: Lesson) -> PromptTask:
        tower, n = opened(lesson.on), lesson.n_epochs
        prompt = SharedPrompt.begun(tower, self.words, self.n_tokens)
        weights = epoch_weights(n, self.mean_epoch * n, max(self.epoch_std * n, 0.5))
        return ConsistentTask(prompt, lesson, tower.logit_scale, self.text_weight, weights)
