"""Pictures and their texts, and an objective that compares all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..objectives.contrastive import Contrastive
from .batches import Batch
from .distributed import gathered
from .task import Task

One = TypeVar("One")


class Contrast(Task):
    """Two networks that are to bring each picture and its text to one place.

    Over several processes every picture is compared with the texts of all of them. Batches hold ``"text"``: a tensor,
    or a tuple of tensors such as tokens and their mask; see :class:`Drawn` for pictures with several texts.

    Args:
        image: what the batch has of the pictures → ``(b, d)``; ``nn.Identity()`` where they are in place already.
        text: what it has of the texts → ``(b, d)``.
        objective: what is made small; its temperature is learnt here.
        column: which column the pictures are: ``"pixels"``, or that of kept features.
        labels: whether pairs have labels that the objective uses.
        hold: whether batch normalisations stay as in evaluation, as they must in micro-batches and over processes.
    """

    def __init__(
        self,
        image: nn.Module,
        text: nn.Module,
        objective: Contrastive,
        *,
        column: str = "pixels",
        labels: bool = False,
        hold: bool = False,
    ) -> None:
        super().__init__()
        self.needs = (column, "text", *(("labels",) if labels else ()))  # type: ignore[misc]
        self.image, self.text, self.objective, self.hold = image, text, objective, hold
        self.state = objective.state()

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        if self.hold:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        said = batch["text"]
        text: Tensor = self.text(*said) if isinstance(said, tuple) else self.text(said)
        image: Tensor = self.image(batch[self.needs[0]])
        return image, text

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        image, text = features
        both, share = gathered(torch.cat([image, text], 1))
        labels = gathered(batch["labels"])[0] if "labels" in self.needs else None
        x, y = both.split([image.shape[1], text.shape[1]], 1)
        learnt = {name: p.detach().clone() for name, p in self.state.named_parameters()}
        return {"loss": self.objective(x, y, labels, self.state, share=share), **learnt}

    def after_step(self) -> None:
        self.state.hold()


@dataclass(frozen=True)
class Drawn(Generic[One]):
    """A column of which each sample has several, one drawn at every step from the seed, the step and its place.

    Attributes:
        choices: of each sample, at least one.
        made: what a batch gets of those that were drawn, such as a text tower's tokens.

    Example:
        >>> said = Drawn([["a cat", "a pet"], ["a dog"]], list)
        >>> said.drawn([1, 0, 1], [np.random.default_rng(place) for place in range(3)])
        ['a dog', 'a cat', 'a dog']
    """

    choices: Sequence[Sequence[One]]
    made: Callable[[list[One]], Any]

    def drawn(self, index: Sequence[int], draws: Sequence[np.random.Generator]) -> Any:
        """What a batch has of some samples, each drawn by its own generator."""
        several = (self.choices[i] for i in index)
        return self.made([one[int(draw.integers(len(one)))] for one, draw in zip(several, draws, strict=True)])
