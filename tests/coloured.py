"""Worlds of plain colours: what is where is known, and an encoder whose cells are colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord
from tiny import Channels, HashedWords, build

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
NAMES = tuple(COLOURS)


def colours(words: str = "red green blue") -> Encoder:
    """Cells are their mean colour, and each word is one."""
    # Whatever is no colour is grey.
    planted = {word: torch.eye(3)[i] for i, word in enumerate(words.split())} | {"": torch.ones(3)}
    text: Any = HashedWords(3, planted)
    text.fingerprint = f"colours {words}"
    text.project = lambda pooled: pooled + 0.5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(Channels(), GlobalAverage(), Layout(), 3, text=text)


def picture(width: int = 96, height: int = 64) -> np.ndarray:
    """Red on the left, green on the right, blue below."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = COLOURS["red"], COLOURS["green"]
    pixels[height * 3 // 4 :] = COLOURS["blue"]
    return pixels


def masked(root: Path, n: int = 6, *, noise: int = 0) -> Path:
    """Pictures of three colours in stripes of random widths, and their masks."""
    rng = np.random.default_rng(7)
    for place in ("images", "labels"):
        (root / place).mkdir(parents=True)
    for i in range(n):
        order, cut = rng.permutation(3), sorted(rng.choice(np.arange(8, 56, 8), 2, replace=False))
        mask = np.full((48, 64), order[2], np.uint8)
        mask[:, : cut[0]], mask[:, cut[0] : cut[1]] = order[0], order[1]
        pixels = np.array(list(COLOURS.values()), np.int16)[mask] + rng.integers(-noise, noise + 1, (48, 64, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "labels" / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def squares(folder: Path, n: int = 12, seed: int = 0) -> BoxData:
    """Squares of two colours on grey noise."""
    rng, pictures = np.random.default_rng(seed), []
    folder.mkdir(exist_ok=True)
    for i in range(n):
        pixels = rng.integers(90, 150, (64, 64, 3), np.uint8)
        boxes = []
        for half, label in enumerate(rng.permutation(["red", "blue"])):
            side = int(rng.integers(14, 24))
            left, top = 32 * half + int(rng.integers(0, 32 - side)), int(rng.integers(0, 64 - side))
            pixels[top : top + side, left : left + side] = COLOURS[label]
            boxes.append(BoxRecord((left, top, left + side, top + side), str(label)))
        Image.fromarray(pixels).save(folder / f"{i}.png")
        pictures.append(BoxedPicture(str(folder / f"{i}.png"), (64, 64), tuple(boxes)))
    return BoxData(tuple(pictures), ("red", "blue"))
