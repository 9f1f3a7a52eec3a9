"""Vectors that are shipped, so that the first run need not encode thousands of texts; unused where they do not fit.

``release/shipped_vectors.py`` makes both files anew.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..storage.reading import read_tensors
from .imagenet import imagenet_descriptions, imagenet_texts
from .minilm import MINILM_SHA256, load_minilm
from .text_space import class_centres

SENTENCES, EMOJI = "imagenet_sentences.safetensors", "emoji_words.safetensors"
MIX = 0.3
"""How much of what emoji add is added."""


def place_of(file: str) -> Path:
    return Path(str(files(__package__).joinpath(file)))


def made_from(file: str) -> str:
    """Digest of what a file's vectors depend on, beside the encoder."""
    texts = (MINILM_SHA256, imagenet_texts(), *([imagenet_descriptions()] if file == SENTENCES else []))
    return hashlib.sha256(repr(texts).encode()).hexdigest()


@lru_cache(maxsize=2)
def shipped(file: str) -> dict[str, Tensor]:
    """All tensors of a file; none where they do not fit."""
    if not place_of(file).is_file():
        return {}
    tensors, facts = read_tensors(place_of(file))
    return tensors if facts.get("made_from") == made_from(file) else {}


def encoded() -> dict[str, Tensor]:
    """Vectors of the ImageNet classes ``(1000, 384)`` and of their glosses ``(n, 384)``, encoded now."""
    embed = load_minilm().encode
    glosses = [text for texts in imagenet_descriptions().values() for text in texts]
    return {"centres": class_centres(imagenet_texts(), embed), "glosses": embed(glosses)}


@lru_cache(maxsize=1)
def sentences() -> dict[str, Float[Tensor, "n 384"]]:
    """The same, of unit length, shipped or encoded now."""
    return {name: normalize(t.float(), dim=1) for name, t in shipped(SENTENCES).items()} or encoded()


def emoji_term(fingerprint: str) -> dict[str, Tensor] | None:
    """What emoji add to the place of sentences among an embedded encoder's pictures; ``None`` for any other.

    ``centres`` ``(m, e)``, whole numbers, of which only the direction counts; ``left`` ``(k + m, r)``, ``right``.
    """
    tensors, key = shipped(EMOJI), fingerprint[:16]
    if f"{key}.left" not in tensors:
        return None
    left = (MIX * tensors[f"{key}.left"].float()).half().float()
    return {"centres": tensors["centres"].float(), "left": left, "right": tensors[f"{key}.right"].float()}
