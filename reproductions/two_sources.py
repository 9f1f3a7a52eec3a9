"""A drawn world of two sources that are biased in their own ways, and two small towers that learn from both.

A class is a weave of cloth. Pictures with a class name are of half of the classes and lie on the ground of their class,
as goods do that each maker photographs before his own wall: the ground gives the class away. Pictures with a caption
are of all classes on any ground; the caption has other words beside the weave's, of the ground now and then. Whoever
reads a weave's word as "its wall" does well in the first source, and not in the world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from reading_tower import Reader, numbers
from torch import Tensor, nn
from torch.nn.functional import normalize

from seewhy.encoders.new import Residual
from seewhy.learning.contrast import Contrast, Drawn
from seewhy.learning.encoders.towers import PrefixedWords
from seewhy.learning.objectives.pairs import Prefix
from seewhy.seeded import seeded
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

SIDE, CLOTH, WIDTH = 16, 10, 64
N_CLASSES = 16
NAMED = (0, 2, 4, 6, 9, 11, 13, 15)
"""Classes that have names in training."""
GROUNDS = ("black", "navy", "green", "teal", "red", "purple", "olive", "grey")
"""Of the corners of a cube of colours; the wall of a named class is the ground of its number."""
TEMPLATES = ("a photo of a {}", "this is a {}", "a picture of the {}")
ASIDE = (
    "today",
    "we",
    "saw",
    "near",
    "old",
    "nice",
    "our",
    "little",
    "house",
    "trip",
    "my",
    "found",
    "morning",
    "what",
)
NAMES = tuple(f"weave{i}" for i in range(N_CLASSES))
WORDS = ("<pad>", "a", "photo", "of", "this", "is", "picture", "the", "on", *ASIDE, *GROUNDS, *NAMES)
CLASS, CAPTION = 0, 1
"""The two kinds of text, as numbers of their prefixes."""


@dataclass(frozen=True)
class Pictures:
    """Drawn cloths: pixels around 0, the weave and the ground of each."""

    pixels: Float[Tensor, "n 3 s s"]
    weave: Int[Tensor, " n"]
    ground: Int[Tensor, " n"]


def drawn(weave: Int[Tensor, " n"], ground: Int[Tensor, " n"], noise: float, draw: torch.Generator) -> Pictures:
    """A striped cloth anywhere on its ground, with grain: a weave is one of eight directions and two widths."""
    n, axis = len(weave), torch.arange(SIDE).float()
    corner = torch.stack([ground >> 2 & 1, ground >> 1 & 1, ground & 1], 1).float()
    pixels = (corner - 0.5 + 0.1 * torch.randn(n, 3, generator=draw))[:, :, None, None].repeat(1, 1, SIDE, SIDE)
    angle, width = (weave % 8) * math.pi / 8, torch.where(weave < 8, 3.0, 5.0)
    phase, place = torch.rand(n, generator=draw), torch.randint(SIDE - CLOTH + 1, (n, 2), generator=draw)
    along = angle.cos()[:, None, None] * axis + angle.sin()[:, None, None] * axis[:, None]
    stripes = (2 * math.pi * (along / width[:, None, None] + phase[:, None, None])).sin().sign()
    row, column = ((axis >= first[:, None]) & (axis < first[:, None] + CLOTH) for first in place.unbind(1))
    there = (row[:, :, None] & column[:, None])[:, None]
    pixels = torch.where(there, stripes[:, None], pixels)
    return Pictures(pixels + noise * torch.randn(pixels.shape, generator=draw), weave, ground)


class TwoSources:
    """One draw of the world.

    Args:
        seed: of everything in it.
        noise: spread of the grain.
    """

    def __init__(self, seed: int, noise: float = 0.7) -> None:
        self.seed, self.noise, self.draw = seed, noise, torch.Generator().manual_seed(9000 + seed)

    def named(self, n: int) -> Pictures:
        """Half of the classes, each on its own ground."""
        ground = torch.randint(len(NAMED), (n,), generator=self.draw)
        return drawn(torch.tensor(NAMED)[ground], ground, self.noise, self.draw)

    def captioned(self, n: int) -> Pictures:
        """All classes, on any ground."""
        weave, ground = (torch.randint(most, (n,), generator=self.draw) for most in (N_CLASSES, len(GROUNDS)))
        return drawn(weave, ground, self.noise, self.draw)

    def captions(self, pictures: Pictures, n_each: int = 2) -> list[list[str]]:
        """A quarter begin as a template does, half name the ground, all say something besides."""
        return [
            [self.caption(NAMES[weave], GROUNDS[ground]) for _ in range(n_each)]
            for weave, ground in zip(pictures.weave.tolist(), pictures.ground.tolist(), strict=True)
        ]

    def caption(self, name: str, ground: str) -> str:
        """A sentence on one picture."""
        chance = torch.rand(2, generator=self.draw).tolist()
        aside = [ASIDE[i] for i in torch.randint(len(ASIDE), (4,), generator=self.draw).tolist()]
        said = TEMPLATES[0].format(name) if chance[0] < 0.25 else f"{aside[0]} {aside[1]} {name}"
        return f"{said} on {ground} {aside[2]}" if chance[1] < 0.5 else f"{said} {aside[2]} {aside[3]}"


@dataclass(frozen=True)
class Arm:
    """How both sources are learnt.

    Attributes:
        two: prefixes, one of each kind; else one for both, so that all arms have as many weights.
        apart: whether each batch is of one source.
        sources: which are learnt from; with one, all steps are of it.
    """

    two: bool = False
    apart: bool = False
    sources: tuple[int, ...] = (CLASS, CAPTION)


@dataclass(frozen=True)
class Towers:
    """What was learnt."""

    image: nn.Module
    words: PrefixedWords
    two: bool

    @torch.no_grad()
    def classes(self, texts: list[list[str]], source: int) -> Float[Tensor, "k d"]:
        """A vector for each class, the mean of its texts', read as a source."""
        flat = [text for several in texts for text in several]
        of = torch.full((len(flat),), source if self.two else CAPTION)
        each = normalize(self.words(of, numbers(flat, WORDS)), dim=1)
        return normalize(torch.stack([part.mean(0) for part in each.split([len(one) for one in texts])]), dim=1)

    @torch.no_grad()
    def right(self, pictures: Pictures, classes: Float[Tensor, "k d"], rows: Tensor) -> float:
        """How many of some pictures are named right among all classes."""
        named = (normalize(self.image(pictures.pixels[rows]), dim=1) @ classes.T).argmax(1)
        return float((named == pictures.weave[rows]).float().mean())


