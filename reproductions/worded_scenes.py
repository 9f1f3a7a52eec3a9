"""Drawn scenes of discs in a colour and a pattern, with what is where and a text that names it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

SIDE, MOST = 48, 3
"""Pixels, and things in a scene."""
COLOURS = {"red": (215, 45, 40), "green": (50, 160, 60), "blue": (50, 90, 215), "yellow": (230, 215, 60)}
PATTERNS = ("plain", "striped", "barred", "checked")
"""Dark lines across, down, or both ways: what a name needs beside the colour, and every part of a thing shows."""
NAMES = tuple(f"{colour} {pattern}" for pattern in PATTERNS for colour in COLOURS)
NOVEL = tuple(NAMES.index(name) for name in ("red plain", "green striped", "blue barred", "yellow checked"))
"""Pairs of which no box is ever learnt from; each pattern and each colour is in three others."""
BASE = tuple(i for i in range(len(NAMES)) if i not in NOVEL)
WORDS = ("", "and", *COLOURS, *PATTERNS)


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
        """Numbers of the words of each scene's text: ``red plain and blue barred``; 0 where it has ended."""
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
    pixels = np.zeros((SIDE, SIDE, 3)) + rng.integers(60, 200) + rng.integers(-15, 16, 3)
    boxes, labels = torch.zeros(MOST, 4), torch.full((MOST,), -1)
    placed: list[tuple[float, float, float]] = []
    for i in range(int(rng.integers(1, MOST + 1))):
        for _ in range(30):
            r = float(rng.uniform(6, 11))
            x, y = (float(rng.uniform(r + 1, SIDE - r - 1)) for _ in range(2))
            if all(max(abs(x - a), abs(y - b)) > r + c + 1 for a, b, c in placed):
                placed.append((x, y, r))
                labels[i] = int(rng.choice(among))
                boxes[i] = torch.tensor([x - r, y - r, x + r, y + r]) / SIDE
                _draw(pixels, NAMES[labels[i]], (x, y, r), rng)
                break
    grained = pixels + rng.normal(0, 8, pixels.shape)
    return torch.from_numpy(grained.clip(0, 255).astype(np.uint8)).permute(2, 0, 1), boxes, labels


def _draw(
    pixels: Float[np.ndarray, "s s 3"], name: str, disc: tuple[float, float, float], rng: np.random.Generator
) -> None:
    """One disc, whose pattern begins anywhere."""
    (colour, pattern), (x, y, r) = name.split(), disc
    fill = np.clip(np.array(COLOURS[colour]) + rng.uniform(-25, 25, 3), 0, 255)
    down, across = np.mgrid[:SIDE, :SIDE]
    rows, columns = ((place + rng.integers(4)) // 2 % 2 == 1 for place in (down, across))
    dark = {"plain": rows & False, "striped": rows, "barred": columns, "checked": rows ^ columns}[pattern]
    inside = (across + 0.5 - x) ** 2 + (down + 0.5 - y) ** 2 <= r * r
    pixels[inside] = np.where(dark[..., None], 0.35 * fill, fill)[inside]


def normalised(pixels: UInt8[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
    return pixels.float() / 127.5 - 1
