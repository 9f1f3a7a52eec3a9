"""Pictures with a coarse class to learn and finer ones that nobody tells: digits, drawn shapes, and marks on scenes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from seewhy.pictures.samples import split

SHAPES = ("disc", "square", "triangle", "cross")
TEXTURES = ("plain", "stripes", "checks", "rim")
COLOURS = (
    (0.85, 0.2, 0.2),
    (0.85, 0.65, 0.15),
    (0.2, 0.65, 0.25),
    (0.2, 0.35, 0.85),
    (0.6, 0.25, 0.7),
    (0.8, 0.8, 0.8),
)
SIDE = 24
"""Of drawn shapes, in pixels; digits have 8."""
MARKED, N_MARKS, N_SCENES = 16, 4, 4
"""Pixels of marked scenes, and how many marks and scenes there are."""
MARK, SCENE, OTHER = 1.0, 1.3, 0.6
"""How strong a mark, a scene and what is of no class are."""


@dataclass(frozen=True)
class World:
    """One half to learn and fit on, another to measure on.

    Attributes:
        name: of the world.
        pictures: of both, around 0.
        upstream: the class that is told.
        downstream: name → a class that is not.
        held: which are measured on.
    """

    name: str
    pictures: Float[Tensor, "n c h w"]
    upstream: Int[Tensor, " n"]
    downstream: Mapping[str, Int[Tensor, " n"]]
    held: Tensor


def digits(seed: int) -> World:
    """scikit-learn's 1,797: even or odd is told, which digit is not; a third, of each digit, is measured on."""
    from sklearn.datasets import load_digits

    pictures, digit = load_digits(return_X_y=True)
    labels = torch.from_numpy(digit).long()
    made = torch.from_numpy(pictures).float().reshape(-1, 1, 8, 8) / 8 - 1
    return World("digits", made, labels % 2, {"digit": labels}, thirds(labels, seed))


def shapes(seed: int, n: int = 1800) -> World:
    """Drawn: the shape is told, its colour and its texture are not; a third, of each shape, is measured on."""
    draw = torch.Generator().manual_seed(1000 + seed)
    shape, texture, colour = (torch.randint(len(kinds), (n,), generator=draw) for kinds in (SHAPES, TEXTURES, COLOURS))
    pictures = drawn(shape, texture, colour, draw)
    return World("shapes", pictures, shape, {"colour": colour, "texture": texture}, thirds(shape, seed))


def marks(seed: int, n: int = 1800) -> World:
    """Drawn by the paper's own reason: a mark is told, the scene that it is on is not, and is seen far more easily.

    A class holds the same mark on four scenes, as the paper's helmets lie alone or are worn in a match. To tell marks
    the scene is of no use, so whoever learns nothing else may forget it. Asked is the mark with its scene.
    """
    draw = torch.Generator().manual_seed(5000 + seed)
    kinds = [_clouds(many, draw) for many in (N_MARKS, N_SCENES)]
    mark, scene = (torch.randint(many, (n,), generator=draw) for many in (N_MARKS, N_SCENES))
    made = MARK * kinds[0][mark] + SCENE * kinds[1][scene] + OTHER * _clouds(n, draw)
    made = made + OTHER * torch.randn(made.shape, generator=draw)
    both = mark * N_SCENES + scene
    return World("marks", made / (MARK**2 + SCENE**2 + 2 * OTHER**2) ** 0.5, mark, {"both": both}, thirds(both, seed))


def _clouds(n: int, draw: torch.Generator) -> Float[Tensor, "n 1 s s"]:
    """Smooth and by chance, of spread 1."""
    coarse = torch.randn(n, 1, 4, 4, generator=draw)
    fine = interpolate(coarse, (MARKED, MARKED), mode="bicubic", align_corners=True)
    return fine / fine.flatten(1).std(1)[:, None, None, None]


def thirds(labels: Int[Tensor, " n"], seed: int) -> Tensor:
    """Which third is measured on: of every class a third."""
    names = [str(label) for label in labels.tolist()]
    return torch.tensor(split(names, [str(i) for i in range(len(names))], 1 / 3, seed))


