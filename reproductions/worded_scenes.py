"""Drawn scenes of shapes and colours, with what is where and a text that names it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

SIDE, MOST = 48, 3
"""Pixels, and things in a scene."""
SHAPES = {"disc": 0, "square": 4, "triangle": 3, "cross": 12}
COLOURS = {"red": (215, 45, 40), "green": (50, 160, 60), "blue": (50, 90, 215), "yellow": (230, 215, 60)}
NAMES = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
NOVEL = tuple(NAMES.index(name) for name in ("red disc", "green square", "blue triangle", "yellow cross"))
"""Pairs of which no box is ever learnt from; each shape and each colour is in three others."""
BASE = tuple(i for i in range(len(NAMES)) if i not in NOVEL)
WORDS = ("", "and", *COLOURS, *SHAPES)


@dataclass(frozen=True)
class Scenes:
    """Pictures with what is in them.

    Attributes:
        pixels: of each.
        boxes: left, top, right, bottom as parts of the picture; zero where there is none.
        labels: places among the names; -1 where there is none.
    """

    pixels: UInt8[Tensor, "n 3 s s"]
    boxes: Float[Tensor, "n m 4"]
    labels: Int[Tensor, "n m"]

    def __len__(self) -> int:
        return len(self.pixels)

    def texts(self) -> Int[Tensor, "n t"]:
        """Numbers of the words of each scene's text: ``red disc and blue cross``; 0 where it has ended."""
        found = torch.zeros(len(self), 3 * MOST - 1, dtype=torch.long)
        for i, own in enumerate(self.labels.tolist()):
            words = " and ".join(NAMES[k] for k in own if k >= 0).split()
            found[i, : len(words)] = torch.tensor([WORDS.index(word) for word in words])
        return found


def tokens(texts: list[str]) -> Int[Tensor, "n t"]:
    """The same of any texts of these words."""
    found = torch.zeros(len(texts), 3 * MOST - 1, dtype=torch.long)
    for i, text in enumerate(texts):
        for j, word in enumerate(text.split()):
            found[i, j] = WORDS.index(word)
    return found


def scenes(n: int, seed: int, among: tuple[int, ...] = tuple(range(len(NAMES)))) -> Scenes:
    """One to three things that do not overlap, on a ground of noise."""
    rng = np.random.default_rng(seed)
    drawn = [_scene(rng, among) for _ in range(n)]
    return Scenes(*(torch.stack(each) for each in zip(*drawn, strict=True)))


def _scene(rng: np.random.Generator, among: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    scale = 3
    ground = rng.integers(60, 200)
    image = Image.new("RGB", (SIDE * scale, SIDE * scale), tuple(int(ground + v) for v in rng.integers(-15, 16, 3)))
    boxes, labels, pen = torch.zeros(MOST, 4), torch.full((MOST,), -1), ImageDraw.Draw(image)
    placed: list[tuple[float, float, float]] = []
    for i in range(int(rng.integers(1, MOST + 1))):
        for _ in range(30):
            r = float(rng.uniform(5, 11))
            x, y = (float(rng.uniform(r + 1, SIDE - r - 1)) for _ in range(2))
            if all(max(abs(x - a), abs(y - b)) > r + c + 1 for a, b, c in placed):
                placed.append((x, y, r))
                label = int(rng.choice(among))
                corners = _draw(pen, label, x * scale, y * scale, r * scale, rng)
                boxes[i], labels[i] = torch.tensor(corners) / (SIDE * scale), label
                break
    grain = rng.normal(0, 8, (SIDE, SIDE, 3))
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)) + grain
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)).permute(2, 0, 1), boxes, labels


def _draw(
    pen: ImageDraw.ImageDraw, label: int, x: float, y: float, r: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """One thing; its corners."""
    colour, shape = NAMES[label].split()
    fill = tuple(int(np.clip(v + rng.uniform(-25, 25), 0, 255)) for v in COLOURS[colour])
    if shape == "disc":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        return x - r, y - r, x + r, y + r
    n, turn = SHAPES[shape], float(rng.uniform(-0.3, 0.3))
    if shape == "cross":
        w = 0.36
        points = [
            (w, 1),
            (w, w),
            (1, w),
            (1, -w),
            (w, -w),
            (w, -1),
            (-w, -1),
            (-w, -w),
            (-1, -w),
            (-1, w),
            (-w, w),
            (-w, 1),
        ]
    else:
        start = np.pi / 4 if n == 4 else -np.pi / 2
        points = [(np.cos(start + 2 * np.pi * i / n), np.sin(start + 2 * np.pi * i / n)) for i in range(n)]
    c, s = np.cos(turn), np.sin(turn)
    placed = [(x + r * (c * a - s * b), y + r * (s * a + c * b)) for a, b in points]
    pen.polygon(placed, fill=fill)
    across, down = zip(*placed, strict=True)
    return float(min(across)), float(min(down)), float(max(across)), float(max(down))


def normalised(pixels: UInt8[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
    return pixels.float() / 127.5 - 1
