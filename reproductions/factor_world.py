"""A drawn world of six known factors. Instructions are composed of words: one left out has parts that are taught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from instructed_world import COLOURS, SHAPES, Table, figure
from PIL import Image, ImageDraw

GROUNDS = {"white": (225, 225, 225), "grey": (140, 140, 140), "black": (35, 35, 35), "brown": (120, 80, 50)}
PATTERNS = ("plain", "striped", "dotted")
WORDINGS = (
    "the {q} of the {t}", "what {q} is the {t}?", "the {t}'s {q}", "which {q} does the {t} have?",
    "name the {q} of the {t}", "the {t}: its {q}", "tell the {q} of the {t}", "of which {q} is the {t}?",
    "the {t} and its {q}",
)  # fmt: skip
"""The first six are taught, the others are asked alone."""
LEFT, RIGHT, GROUND = "thing on the left", "thing on the right", "background"
PARTS = (
    ("colour", LEFT),
    ("shape", LEFT),
    ("colour", RIGHT),
    ("shape", RIGHT),
    ("colour", GROUND),
    ("pattern", GROUND),
)
FACTORS = {f"{q} of the {t}": tuple(words.format(q=q, t=t) for words in WORDINGS) for q, t in PARTS}
LEFT_OUT = tuple(f"{q} of the {t}" for q, t in (("colour", RIGHT), ("shape", LEFT), ("colour", GROUND)))
"""Of each, what is asked and of which thing are both taught, apart from one another."""
SIDE = 96


def draw_factors(folder: Path, n: int, seed: int) -> Table:
    """Two things side by side on a ground; each of the six factors is drawn alone."""
    folder.mkdir()
    random, paths = np.random.default_rng(seed), []
    answers: dict[str, list[str]] = {name: [] for name in FACTORS}
    for i in range(n):
        ground, pattern = [*GROUNDS][random.integers(4)], PATTERNS[random.integers(3)]
        picture = Image.fromarray(grounded(ground, pattern, random))
        drawn = {f"colour of the {GROUND}": ground, f"pattern of the {GROUND}": pattern}
        for k, thing in enumerate((LEFT, RIGHT)):
            colour, shape = [*COLOURS][random.integers(4)], SHAPES[random.integers(3)]
            corner = (int(random.integers(9, 15)) + 42 * k, int(random.integers(14, 50)))
            figure(ImageDraw.Draw(picture), shape, corner, int(random.integers(26, 32)), colour)
            drawn |= {f"colour of the {thing}": colour, f"shape of the {thing}": shape}
        for name, answer in drawn.items():
            answers[name].append(answer)
        paths.append(folder / f"{i}.png")
        picture.save(paths[-1])
    return paths, answers


def grounded(ground: str, pattern: str, random: np.random.Generator) -> np.ndarray:
    """A ground with noise, the marks of its pattern lighter by 30."""
    y, x = np.mgrid[:SIDE, :SIDE] + random.integers(12, size=2)[:, None, None]
    marks = {"plain": x < 0, "striped": x % 12 < 5, "dotted": (x % 12 - 5) ** 2 + (y % 12 - 5) ** 2 < 10}[pattern]
    noise = random.integers(-8, 9, (SIDE, SIDE, 3))
    return (np.array(GROUNDS[ground]) + 30 * marks[..., None] + noise).clip(0, 255).astype(np.uint8)
