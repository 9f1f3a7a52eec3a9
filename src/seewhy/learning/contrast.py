"""Contrastive training tasks and retrieval ranks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from ..encoders.base import Encoder, Layout, Tokenised
from ..encoders.region_heads import HeadSizes, RegionHeads
from ..encoders.split import example_pixels
from ..encoders.text_tokens import encode_tokens
from ..progress import Progress
from ..training.augmentation import TrainingPictures
from ..training.batches import Batch, gathered, sizes_of
from ..training.task import Task
from .encoders.delta import halves_of
from .encoders.towers import TunedTowers, trainable
from .objectives.contrastive import Contrastive, RandomBoxes, Regional
from .pooled import PooledPairs, placed

DEPTHS = (1, 5, 10)
"""Values of k in recall@k."""
ROWS = 1024
"""Rows of similarities computed at once."""
One = TypeVar("One")


class PairTask(Task):
    """Contrastive training on pairs of a picture and a text, over all processes."""

    def __init__(self, objective: Contrastive, *needs: str, labels: bool = False, hold: bool = False) -> None:
        super().__init__()
        self.needs = (*needs, *(("labels",) if labels else ()))  # type: ignore[misc]
        self.objective, self.hold, self.state = objective, hold, objective.state()

    def compared(self, image: Tensor, text: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of the global batch, with its image and text vectors."""
        x, y, share = gathered_pairs(image, text)
        labels = batch["labels"] if "labels" in self.needs else None
        if isinstance(labels, tuple):  # of either side
            labels = gathered(labels[0])[0], gathered(labels[1])[0]
        elif labels is not None:
            labels = gathered(labels)[0]
        return self.objective(x, y, labels, self.state, share=share), x.detach(), y.detach()

    def learnt(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.state.named_parameters()}

    def hold_norms(self) -> None:
        if self.hold:
            hold_norms(self)

    def after_step(self) -> None:
        self.state.hold()


class Contrast(PairTask):
    """Contrastive training of an image and a text network.

    ``column`` is the name of the column with the pictures; the column ``"text"`` has ``n_texts`` texts per picture.
    With micro-batches or several processes, set ``hold`` if a network has batch normalisation.
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
        super().__init__(objective, column, "text", labels=labels, hold=hold)
        self.image, self.text = image, text

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b *k d"]]:
        self.hold_norms()
        image: Tensor = self.image(batch[self.needs[0]])
        return image, read_texts(self.text, batch, self.objective.n_texts)

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": self.compared(*features, batch)[0], **self.learnt()}


def hold_norms(task: nn.Module) -> None:
    """Set batch normalisation to evaluation mode."""
    for module in task.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def read_texts(network: Callable[..., Any], batch: Batch, n: int) -> Any:
    """Encode the texts of a batch; with ``n > 1`` texts per picture, they form the second dimension."""
    said = batch["text"] if isinstance(batch["text"], tuple) else (batch["text"],)
    return network(*said) if n == 1 else network(*(one.flatten(0, 1) for one in said)).unflatten(0, (-1, n))


def gathered_pairs(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Return the image and text vectors of all processes, and the range of rows that belongs to this process."""
    both, share = gathered(torch.cat([image, text.flatten(1)], 1))
    x, y = both.split([image.shape[1], both.shape[1] - image.shape[1]], 1)
    return x, y.unflatten(1, text.shape[1:]), share


@dataclass(frozen=True)
class Drawn(Generic[One]):
    """A column with several values per sample; each step draws some of them."""

    choices: Sequence[Sequence[One]]
    made: Callable[[list[One]], Any]
    n: int = 1

    def drawn(self, index: Sequence[int], draws: Sequence[np.random.Generator]) -> Any:
        """Draw values for the given samples; each sample has a random generator of its own."""
        several = (self.choices[i] for i in index)
        if self.n == 1:
            return self.made([one[int(draw.integers(len(one)))] for one, draw in zip(several, draws, strict=True)])
        chosen: list[One] = []
        for choices, draw in zip(several, draws, strict=True):
            places: list[int] = []
            while len(places) < self.n:
                places += draw.permutation(len(choices)).tolist()
            chosen += [choices[i] for i in places[: self.n]]
        made = self.made(chosen)
        if isinstance(made, tuple):
            return tuple(part.unflatten(0, (-1, self.n)) for part in made)
        return made.unflatten(0, (-1, self.n))