def drawn(
    shape: Int[Tensor, " n"], texture: Int[Tensor, " n"], colour: Int[Tensor, " n"], draw: torch.Generator
) -> Float[Tensor, "n 3 s s"]:
    """A slightly turned shape of a colour and a texture, about the middle of a ground of any grey, with grain."""
    n, fine = len(shape), 3 * SIDE
    axis = (torch.arange(fine) + 0.5) / fine * 2 - 1
    place, size, turn = (torch.rand(n, k, generator=draw) for k in (2, 1, 1))
    x, y = (
        axis[None, None] - 0.3 * (place[:, 0, None, None] - 0.5),
        axis[None, :, None] - 0.3 * (place[:, 1, None, None] - 0.5),
    )
    angle, radius = (turn[..., None] - 0.5) * math.pi / 4, 0.55 + 0.15 * size[..., None]
    a, b = (x * angle.cos() + y * angle.sin()) / radius, (y * angle.cos() - x * angle.sin()) / radius
    far = _distances(a, b)
    own = far.gather(1, shape[:, None, None, None].expand(-1, 1, fine, fine))[:, 0]
    inside = own < 1
    light = _light(a, b, own).gather(1, texture[:, None, None, None].expand(-1, 1, fine, fine))[:, 0]
    hue = torch.tensor(COLOURS)[colour][:, :, None, None] + 0.1 * torch.rand(n, 3, 1, 1, generator=draw) - 0.05
    ground = 0.1 + 0.2 * torch.rand(n, 1, 1, 1, generator=draw)
    made = torch.where(inside[:, None], hue * light[:, None], ground)
    small = made.unflatten(3, (SIDE, 3)).unflatten(2, (SIDE, 3)).mean((3, 5))
    return (small + 0.04 * torch.randn(small.shape, generator=draw)).clamp(0, 1) * 4 - 2


def _distances(a: Tensor, b: Tensor) -> Float[Tensor, "n 4 s s"]:
    """From the middle, in each shape's own measure: 1 at its edge."""
    disc, square = (a**2 + b**2).sqrt(), torch.maximum(a.abs(), b.abs()) * 1.15
    triangle = torch.maximum(1.7 * a.abs() + b, -2 * b) / 1.3
    cross = torch.maximum(torch.minimum(a.abs(), b.abs()) * 2.8, torch.maximum(a.abs(), b.abs()))
    return torch.stack([disc, square, triangle, cross], 1)


def _light(a: Tensor, b: Tensor, far: Tensor) -> Float[Tensor, "n 4 s s"]:
    """How bright each texture is at each place."""
    stripes, checks = (a * 9).sin() > 0, ((a * 7).sin() * (b * 7).sin()) > 0
    parts = [torch.ones_like(a), *(torch.where(on, 1.0, 0.55) for on in (stripes, checks, far > 0.65))]
    return torch.stack(parts, 1)


class Moved:
    """Views of pictures in memory: turned by up to 12 degrees, of another size by a sixth, moved by a tenth.

    Colours and mirror images are left as they are, as they may be what is asked for.

    Args:
        pictures: around 0.
        n_views: of each.
    """

    def __init__(self, pictures: Float[Tensor, "n c h w"], n_views: int) -> None:
        self.pictures, self.n_views = pictures, n_views

    def __call__(self, index: list[int], draw: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(self._view(self.pictures[index], draw) for _ in range(self.n_views))

    def _view(self, pictures: Tensor, draw: torch.Generator) -> Tensor:
        turn, size, x, y = (2 * torch.rand(4, len(pictures), generator=draw) - 1).unbind()
        angle, scale = turn * math.radians(12), (size * math.log(7 / 6)).exp()
        rows = [angle.cos() * scale, -angle.sin() * scale, 0.2 * x, angle.sin() * scale, angle.cos() * scale, 0.2 * y]
        grid = affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(pictures.shape), align_corners=False)
        return grid_sample(pictures, grid, padding_mode="border", align_corners=False)
