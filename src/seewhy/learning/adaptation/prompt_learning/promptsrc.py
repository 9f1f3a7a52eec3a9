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
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ....bounds import NotNegative, Positive, SomePart
from ....classifiers import classifiers
from ....training.batches import Batch
from ....training.task import classified
from ..prompt_recipe import Lesson, PromptLearning
from ..prompts import PromptTask, SharedPrompt, as_it_was, opened


def epoch_weights(n_epochs: int, mean: float, std: float) -> list[float]:
    """How much each epoch's prompt counts in the end: a Gaussian over epochs 1, 2, …, that adds up to 1.

    >>> [round(w, 3) for w in epoch_weights(4, 3, 1)]
    [0.058, 0.258, 0.426, 0.258]
    """
    raw = [math.exp(-0.5 * ((epoch - mean) / std) ** 2) for epoch in range(1, n_epochs + 1)]
    return [one / sum(raw) for one in raw]


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


class Consistent(PromptTask):
    """CoOp's loss, the distance from what was known, and an average over epochs in the end."""

    n_done: Tensor
    average: Tensor

    def begin(self, lesson: Lesson, weights: list[float]) -> None:
        """Take what names were, and how much each epoch counts."""
        self.weights, self.steps_per_epoch = weights, lesson.steps_per_epoch
        self.before = as_it_was(lesson.on.text, lesson.classes)
        self.register_buffer("n_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros_like(parameters_to_vector(self.prompt.parameters()).detach()))

    def held(
        self, image: Tensor, text: Tensor, image_before: Tensor, batch: Batch, weights: tuple[float, float]
    ) -> dict[str, Tensor]:
        """The terms: ``weights`` are of the distances of texts and of pictures."""
        logits, logits_before = self.scale * image @ text.T, self.scale * image_before @ self.before.T
        terms = classified(logits, batch["labels"])
        held = consistency(text, self.before, logits, logits_before, weights[0])
        if weights[1]:
            held = held + weights[1] * l1_loss(image, image_before)
        return {**terms, "loss": terms["loss"] + held, "held": held}

    def after_step(self) -> None:
        self.n_done += 1
        epoch, left = divmod(int(self.n_done), self.steps_per_epoch)
        if left:
            return
        own = list(self.prompt.parameters())
        self.average += self.weights[min(epoch, len(self.weights)) - 1] * parameters_to_vector(own).detach()
        if epoch == len(self.weights):
            vector_to_parameters(self.average, own)


class ConsistentTask(Consistent):
    """The same where pictures stay as they are."""

    def __init__(self, prompt: SharedPrompt, lesson: Lesson, scale: float, weight: float, weights: list[float]) -> None:
        super().__init__(prompt, lesson.names, scale)
        self.weight = weight
        self.begin(lesson, weights)

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        image, text = features
        return self.held(image, text, image, batch, (self.weight, 0.0))


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
        text_weight: of the distance from what names were (authors: 25).
        mean_epoch: middle of the Gaussian, as a part of the epochs (authors: 15 of 20).
        epoch_std: its width, as a part of the epochs (authors: 1 of 20).
    """

    name: ClassVar[str] = "promptsrc"
    spelt: ClassVar[str] = "PromptSRC"
    paper: ClassVar[str] = "Khattak et al. 2023, arXiv:2307.06948"

    text_weight: NotNegative = 25.0
    mean_epoch: SomePart = 0.75
    epoch_std: Positive = 0.05

    def task(self, lesson: Lesson) -> PromptTask:
        tower, n = opened(lesson.on), lesson.n_epochs
        prompt = SharedPrompt.begun(tower, self.words, self.n_tokens)
        weights = epoch_weights(n, self.mean_epoch * n, max(self.epoch_std * n, 0.5))
        return ConsistentTask(prompt, lesson, tower.logit_scale, self.text_weight, weights)