def eye() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU(),
        Residual(16, 32, 2), Residual(32, WIDTH, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, WIDTH),
    )  # fmt: skip


def towers(arm: Arm, world: TwoSources, learnt: tuple[Pictures, Pictures], said: list[list[str]], steps: int) -> Towers:
    """Both towers from nothing; all arms of a draw begin alike."""
    with seeded(world.seed):
        image, words = eye(), PrefixedWords(Reader(len(WORDS), WIDTH), WIDTH)
        nn.init.normal_(words.prefix, std=float(words.words.words.weight.detach().std()))
    named, told = learnt
    texts = [[(CLASS, t.format(NAMES[i])) for t in TEMPLATES] for i in named.weave.tolist()]
    texts += [[(CAPTION, text) for text in several] for several in said]
    if not arm.two:
        texts = [[(CAPTION, text) for _, text in several] for several in texts]
    kinds = torch.tensor([CLASS] * len(named.weave) + [CAPTION] * len(told.weave))
    kept = torch.isin(kinds, torch.tensor(arm.sources))
    labels = torch.cat([named.weave, N_CLASSES + torch.arange(len(told.weave))])

    def made(drawn: list[tuple[int, str]]) -> tuple[Tensor, Tensor]:
        return torch.tensor([source for source, _ in drawn]), numbers([text for _, text in drawn], WORDS)

    columns = {
        "image": torch.cat([named.pixels, told.pixels])[kept],
        "text": Drawn([one for one, keep in zip(texts, kept.tolist(), strict=True) if keep], made),
        "labels": labels[kept],
    }
    task = Contrast(image, words, Prefix(debiased=arm.apart), column="image", labels=True)
    data = TrainingData(int(kept.sum()), columns, apart=kinds[kept] if arm.apart else None)
    how = Training(
        steps, 64, lr=2e-3, weight_decay=0.01, schedule="cosine", warmup=20, seed=world.seed,
        part_decay=(("text.prefix", 0.0),),
    )  # fmt: skip
    train(task, data, how)
    return Towers(image, words, arm.two)


NAIVE, APART, MIXED, METHOD = "naive mixing", "one prefix, batches of one kind", "two prefixes, mixed batches", "prefix"
ALONE = "captions alone"
ARMS = {
    ALONE: Arm(sources=(CAPTION,)),
    NAIVE: Arm(),
    APART: Arm(apart=True),
    MIXED: Arm(two=True),
    METHOD: Arm(two=True, apart=True),
}
OLD, NEW, SHOP = "classes with names in training", "classes that only captions told of", "pictures of the first source"
READ = {"": CAPTION, ", read as classes": CLASS}
SAID = ", asked in the words of captions"
N_NAMED, N_TOLD, N_TEST = 800, 600, 1000
"""Pictures of each source that are learnt from, and that are measured on."""


def examine(arm: str, seed: int, steps: int) -> dict[str, float]:
    """One arm on one draw: how many are named right among all classes, in each group and way of asking."""
    world = TwoSources(seed)
    learnt = world.named(N_NAMED), world.captioned(N_TOLD)
    said, test, shop = world.captions(learnt[1]), world.captioned(N_TEST), world.named(N_TEST // 2)
    own = torch.isin(test.weave, torch.tensor(NAMED))
    groups = {OLD: (test, own), NEW: (test, ~own), SHOP: (shop, torch.ones(len(shop.weave), dtype=torch.bool))}
    prompts = [[template.format(name) for template in TEMPLATES] for name in NAMES]
    free = [[world.caption(name, ground) for ground in GROUNDS for _ in range(3)] for name in NAMES]
    made = towers(ARMS[arm], world, learnt, said, steps)
    asked = {f"{arm}{way}": made.classes(prompts, source) for way, source in READ.items()}
    asked[f"{arm}{SAID}"] = made.classes(free, CAPTION)
    return {
        f"{way}: {group}": round(made.right(pictures, classes, rows.nonzero()[:, 0]), 4)
        for way, classes in asked.items() for group, (pictures, rows) in groups.items()
    }  # fmt: skip
