"""PromptSRC as published (Khattak et al. 2023, arXiv 2307.06948): prompts in both towers, held near what was known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import l1_loss
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ....classifiers import classifiers
from ....errors import InputError
from ....training.batches import Batch
from ....training.task import classified
from ..prompt_recipe import Lesson
from ..prompts import as_it_was
from ..tower_prompts import TowerPrompt, Towers, image_of
from ..tower_recipe import TowerPromptLearning, TowerTask
from .promptsrc import consistency, epoch_weights


class ConsistentTowers(TowerTask):
    """The cross entropy, the distances from what names and pictures were, and an average over epochs in the end.

    Args:
        towers: frozen.
        prompt: what learns.
        lesson: names, and how long.
        text_weight: of the distance of texts.
        image_weight: of the distance of pictures.
        weights: of the epochs.
    """

    n_done: Tensor
    average: Tensor

    def __init__(
        self,
        towers: Towers,
        prompt: TowerPrompt,
        lesson: Lesson,
        text_weight: float,
        image_weight: float,
        weights: list[float],
    ) -> None:
        super().__init__(towers, prompt, lesson.names)
        self.text_weight, self.image_weight = text_weight, image_weight
        self.weights, self.steps_per_epoch = weights, lesson.steps_per_epoch
        self.before = as_it_was(towers.text, lesson.classes)
        self.plain = (torch.nn.Sequential(towers.on.trunk, towers.on.head),)
        self.register_buffer("n_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros_like(parameters_to_vector(prompt.parameters()).detach()))

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        image, text = features
        with torch.no_grad():
            seen_before = image_of(self.plain[0], self.on, batch["pixels"])
        logits, logits_before = self.scale * image @ text.T, self.scale * seen_before @ self.before.T
        terms = classified(logits, batch["labels"])
        held = consistency(text, self.before, logits, logits_before, self.text_weight)
        held = held + self.image_weight * l1_loss(image, seen_before)
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


@classifiers.register
@dataclass(frozen=True)
class PromptSRCTowers(TowerPromptLearning):
    """Vectors of their own in both towers, held near what the encoder made of names and pictures without them.

    ``L = CE + text_weight mean|T - T_0| + image_weight mean|x - x_0| + KL(p_0 || p) / k``, with ``T_0``, ``x_0`` and
    ``p_0`` of the frozen encoder on the same crop, and in the end the average of all epochs' vectors by a Gaussian
    (sections 3.2 and 3.3). ``promptsrc`` is the same with vectors before the names alone, for any encoder with tokens
    in its words half.

    Pictures are seen otherwise afterwards: the classifier has an encoder of its own, which looks at everything anew.

    Differences: single precision; the encoder's own templates instead of the authors' sixty; vectors stand behind the
    class token, theirs behind the patches, which is the same; one epoch of a rising rate instead of one at 1e-5.

    Cost: two passes of the picture tower for every picture and epoch, one of them backwards too, and one of the words
    half over all classes per step; when predicting, as the encoder.

    Args:
        words: that the prompt begins with; empty, ``n_tokens`` random vectors.
        n_tokens: of a prompt that begins without words.
        depth: layers of both towers that have vectors of their own (authors: 9 of 12).
        shots: pictures of each class to train on; left out, all that are not held out.
        keep: 1, all that was learnt, or 0, the encoder as it was.
        epochs: times that each picture is seen (authors: 20).
        batch_size: pictures per step (authors: 4).
        lr: of SGD with momentum 0.9, at its highest (authors: 0.0025).
        weight_decay: of all that is trained (authors: 5e-4).
        held_out: part of the pictures that is never trained on.
        split: "grouped" keeps pictures of the same thing on one side; "random" does not, and flatters.
        n_bank: pictures whose patches are kept as evidence.
        seed: of split, pictures drawn, vectors, crops and order.
        n_image: vectors among the patches, in each of these layers (authors: 4).
        text_weight: of the distance from what names were (authors: 25).
        image_weight: of the distance from what pictures were (authors: 10).
        mean_epoch: middle of the Gaussian, as a part of the epochs (authors: 15 of 20).
        epoch_std: its width, as a part of the epochs (authors: 1 of 20).

    Example:
        >>> PromptSRCTowers().parameters()["image_weight"]
        10.0
    """

    name: ClassVar[str] = "promptsrc_towers"
    spelt: ClassVar[str] = "PromptSRC in both towers"
    paper: ClassVar[str] = "Khattak et al. 2023, arXiv:2307.06948"

    words: str = "a photo of a"
    n_tokens: int = 4
    epochs: int = 20
    lr: float = 0.0025
    n_image: int = 4
    text_weight: float = 25.0
    image_weight: float = 10.0
    mean_epoch: float = 0.75
    epoch_std: float = 0.05

    def check(self) -> None:
        weights = min(self.text_weight, self.image_weight)
        if weights < 0 or self.n_image < 1 or not 0 < self.mean_epoch <= 1 or self.epoch_std <= 0:
            raise InputError(
                f"promptsrc_towers was given n_image={self.n_image}, text_weight={self.text_weight:g}, "
                f"image_weight={self.image_weight:g}, mean_epoch={self.mean_epoch:g}, epoch_std={self.epoch_std:g}. "
                "A vector or more, weights from 0, a part up to 1 and a width above 0 were expected. Change them."
            )

    def task(self, towers: Towers, lesson: Lesson) -> TowerTask:
        prompt = TowerPrompt.begun(towers, self.words, self.n_tokens, self.depth, self.n_image)
        n = lesson.n_epochs
        weights = epoch_weights(n, self.mean_epoch * n, max(self.epoch_std * n, 0.5))
        return ConsistentTowers(towers, prompt, lesson, self.text_weight, self.image_weight, weights)