class RegionalContrast(PairTask):
    """Contrastive training of an image and a text network, with patches and words."""

    objective: Regional

    def __init__(
        self, image: nn.Module, text: nn.Module, objective: Regional, *, column: str = "pixels", hold: bool = False
    ) -> None:
        super().__init__(objective, column, "text", hold=hold)
        self.image, self.text = image, text

    def features(self, batch: Batch) -> tuple[Tensor, ...]:
        self.hold_norms()
        image, regions = self.image(batch[self.needs[0]])
        if self.objective.parts == "words":
            return image, regions, *read_texts(self.text, batch, 1)
        return image, regions, read_texts(lambda *said: self.text(*said)[0], batch, self.objective.n_texts)

    def loss(self, features: tuple[Tensor, ...], batch: Batch) -> Mapping[str, Tensor]:
        image, regions, text, *said = features
        whole = self.compared(image, text, batch)[0]
        words = said[0] if said else text.view(len(text), -1, text.shape[-1])
        filled = said[1] if said else words.new_ones(words.shape[:2]).bool()
        if self.objective.across:  # of all processes; texts are made as long as the longest
            more = max(sizes_of(words.shape[1])) - words.shape[1]
            longer, flags = pad(words, (0, 0, 0, more)), pad(filled.to(words), (0, more))
            regions, words, filled = gathered(regions)[0], gathered(longer)[0], gathered(flags)[0] > 0.5
        parts = self.objective.local_weight * self.objective.local(regions, words, filled, self.state)
        return {"loss": whole + parts, "whole": whole.detach(), "parts": parts.detach(), **self.learnt()}


class ImageRegions(nn.Module):
    """Image encoder that returns the vectors of the picture and of its patches in the text space."""

    def __init__(self, trunk: nn.Module, pool: nn.Module, projection: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.trunk, self.pool, self.projection, self.layout = trunk, pool, projection, layout

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b r d"]]:
        features = self.trunk(pixels)
        cells = self.layout.to_grid(features).flatten(2).transpose(1, 2)
        return self.projection(self.pool(features)), self.projection(cells)


class Still(nn.Module):
    """A network that stays in evaluation mode; unless ``learns`` is true, its weights are frozen."""

    def __init__(self, network: nn.Module, *, learns: bool = False) -> None:
        super().__init__()
        self.network = network.requires_grad_(learns).eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, *given: Tensor) -> Any:
        return self.network(*given)


class TextWords(nn.Module):
    """Text encoder that returns the vectors of the text and of its tokens, and a mask of words."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tokens: Tensor) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n t d"], Bool[Tensor, "n t"]]:
        network = self.network.network if isinstance(self.network, Still) else self.network
        read = encode_tokens(network, tokens)
        return read.pooled, read.vectors, read.words


class BoxContrast(PairTask):
    """Contrastive training of a trunk and a detector's heads on pictures and random boxes."""

    objective: RandomBoxes

    def __init__(
        self,
        image: nn.Module,
        pool: nn.Module,
        heads: RegionHeads,
        text: nn.Module,
        objective: RandomBoxes,
        *,
        layout: Layout,
        hold: bool = False,
    ) -> None:
        super().__init__(objective, "pixels", "text", hold=hold)
        self.image, self.pool, self.heads, self.text, self.layout = image, pool, heads, text, layout

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b d"]]:
        self.hold_norms()
        features = self.image(batch["pixels"])
        each = levels_of(self.heads, self.layout.to_grid(features), self.objective)
        return torch.cat([self.pool(features)[:, None], each], 1), read_texts(self.text, batch, 1)

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        image, text = features
        x, y, share = gathered_pairs(image.flatten(1), text)
        whole, *levels = (
            self.objective(one, y, None, self.state, share=share) for one in x.unflatten(1, image.shape[1:]).unbind(1)
        )
        mean = torch.stack(levels).mean()
        total = whole + self.objective.level_weight * mean
        return {"loss": total, "whole": whole.detach(), "levels": mean.detach(), **self.learnt()}


def levels_of(heads: RegionHeads, grid: Float[Tensor, "b c h w"], objective: RandomBoxes) -> Float[Tensor, "b l d"]:
    """Return the elementwise maximum over random boxes for each picture and pyramid level."""
    b, n = len(grid), objective.n_boxes
    boxes = random_boxes(b * n, objective.smallest).to(grid)
    owner = torch.arange(b, device=grid.device).repeat_interleave(n)
    made = [heads.embed(heads.on_level(level, boxes, owner)) for level in heads.levels(grid)]
    return torch.stack([level.unflatten(0, (b, n)).amax(1) for level in made], 1)


def random_boxes(n: int, smallest: float) -> Float[Tensor, "n 4"]:
    """Draw boxes with uniform sides and positions, as fractions of the picture."""
    sides = smallest + (1 - smallest) * torch.rand(n, 2)
    corner = (1 - sides) * torch.rand(n, 2)
    return torch.cat([corner, corner + sides], 1)


