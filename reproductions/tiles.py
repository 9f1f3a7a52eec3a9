"""Tiles with a thing and tiles without it, cut from annotated pictures: a two-class task whose evidence is known.

A tile is cut at random, so that the middle of it is no better guess than elsewhere. What is compared with a map is the
part of the annotation inside what the network sees of the tile.
"""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from seewhy.types import Transform

TRIES = 300
LABELS = ("with", "without")


@dataclass(frozen=True)
class Annotated:
    """A picture and where the thing is on it."""

    file: Path
    mask: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Cut:
    """How tiles are cut.

    Attributes:
        side: of a tile, in pixels of the picture.
        smallest, largest: part of the visible tile that the thing takes up.
        n: tiles with and tiles without, a picture.
    """

    side: int
    smallest: float
    largest: float
    n: int = 2


def bccd(folder: Path, thing: str) -> list[Annotated]:
    """Blood-cell micrographs with VOC boxes; ``thing`` is WBC, RBC or Platelets."""
    found = []
    for file in sorted((folder / "annotations").glob("*.xml")):
        root = ElementTree.parse(file).getroot()
        picture = folder / "images" / f"{file.stem}.jpg"
        with Image.open(picture) as image:
            mask = np.zeros((image.height, image.width), bool)
        for box in (o.find("bndbox") for o in root.iter("object") if o.findtext("name") == thing):
            assert box is not None
            left, top, right, bottom = (int(box.findtext(k, "0")) for k in ("xmin", "ymin", "xmax", "ymax"))
            mask[top:bottom, left:right] = True
        found.append(Annotated(picture, mask))
    return found


def camvid(folder: Path, label: int) -> list[Annotated]:
    """Street scenes with a label a pixel; 8 is Car."""
    found = []
    for file in sorted((folder / "labels").iterdir()):
        with Image.open(file) as image:
            mask = np.asarray(image) == label
        found.append(Annotated(next((folder / "images").glob(f"{file.stem}.*")), mask))
    return found


def write_tiles(
    pictures: list[Annotated], cut: Cut, transform: Transform, folder: Path, seed: int
) -> dict[Path, tuple[int, Bool[Tensor, "h w"]]]:
    """Class folders of tiles; of each tile with the thing, the picture's number and the mask as the network sees it."""
    assert isinstance(transform.resize, int)
    seen, margin = transform.input_size[0], (transform.resize - transform.input_size[0]) // 2
    found = {}
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    for number, one in enumerate(pictures):
        with Image.open(one.file) as opened:
            image = opened.convert("RGB")
        for label in LABELS:
            for i, (left, top) in enumerate(_places(one.mask, cut, label, margin / transform.resize, seed + number)):
                box = (left, top, left + cut.side, top + cut.side)
                size = (transform.resize, transform.resize)
                path = folder / label / f"{one.file.stem}-{i}.png"
                image.crop(box).resize(size, Image.Resampling.BICUBIC).save(path)
                mask = Image.fromarray(one.mask).crop(box).resize(size, Image.Resampling.NEAREST)
                inside = np.asarray(mask)[margin : margin + seen, margin : margin + seen]
                if label == "with":
                    found[path] = (number, torch.from_numpy(inside.copy()))
    return found


def _places(mask: Bool[np.ndarray, "h w"], cut: Cut, label: str, border: float, seed: int) -> Iterator[tuple[int, int]]:
    """Corners of tiles of a class, fewer than ``cut.n`` where the picture has no room for them."""
    draw, rim, n = random.Random(f"{label} {seed}"), round(border * cut.side), 0
    for _ in range(TRIES):
        left, top = draw.randint(0, mask.shape[1] - cut.side), draw.randint(0, mask.shape[0] - cut.side)
        tile = mask[top : top + cut.side, left : left + cut.side]
        share = tile[rim : cut.side - rim, rim : cut.side - rim].mean()
        if (cut.smallest <= share <= cut.largest) if label == "with" else not tile.any():
            n += 1
            yield left, top
        if n == cut.n:
            return
