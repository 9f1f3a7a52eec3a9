"""DreamLIP's grouping on drawn scenes: each sentence names one of several things, and where each thing is is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from reading_tower import Reader, numbers
from torch import Tensor, nn
from torch.nn.functional import normalize
from worded_scenes import NAMES, SIDE, WORDS, Scenes, normalised, scenes

from seewhy.encoders.base import GlobalAverage, Layout
from seewhy.encoders.new import Residual
from seewhy.learning.contrast import Drawn, ImageRegions, RegionalContrast, TextWords, recall
from seewhy.learning.objectives.regional import DreamLIP
from seewhy.seeded import seeded
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

WIDTH, BATCH = 64, 64
K = 2
"""Sentences of a picture at once."""


@dataclass(frozen=True)
class Arm:
    """How pictures and their sentences are learnt.

    Attributes:
        whole: whether the sentences of a picture are one text.
        grouping: weight of the grouping loss.
        sigma: below which a patch is no part of a group.
    """

    whole: bool = False
    grouping: float = 0.0
    sigma: float = 0.1


WHOLE, SAMPLED, GROUPED, UNCUT = "whole captions", "sentences", "sentences and groups", "groups without a threshold"
ARMS = {
    WHOLE: Arm(whole=True),
    SAMPLED: Arm(),
    GROUPED: Arm(grouping=1.0),
    UNCUT: Arm(grouping=1.0, sigma=0.0),
}


class Eye(nn.Module):
    """Three stages to 6 x 6 patches, and a transformer layer in which every patch sees all others, as in a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU(),
            Residual(16, 32, 2), Residual(32, WIDTH, 2),
        )  # fmt: skip
        self.places = nn.Parameter(0.02 * torch.randn((SIDE // 8) ** 2, WIDTH))
        self.layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c h w"]:
        grid = self.stages(pixels)
        mixed: Tensor = self.layer(grid.flatten(2).transpose(1, 2) + self.places)
        return mixed.transpose(1, 2).unflatten(2, grid.shape[2:])


def several(n: int, seed: int) -> Scenes:
    """Scenes of two or three things, no two of one name."""
    drawn = scenes(3 * n, seed)
    names = [[label for label in own if label >= 0] for own in drawn.labels.tolist()]
    kept = [i for i, own in enumerate(names) if len(own) == len(set(own)) >= K][:n]
    return Scenes(drawn.pixels[kept], drawn.boxes[kept], drawn.labels[kept])


def sentences(data: Scenes) -> list[list[str]]:
    """Of each picture, one for each thing."""
    return [[NAMES[label] for label in own if label >= 0] for own in data.labels.tolist()]


@dataclass(frozen=True)
class Towers:
    """What was learnt."""

    image: ImageRegions
    text: Reader

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Float[Tensor, "n d"]:
        return normalize(self.text(numbers(texts, WORDS)), dim=1)


def towers(arm: Arm, data: Scenes, steps: int, seed: int) -> Towers:
    """Both from nothing; all arms of a draw begin alike."""
    with seeded(seed):
        image = ImageRegions(Eye(), GlobalAverage(), nn.Linear(WIDTH, WIDTH), Layout())
        text = Reader(len(WORDS), WIDTH)
    said = sentences(data)
    if arm.whole:
        said = [[" and ".join(own)] for own in said]
    n = 1 if arm.whole else K
    objective = DreamLIP(n_texts=n, sigma=arm.sigma, local_weight=arm.grouping, spans="text")
    columns = {"pixels": normalised(data.pixels), "text": Drawn(said, lambda texts: numbers(texts, WORDS), n)}
    how = Training(steps, BATCH, lr=2e-3, weight_decay=0.01, schedule="cosine", warmup=20, seed=seed)
    train(RegionalContrast(image, TextWords(text), objective), TrainingData(len(data), columns), how)
    return Towers(image, text)


def inside(boxes: Float[Tensor, "n m 4"], side: int) -> Tensor:
    """Which cells of a map have their middle in each box."""
    middle = (torch.arange(side) + 0.5) / side
    x, y = middle[None, None, None], middle[None, None, :, None]
    left, top, right, bottom = (boxes[..., i, None, None] for i in range(4))
    return ((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).flatten(2)


@torch.no_grad()
def measured(own: Towers, test: Scenes) -> dict[str, float]:
    """Of one training on other scenes.

    ``pointing``: how often the patch that is most like a sentence lies in the box of the thing it names; ``misled``:
    in the box of another thing; ``chance``: the boxes' part of the picture. ``patches``: how often a patch in a box is
    most like the name of what is in it, among all names. ``things``: how many of a picture's things are among as many
    names most like the whole. ``retrieval``: captions whose own picture is the most like them.
    """
    image, regions = own.image(normalised(test.pixels))
    names, there = own.texts(list(NAMES)), test.labels >= 0
    cells = inside(test.boxes, round(regions.shape[1] ** 0.5)) & there[..., None]
    near = normalize(regions, dim=2) @ names.T
    best = near.argmax(1).gather(1, test.labels.clamp(min=0))
    hit = cells.transpose(1, 2).gather(1, best[:, None].expand(-1, cells.shape[1], -1).transpose(1, 2))
    own_hit = hit.diagonal(dim1=1, dim2=2)
    other = hit.any(2) & ~own_hit
    named = near.argmax(2)[:, None] == test.labels[..., None]
    score = normalize(image, dim=1) @ names.T
    order, counts = score.argsort(1, descending=True).argsort(1), there.sum(1, keepdim=True)
    ranks = order.gather(1, test.labels.clamp(min=0))
    captions = torch.stack([own.texts(one).mean(0) for one in sentences(test)])
    return {
        "pointing": float(own_hit[there].double().mean()),
        "misled": float(other[there].double().mean()),
        "chance": float(cells.double().mean(2)[there].mean()),
        "patches": float((named & cells).sum() / cells.sum()),
        "things": float((ranks < counts)[there].double().mean()),
        "retrieval": recall(captions, image),
    }
