"""Pictures and their texts, and an objective that compares all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..training.batches import Batch, gathered
from ..training.task import Task
from .objectives.contrastive import Contrastive
from .retrieval import recall

One = TypeVar("One")


class PairTask(Task):
    """Pictures and texts, compared over all processes by an objective whose temperature is learnt here."""

    def __init__(self, objective: Contrastive, *needs: str, labels: bool = False, hold: bool = False) -> None:
        super().__init__()
        self.needs = (*needs, *(("labels",) if labels else ()))  # type: ignore[misc]
        self.objective, self.hold, self.state = objective, hold, objective.state()

    def compared(self, image: Tensor, text: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The loss over the whole batch of all processes, and pictures and texts of all."""
        x, y, share = gathered_pairs(image, text)
        labels = gathered_labels(batch["labels"]) if "labels" in self.needs else None
        return self.objective(x, y, labels, self.state, share=share), x.detach(), y.detach()

    def learnt(self) -> dict[str, Tensor]:
        """The temperature, to be watched."""
        return {name: p.detach().clone() for name, p in self.state.named_parameters()}

    def hold_norms(self) -> None:
        """Batch normalisations as in evaluation, where they are held."""
        if self.hold:
            hold_norms(self)

    def after_step(self) -> None:
        self.state.hold()


class Contrast(PairTask):
    """Two networks that are to bring each picture and its text to one place.

    Batches hold ``"text"``: a tensor, or a tuple of tensors such as tokens and their mask; see :class:`Drawn` for
    pictures with several texts. For an objective of several texts at once (``n_texts``) each tensor has these second,
    and the network gets them in a row.

    Args:
        image: what the batch has of the pictures → ``(b, d)``; ``nn.Identity()`` where they are in place already.
        text: what it has of the texts → ``(b, d)``.
        objective: what is made small; its temperature is learnt here.
        column: which column the pictures are: ``"pixels"``, or that of kept features.
        labels: whether pairs have labels that the objective uses.
        hold: whether batch normalisations stay as in evaluation, as they must in micro-batches and over processes.
        watch: whether ``"recall"``, how many pictures find their own text among all, is watched.
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
        watch: bool = False,
    ) -> None:
        super().__init__(objective, column, "text", labels=labels, hold=hold)
        self.image, self.text, self.watch = image, text, watch

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b *k d"]]:
        self.hold_norms()
        image: Tensor = self.image(batch[self.needs[0]])
        return image, read_texts(self.text, batch, self.objective.n_texts)

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        loss, x, y = self.compared(*features, batch)
        watched = {"recall": torch.tensor(recall(x, y))} if self.watch else {}
        return {"loss": loss, **self.learnt(), **watched}


def hold_norms(task: nn.Module) -> None:
    """Batch normalisations as in evaluation."""
    for module in task.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def read_texts(network: Callable[..., Any], batch: Batch, n: int) -> Any:
    """What a network makes of a batch's texts; where each picture has ``n`` of them, these are second."""
    said = batch["text"] if isinstance(batch["text"], tuple) else (batch["text"],)
    return network(*said) if n == 1 else network(*(one.flatten(0, 1) for one in said)).unflatten(0, (-1, n))


def gathered_pairs(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Pictures and texts of all processes, in one exchange, and which are this one's."""
    both, share = gathered(torch.cat([image, text.flatten(1)], 1))
    x, y = both.split([image.shape[1], both.shape[1] - image.shape[1]], 1)
    return x, y.unflatten(1, text.shape[1:]), share


def gathered_labels(labels: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
    """Those of all processes, of pairs or of either side."""
    if isinstance(labels, Tensor):
        return gathered(labels)[0]
    return gathered(labels[0])[0], gathered(labels[1])[0]


@dataclass(frozen=True)
class Drawn(Generic[One]):
    """A column of which each sample has several, one drawn at every step from the seed, the step and its place.

    Example:
        >>> said = Drawn([["a cat", "a pet"], ["a dog"]], list)
        >>> said.drawn([1, 0, 1], [np.random.default_rng(place) for place in range(3)])
        ['a dog', 'a cat', 'a dog']
    """

    choices: Sequence[Sequence[One]]
    made: Callable[[list[One]], Any]
    n: int = 1

    def drawn(self, index: Sequence[int], draws: Sequence[np.random.Generator]) -> Any:
        """What a batch has of some samples, each drawn by its own generator."""
        several = (self.choices[i] for i in index)
        if self.n == 1:
            return self.made([one[int(draw.integers(len(one)))] for one, draw in zip(several, draws, strict=True)])
        chosen = [one[i] for one, draw in zip(several, draws, strict=True) for i in self._some(len(one), draw)]
        made = self.made(chosen)
        split = tuple(one.unflatten(0, (-1, self.n)) for one in (made if isinstance(made, tuple) else (made,)))
        return split if isinstance(made, tuple) else split[0]

    def _some(self, among: int, draw: np.random.Generator) -> list[int]:
        places: list[int] = []
        while len(places) < self.n:
            places += draw.permutation(among).tolist()
        return places[: self.n]
