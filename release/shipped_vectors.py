"""Make anew what is shipped beside the embedded encoders: vectors of ImageNet's texts, and what emoji add.

``python release/shipped_vectors.py NotoColorEmoji.ttf emoji-en-US.json`` needs Noto Color Emoji (SIL Open Font License
1.1) and the names and keywords of emojilib (MIT); without them, the vectors of ImageNet's texts alone are made.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.encoders.embedded import (
    EMOJI,
    SENTENCES,
    SOURCES,
    EmbeddedText,
    encoded,
    kernel,
    load,
    made_from,
    place_of,
    regress,
)
from seewhy.encoders.minilm import load_minilm
from seewhy.encoders.names import imagenet_texts, whole_numbers
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.storage.reading import read_json

N_KEYWORDS = 6
"""Of each emoji, beside its name."""
WEIGHT = 0.1
"""Of an emoji's text beside one of a class."""
RIDGE = 0.1
RANK = 64
"""Of what is added: directions in which pictures of emoji differ most."""


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


def draw(font: Path, characters: Sequence[str]) -> dict[str, Image.Image]:
    """Emoji on white, 160 pixels wide, in the one size that the font has; those that are no single picture left out."""
    face, drawn = ImageFont.truetype(str(font), 109), {}
    for one in characters:
        left, top, right, bottom = face.getbbox(one)
        if right - left > 200:
            continue
        drawn[one] = Image.new("RGB", (160, 160), "white")
        place = (12 - left + (136 - (right - left)) // 2, 16 - top + (128 - (bottom - top)) // 2)
        ImageDraw.Draw(drawn[one]).text(place, one, font=face, embedded_color=True)
    return drawn


def emoji(font: str, keywords: str) -> dict[str, Tensor]:
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
    return found


def write(file: str, tensors: dict[str, Tensor]) -> None:
    place_of(file).write_bytes(save(tensors, {"made_from": made_from(file)}))


if __name__ == "__main__":
    write(SENTENCES, {name: vectors.to(torch.float16).contiguous() for name, vectors in encoded().items()})
    if len(sys.argv) > 2:
        write(EMOJI, emoji(*sys.argv[1:]))