def towers_task(on: Encoder, towers: TunedTowers, objective: Contrastive, *, labels: bool = False) -> Task:
    if isinstance(objective, Regional):
        return _regional(on, towers, objective)
    if isinstance(objective, RandomBoxes) and towers.trunk is not None:
        return _boxed(on, towers, objective)
    image: nn.Module = nn.Identity()
    if towers.trunk is not None:
        image = nn.Sequential(*towers.image_parts()).requires_grad_(True)
    text: nn.Module = nn.Identity() if towers.words is None else towers.words.requires_grad_(True)
    column = "image" if towers.trunk is None else "pixels"
    return Contrast(image, text, objective, column=column, labels=labels, hold=True)


def _regional(on: Encoder, towers: TunedTowers, objective: Regional) -> RegionalContrast:
    """Return the task for objectives that compare patches with words."""
    trunk, pool = towers.trunk, towers.pool
    projection = trainable(on).projection if towers.projection is None else towers.projection
    if trunk is None or pool is None:
        image: nn.Module = Still(ImageRegions(*halves_of(on), copy.deepcopy(projection), on.layout))
    else:
        image = ImageRegions(trunk, pool, projection, on.layout).requires_grad_(True)
    words = Still(copy.deepcopy(trainable(on).module)) if towers.words is None else towers.words.requires_grad_(True)
    return RegionalContrast(image, TextWords(words), objective, hold=True)


def _boxed(on: Encoder, towers: TunedTowers, objective: RandomBoxes) -> BoxContrast:
    """Return the task that trains a detector's heads, new or from the encoder, on random boxes."""
    trunk, pool, projection = towers.image_parts()
    with torch.no_grad():
        features = trunk(example_pixels(on.transform.input_size))
        sizes = HeadSizes(on.layout.to_grid(features).shape[1], projection(pool(features)).shape[1])
    before = on.region_heads
    towers.heads = RegionHeads(sizes) if before is None else copy.deepcopy(before)
    text: nn.Module = nn.Identity() if towers.words is None else towers.words.requires_grad_(True)
    image, whole = trunk.requires_grad_(True), nn.Sequential(pool, projection).requires_grad_(True)
    heads = towers.heads.requires_grad_(True)
    return BoxContrast(image, whole, heads, text, objective, layout=on.layout, hold=True)


def towers_columns(
    on: Encoder, towers: TunedTowers, own: PooledPairs, progress: Progress, objective: Contrastive
) -> dict[str, Any]:
    """Return the columns of the training data: the pictures and their texts."""
    tower, regional = trainable(on), isinstance(objective, Regional)
    if towers.trunk is None and not regional:
        with torch.no_grad():
            columns: dict[str, Any] = {"image": on.text.project(own.pooled)}
    else:
        columns = {"pixels": TrainingPictures(on, [item.source for item in own.items], None, progress)}
    known = placed(on, own) if towers.words is None and not regional else None

    def said(rows: list[int]) -> Tensor | Tokenised:
        return tower.tokens([own.texts[i] for i in rows]) if known is None else known[rows]

    return {**columns, "text": Drawn(own.choices, said, objective.n_texts)}


@dataclass(frozen=True, eq=False)
class Ranks:
    """Retrieval ranks of the correct match for each picture and text; 0 is the best."""

    image_to_text: Int[Tensor, " p"]
    text_to_image: Int[Tensor, " m"]
    owner: Int[Tensor, " m"]

    def recall(self, depth: int) -> tuple[float, float]:
        """Return recall at ``depth`` from pictures to texts and from texts to pictures."""
        return float((self.image_to_text < depth).float().mean()), float((self.text_to_image < depth).float().mean())


@torch.no_grad()
def ranks(image: Float[Tensor, "p d"], text: Float[Tensor, "m d"], owner: Int[Tensor, " m"]) -> Ranks:
    """Return retrieval ranks by cosine; equal cosines count as errors, and other texts of the same picture do not."""
    x, y = normalize(image, dim=1), normalize(text, dim=1)
    own = (x[owner] * y).sum(1)
    best = torch.full((len(x),), -torch.inf, dtype=own.dtype).scatter_reduce(0, owner, own, "amax")
    to_image = []
    for start in range(0, len(y), ROWS):
        scores, mine = y[start : start + ROWS] @ x.T, owner[start : start + ROWS, None]
        to_image.append((scores >= scores.gather(1, mine)).sum(1) - 1)
    to_text = []
    for start in range(0, len(x), ROWS):
        rows = torch.arange(start, min(start + ROWS, len(x)))
        scores = (x[rows] @ y.T).masked_fill(owner[None] == rows[:, None], -torch.inf)
        to_text.append((scores >= best[rows, None] - 1e-6).sum(1))
    return Ranks(torch.cat(to_text), torch.cat(to_image), owner)


def recall(image: Float[Tensor, "n d"], text: Float[Tensor, "n d"]) -> float:
    """Return the fraction of pictures whose nearest text belongs to them."""
    scores = normalize(image, dim=1) @ normalize(text, dim=1).T
    return float((scores.diagonal() >= scores.amax(1) - 1e-6).float().mean())
