"""What the FocalLens reproduction asks of pictures: drawn ones, groceries by their names, and what pixels alone say."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": (210, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 210), "yellow": (230, 200, 40)}
SHAPES = ("disc", "square", "triangle")
NAMED = ("light", "green", "red", "yellow", "orange", "brown", "white", "purple", "pink", "black", "blue")
"""Colours looked for in the descriptions of groceries, after the first of which the picture is said to be."""
CARTONS = ("Juice", "Milk", "Oat-Milk", "Sour-Milk", "Soy-Milk")
TUBS = ("Oatghurt", "Soyghurt", "Sour-Cream", "Yoghurt")
GROCERIES = {
    "kind": (
        "the kind of product", "what kind of food is it?", "its kind", "what is it?", "the type of product",
        "what product is it?", "name the product", "product type", "what sort of food is shown?",
    ),
    "colour": (
        "the colour", "what colour is it?", "its colour", "which colour does it have?", "the main colour",
        "in what colour does it come?", "name the colour of this", "colour", "which hue is it?",
    ),
    "packaging": (
        "the packaging", "how is it packed?", "its container", "what is it sold in?", "the package",
        "is it packed or loose?", "name the container", "packaging", "in what does it come?",
    ),
}  # fmt: skip
TWO = {
    f"colour of the {shape}": (
        f"the colour of the {shape}", f"what colour is the {shape}?", f"the {shape}'s colour",
        f"which colour does the {shape} have?", f"the hue of the {shape}", f"name the {shape}'s colour",
        f"is the {shape} red, green, blue or yellow?",
    )
    for shape in SHAPES
}  # fmt: skip
Table = tuple[list[Path], dict[str, list[str]]]


def figure(pen: ImageDraw.ImageDraw, shape: str, corner: tuple[int, int], side: int, colour: str) -> None:
    x, y = corner
    if shape == "disc":
        pen.ellipse((x, y, x + side, y + side), COLOURS[colour])
    elif shape == "square":
        pen.rectangle((x, y, x + side, y + side), COLOURS[colour])
    else:
        pen.polygon([(x, y + side), (x + side, y + side), (x + side // 2, y)], COLOURS[colour])


def draw(folder: Path, n: int, seed: int) -> Path:
    """Drawn pictures of a colour and a shape each, and their table."""
    folder.mkdir()
    random, rows = np.random.default_rng(seed), ["image,colour,shape"]
    for i in range(n):
        colour, shape = [*COLOURS][random.integers(4)], SHAPES[random.integers(3)]
        picture = Image.fromarray(random.integers(200, 256, (96, 96, 3), np.uint8))
        x, y = random.integers(8, 40, 2).tolist()
        figure(ImageDraw.Draw(picture), shape, (x, y), int(random.integers(32, 48)), colour)
        picture.save(folder / f"{i}.png")
        rows.append(f"{i}.png,{colour},{shape}")
    (folder / "table.csv").write_text("\n".join(rows), "utf-8")
    return folder / "table.csv"


def draw_two(folder: Path, n: int, seed: int) -> tuple[Table, dict[str, list[str]]]:
    """Pictures of two things side by side, of two colours and two shapes; the colour of each, and where each is."""
    folder.mkdir()
    random, paths = np.random.default_rng(seed), []
    answers: dict[str, list[str]] = {name: [] for name in TWO}
    sides: dict[str, list[str]] = {name: [] for name in TWO}
    for i in range(n):
        colours, shapes = random.permutation([*COLOURS])[:2], random.permutation(SHAPES)[:2]
        picture = Image.fromarray(random.integers(200, 256, (224, 224, 3), np.uint8))
        for k, (colour, shape) in enumerate(zip(colours, shapes, strict=True)):
            corner = (int(random.integers(8, 28)) + 112 * k, int(random.integers(16, 128)))
            figure(ImageDraw.Draw(picture), str(shape), corner, int(random.integers(56, 76)), str(colour))
        for name in TWO:
            k = next((k for k, shape in enumerate(shapes) if name.endswith(shape)), None)
            answers[name].append("" if k is None else str(colours[k]))
            sides[name].append("" if k is None else ("left", "right")[k])
        paths.append(folder / f"{i}.png")
        picture.save(paths[-1])
    return (paths, answers), sides


def asked_of_groceries(folder: Path, part: str) -> Table:
    """Kind, colour and packaging of photographs of groceries, by the names and descriptions of their classes."""
    with open(folder / "classes.csv", encoding="utf-8", newline="") as file:
        classes = {row["class"]: row for row in csv.DictReader(file)}
    paths = sorted(path for path in (folder / part).rglob("*.*") if path.parent.name in classes)
    rows = [classes[path.parent.name] for path in paths]
    kinds = [row["coarse_class"] for row in rows]
    packed = ["a carton" if kind in CARTONS else "a tub" if kind in TUBS else "loose" for kind in kinds]
    return paths, {
        "kind": [kind.replace("-", " ").lower() for kind in kinds],
        "colour": [colour_of(f"{row['class']} {row['description']}") for row in rows],
        "packaging": packed,
    }


def colour_of(text: str) -> str:
    """The first colour that a text names, or nothing.

    >>> colour_of("a yellow-white pulp"), colour_of("crispy")
    ('yellow', '')
    """
    found = re.findall("|".join(NAMED[1:]), text.lower())
    return found[0] if found else ""


def without_labels(paths: Sequence[Path]) -> dict[str, list[str]]:
    """What pixels alone say of things on a white ground, each in thirds of these pictures."""
    found: list[Any] = []
    for path in paths:
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((96, 96))
        pixels = np.asarray(picture, float) / 255
        thing = pixels.min(2) < 0.92
        thing = thing if thing.sum() >= 20 else np.ones_like(thing)
        inside, (y, x) = pixels[thing], np.where(thing)
        colourful = (inside.max(1) - inside.min(1)).mean()
        found.append((inside.mean(), colourful, (np.ptp(y) + 1) / (np.ptp(x) + 1), thing.mean()))
    values = np.array(found)
    words = {
        "light": ("dark", "medium light", "light"),
        "vivid": ("grey", "pale", "vivid"),
        "tall": ("wide", "square", "tall"),
        "large": ("small", "medium sized", "large"),
    }
    cuts = np.quantile(values, [1 / 3, 2 / 3], axis=0)
    return {
        name: [said[int((v > cuts[:, j]).sum())] for v in values[:, j]] for j, (name, said) in enumerate(words.items())
    }
