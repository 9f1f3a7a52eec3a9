"""DreamLIP's grouping on drawn scenes: each sentence names one of several things, and where each thing is is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from reading_tower import Reader, numbers
from torch import Tensor, nn
from torch.nn.functional import normalize

from seewhy.encoders.base import GlobalAverage, Layout
from seewhy.encoders.new import Residual
from seewhy.learning.contrast import Drawn, ImageRegions, RegionalContrast, TextWords, recall
from seewhy.learning.objectives.regional import DreamLIP
from seewhy.seeded import seeded
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

SIDE, HALF, WIDTH, BATCH = 24, 12, 64, 32
HUES, TONES = ("red", "orange", "green", "mint", "teal", "blue", "purple", "pink"), ("dark", "light")
NAMES = tuple(f"{tone} {hue}" for tone in TONES for hue in HUES)
WORDS = ("<pad>", "a", "and", *TONES, *HUES)
MOST, K = 3, 2
"""Things in a picture at most, and sentences of it at once, of which there are never fewer."""


@dataclass(frozen=True)
class Arm:
    """How pictures and their sentences are learnt.

    Attributes:
        whole: whether the sentences of a picture are one text.
        grouping: weight of the grouping loss.
    """

    whole: bool = False
    grouping: float = 0.0


WHOLE, SAMPLED, GROUPED = "whole captions", "sentences", "sentences and groups"
ARMS = {
    WHOLE: Arm(whole=True),
    SAMPLED: Arm(),
    GROUPED: Arm(grouping=1.0),
}


class Eye(nn.Module):
    """Three stages to 6 x 6 patches, and a transformer layer in which every patch sees all others, as in a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.GroupNorm(8, 32), nn.ReLU(), Residual(32, WIDTH, 2)
        )
        self.places = nn.Parameter(0.02 * torch.randn((SIDE // 4) ** 2, WIDTH))
        self.layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c h w"]:
        grid = self.stages(pixels)
        mixed: Tensor = self.layer(grid.flatten(2).transpose(1, 2) + self.places)
        return mixed.transpose(1, 2).unflatten(2, grid.shape[2:])


@dataclass(frozen=True)
class Scenes:
    """Pixels around 0, boxes as parts of the picture (left, top, right, bottom), and names; -1 where there is none."""

    pixels: Float[Tensor, "n 3 s s"]
    boxes: Float[Tensor, "n m 4"]
    labels: Int[Tensor, "n m"]

    def __len__(self) -> int:
        return len(self.pixels)


def scenes(n: int, seed: int) -> Scenes:
    """Two or three plain things of other colours in quarters of their own, on a grey and grainy ground."""
    draw = torch.Generator().manual_seed(7000 + seed)
    labels = torch.rand(n, len(NAMES), generator=draw).argsort(1)[:, :MOST]
    quarter = torch.rand(n, 4, generator=draw).argsort(1)[:, :MOST]
    labels[torch.rand(n, generator=draw) < 0.5, -1] = -1
    size = torch.randint(5, 10, (n, MOST, 2), generator=draw)
    room = ((HALF - size + 1) * torch.rand(n, MOST, 2, generator=draw)).long()
    start = HALF * torch.stack([quarter % 2, quarter // 2], 2) + room
    boxes, axis = torch.cat([start, start + size], 2), torch.arange(SIDE)
    pixels = (0.3 * torch.randn(n, 1, 1, 1, generator=draw)).repeat(1, 3, SIDE, SIDE)
    hue = (labels % len(HUES)) * 2 * math.pi / len(HUES)
    shade = torch.where(labels < len(HUES), -0.5, 0.5)[..., None]
    colours = shade + torch.stack([(hue + turn * 2 * math.pi / 3).cos() for turn in range(3)], 2)
    colours = colours + 0.15 * torch.randn(colours.shape, generator=draw)
    for i in range(MOST):
        left, top, right, bottom = (boxes[:, i, j, None] for j in range(4))
        across, down = (axis >= left) & (axis < right), (axis >= top) & (axis < bottom)
        there = (down[:, :, None] & across[:, None] & (labels[:, i] >= 0)[:, None, None])[:, None]
        pixels = torch.where(there, colours[:, i, :, None, None], pixels)
    grain = 0.3 * torch.randn(pixels.shape, generator=draw)
    return Scenes(pixels + grain, boxes / SIDE, labels)


def sentences(data: Scenes) -> list[list[str]]:
    """Of each picture, one for each thing."""
    return [[f"a {NAMES[label]}" for label in own if label >= 0] for own in data.labels.tolist()]


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
    objective = DreamLIP(n_texts=n, local_weight=arm.grouping, spans="text")
    columns = {"pixels": data.pixels, "text": Drawn(said, lambda texts: numbers(texts, WORDS), n)}
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
    image, regions = own.image(test.pixels)
    names, there = own.texts([f"a {name}" for name in NAMES]), test.labels >= 0
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


N_LEARNT, N_TEST = 1500, 500


def examine(arm: str, seed: int, steps: int) -> dict[str, float]:
    """One arm on one draw."""
    found = measured(towers(ARMS[arm], scenes(N_LEARNT, seed), steps, seed), scenes(N_TEST, 5000 + seed))
    return {name: round(value, 4) for name, value in found.items()}
