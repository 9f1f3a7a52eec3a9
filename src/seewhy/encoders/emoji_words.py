"""What emoji add to the place of sentences among an embedded encoder's pictures; shipped, for adapting.

``python -m seewhy.encoders.emoji_words NotoColorEmoji.ttf emoji-en-US.json`` makes it anew from Noto Color Emoji
(SIL Open Font License 1.1) and the names and keywords of emojilib (MIT). It is used only while the sentence encoder,
the classes' texts and the encoder are those it was made from.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import normalize

from ..storage.output import write_atomic
from ..storage.reading import read_json, read_tensors
from .imagenet_words import imagenet_texts
from .minilm import MINILM_SHA256, load_minilm
from .own_names import whole_numbers
from .text_space import kernel, regress

if TYPE_CHECKING:
    from PIL.Image import Image

    from .embedded import EmbeddedText

FILE = "emoji_words.safetensors"
N_KEYWORDS = 6
"""Of each emoji, beside its name."""
WEIGHT = 0.1
"""Of an emoji's text beside one of a class."""
RIDGE = 0.1
RANK = 64
"""Of what is added: directions in which pictures of emoji differ most."""
MIX = 0.3
"""How much of it is added."""


def made_from() -> str:
    """Digest of what it depends on beside the encoder."""
    return hashlib.sha256(repr((MINILM_SHA256, imagenet_texts())).encode()).hexdigest()


@lru_cache(maxsize=1)
def shipped() -> dict[str, Tensor]:
    """All tensors; none where they do not fit."""
    path = Path(str(files(__package__).joinpath(FILE)))
    if not path.is_file():
        return {}
    tensors, facts = read_tensors(path)
    return tensors if facts.get("made_from") == made_from() else {}


def emoji_term(fingerprint: str) -> dict[str, Tensor] | None:
    """``centres`` ``(m, e)``, whole numbers, of which only the direction counts; ``left`` ``(k + m, r)``, ``right``.

    ``None`` for an encoder that none was made for.
    """
    found, key = shipped(), fingerprint[:16]
    if f"{key}.left" not in found:
        return None
    return {
        "centres": found["centres"].float(),
        "left": (MIX * found[f"{key}.left"].float()).half().float(),
        "right": found[f"{key}.right"].float(),
    }


def fit_emoji(
    text: EmbeddedText,
    classes: tuple[Float[Tensor, "c d"], Float[Tensor, "c e"]],
    pictures: Float[Tensor, "n d"],
    vectors: Float[Tensor, "n t e"],
) -> dict[str, Tensor]:
    """The regression on classes and emoji together, less that on classes alone, where emoji differ most."""
    centres = whole_numbers(normalize(vectors.mean(1), dim=1))
    among = torch.cat([text.space.centres, normalize(centres, dim=1)])
    targets = normalize(pictures - pictures.mean(0), dim=1).double()
    right = torch.linalg.svd(targets, full_matrices=False).Vh[:RANK]
    rows = torch.cat([classes[0].double(), targets.repeat_interleave(vectors.shape[1], 0)]) @ right.T
    weights = torch.ones(len(rows), dtype=torch.float64)
    weights[len(classes[0]) :] = WEIGHT
    seen = kernel(torch.cat([classes[1], vectors.flatten(0, 1)]), among, text.space.width)
    left = regress(seen, kernel(among, among, text.space.width), rows, weights, RIDGE)
    left[: len(text.space.centres)] -= text.refit()["coefficients"].double() @ right.T
    return {"centres": centres, "left": left, "right": right}


def draw(font: Path, characters: Sequence[str]) -> dict[str, Image]:
    """Emoji on white, 160 pixels wide, in the one size that the font has; those that are no single picture left out."""
    from PIL import Image, ImageDraw, ImageFont

    face, drawn = ImageFont.truetype(str(font), 109), {}
    for one in characters:
        left, top, right, bottom = face.getbbox(one)
        if right - left > 200:
            continue
        drawn[one] = Image.new("RGB", (160, 160), "white")
        place = (12 - left + (136 - (right - left)) // 2, 16 - top + (128 - (bottom - top)) // 2)
        ImageDraw.Draw(drawn[one]).text(place, one, font=face, embedded_color=True)
    return drawn


def main(font: str, keywords: str) -> None:
    from .embedded import SOURCES, EmbeddedText, load
    from .stream import Encoded, encode_stream

    said = {one: [w.replace("_", " ") for w in words] for one, words in read_json(Path(keywords)).items()}
    drawn = draw(Path(font), list(said))
    texts = [text for one in drawn for text in (said[one][0], ", ".join(said[one][:N_KEYWORDS]))]
    embed = load_minilm().encode
    vectors = embed(texts).unflatten(0, (len(drawn), 2))
    of_classes = embed([text for several in imagenet_texts() for text in several])
    found: dict[str, Tensor] = {}
    for name in SOURCES:
        on = load(name)
        seen = [one for one in encode_stream(on, list(drawn.values())) if isinstance(one, Encoded)]
        text = cast(EmbeddedText, on.text)
        own = fit_emoji(
            text,
            (normalize(text.class_rows(), dim=1), of_classes),
            torch.stack([one.pooled[0] for one in seen]),
            vectors,
        )
        found["centres"] = own["centres"].to(torch.int8)
        found |= {f"{on.fingerprint[:16]}.{side}": own[side].half().contiguous() for side in ("left", "right")}
    write_atomic(Path(str(files(__package__).joinpath(FILE))), save(found, {"made_from": made_from()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
