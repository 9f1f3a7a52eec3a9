"""Two perceivers talk (Kupeev & Nitzany 2023, arXiv 2310.05212): does their exchange settle?

python reproductions/dialogue.py birds/ other/ photo.jpg --turns 50
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scripts import ended, parser
from torch import Tensor, nn

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.encoders.base import Encoder
from seewhy.errors import InputError
from seewhy.learning.self_explaining.perceptual import PerceptualNetwork, distance, grey
from seewhy.pictures.images import read_picture
from seewhy.pictures.sources import One
from seewhy.report.blocks import Document, Picture, Pictures, closing
from seewhy.studies.study import Findings

STILL = 1 / 255
"""Root mean square over pixels, less than a grey level: the same picture."""
SHOWN = (0, 1, 2, 3, 4, 7, 8, 15, 16)
"""Turns on the page, beside the last two."""


def dialogue(
    first: nn.Module, second: nn.Module, said: Float[Tensor, "b 1 h w"], n: int = 50
) -> Float[Tensor, "t b 1 h w"]:
    """Two perceivers in turn observe what the other has just seen (``orbits.py`` of the authors' code)."""
    pictures = [said]
    for _ in range(n):
        pictures.append(first(pictures[-1]))
        pictures.append(second(pictures[-1]))
    return torch.stack(pictures)


@dataclass(frozen=True, repr=False)
class Talk(Findings):
    """What two perceivers made of each other's pictures; ``data`` is the documented JSON (docs/json.md).

    Attributes:
        pictures: turn → what was seen, grey, uint8 ``(h, w)``; turn 0 is the picture itself.
    """

    pictures: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def sentence(self) -> str:
        """What became of it."""
        d = self.data
        if not d["finite"]:
            return "They talked themselves out of all bounds: what was seen last is no picture."
        if not d["period_two"]:
            moved = 255 * d["moved"]
            return f"They have not come to rest: each still changes its picture by {moved:.1f} grey levels a turn."
        if d["apart"] < STILL:
            return f"They agree: from turn {d['settled_after']} on, both see the same picture."
        return f"They have come to rest: from turn {d['settled_after']} on, each sees one picture of its own."

    def document(self) -> Document:
        grey = {turn: np.repeat(seen[..., None], 3, 2) for turn, seen in self.pictures.items()}
        shown = [
            Picture(seen, f"turn {turn}", (f"turn {turn}" if turn else "the picture",)) for turn, seen in grey.items()
        ]
        return Document("Two perceivers talk", self.sentence, [Pictures(shown, "row"), *closing(self.data)])


@torch.no_grad()
def talk(first: Classifier, second: Classifier, picture: One, n: int = 50) -> Talk:
    """Let two perceivers observe, in turn, what the other has just seen.

    Args:
        first: begins with the picture.
        second: answers.
        picture: a file or pixels.
        n: turns of each.

    Raises:
        InputError: one of them is no perceiver, or they see pictures of different sizes.
        ImageError: the picture cannot be read.
    """
    if n < 2:
        raise InputError(
            f"--turns {n} was given. Expected at least two turns of each perceiver. Use --turns 2 or more."
        )
    networks = [_perceiver(one) for one in (first, second)]
    sides = [network.shape.side for network in networks]
    if sides[0] != sides[1]:
        raise InputError(
            f"The perceivers see {sides[0]} and {sides[1]} pixels. Expected pictures of one size. Fit one of them "
            "again with --set side."
        )
    seen = read_picture(picture, networks[0].shape.transform)
    said = dialogue(networks[0].memory, networks[1].memory, _grey(first.encoder, seen.pixels), n)[:, 0]
    moves = distance(said[2:], said[:-2]).tolist()
    finite = bool(said.isfinite().all())
    rest = next((t for t in range(len(moves)) if max(moves[t:]) < STILL), None) if finite else None
    data: dict[str, Any] = {
        "image": seen.name,
        "turns": 2 * n,
        "finite": finite,
        "period_two": rest is not None,
        "settled_after": rest,
        "moved": round(moves[-1], 6) if finite else None,
        "apart": round(float(distance(said[-1:], said[-2:-1])), 6) if finite else None,
        "moves": [round(m, 6) for m in moves] if finite else [],
        "first": _ends_at(first, networks[0], said[-2:-1]),
        "second": _ends_at(second, networks[1], said[-1:]),
    }
    turns = sorted({t for t in SHOWN if t < 2 * n - 1} | {2 * n - 1, 2 * n})
    return Talk(data, pictures={t: _shown(said[t, 0]) for t in turns})


def _perceiver(classifier: Classifier) -> PerceptualNetwork:
    if not isinstance(classifier.network, PerceptualNetwork):
        raise InputError(
            f"A talk takes two perceivers, and a classifier made by {classifier.recipe} was given. Make one with: "
            "seewhy fit DATA --method perceptual"
        )
    return classifier.network


def _grey(encoder: Encoder, pixels: np.ndarray) -> Float[Tensor, "1 1 h w"]:
    return grey(encoder.pixels([pixels]))


def _ends_at(classifier: Classifier, network: PerceptualNetwork, seen: Float[Tensor, "1 1 h w"]) -> dict[str, Any]:
    """The memorised picture nearest to what it sees in the end, and the class it would give it."""
    far = distance(seen, network.known).nan_to_num(torch.inf)
    index = int(far.argmin())
    return {
        "label": classifier.classes[int(network.judge(seen).nan_to_num(0).argmax())],
        "nearest": {
            "image": network.names[index],
            "label": classifier.classes[int(network.labels[index])],
            "distance": round(float(far[index]), 6) if far[index].isfinite() else None,
        },
    }


def _shown(picture: Float[Tensor, "h w"]) -> np.ndarray:
    return np.rint(picture.nan_to_num(0.5).clamp(0, 1).numpy() * 255).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> Findings:
    """Let two saved perceivers talk about a picture."""
    options = parser(__doc__, None, "first", "second", "picture")
    options.add_argument("--turns", type=int, default=50, help="of each")
    given = options.parse_args(arguments)
    return ended(talk(seewhy.load(given.first), seewhy.load(given.second), given.picture, given.turns), given.out)


if __name__ == "__main__":
    main()
