"""PromptSRC as published (Khattak et al. 2023, arXiv 2307.06948): prompts in both towers, held near what was known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ....bounds import Count, NotNegative, Positive, SomePart
from ....classifiers import classifiers
from ....training.batches import Batch
from ..prompt_recipe import Lesson
from ..tower_prompts import TowerPrompt, TowerPromptLearning, Towers, TowerTask, image_of
from .promptsrc import Consistent, epoch_weights


class ConsistentTowers(TowerTask, Consistent):
    """The cross entropy, the distances from what names and pictures were, and an average over epochs in the end."""

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
        self.plain = (torch.nn.Sequential(towers.on.trunk, towers.on.head),)
        self.begin(lesson, weights)

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        with torch.no_grad():
            image_before = image_of(self.plain[0], self.on, batch["pixels"])
        return self.held(*features, image_before, batch, (self.text_weight, self.image_weight))


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
    n_tokens: Count = 4
    epochs: Count = 20
    lr: Positive = 0.0025
    n_image: Count = 4
    text_weight: NotNegative = 25.0
    image_weight: NotNegative = 10.0
    mean_epoch: SomePart = 0.75
    epoch_std: Positive = 0.05

    def task(self, lesson: Lesson) -> TowerTask:
        towers, n = Towers.of(lesson.on), lesson.n_epochs
        prompt = TowerPrompt.begun(towers, self.words, self.n_tokens, self.depth, self.n_image)
        weights = epoch_weights(n, self.mean_epoch * n, max(self.epoch_std * n, 0.5))
        return ConsistentTowers(towers, prompt, lesson, self.text_weight, self.image_weight, weights)
