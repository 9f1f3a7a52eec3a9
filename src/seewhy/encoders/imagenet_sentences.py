"""Sentence vectors of the ImageNet classes' texts, shipped so that the first run need not encode five thousand texts.

``python -m seewhy.encoders.imagenet_sentences`` writes them anew. They are used only while the texts and the sentence
encoder are the ones they were made from; otherwise the texts are encoded again.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import normalize

from ..storage.output import write_atomic
from .imagenet_words import imagenet_descriptions, imagenet_texts
from .minilm import MINILM_SHA256, load_minilm
from .text_space import class_centres

FILE = "imagenet_sentences.safetensors"


def made_from() -> str:
    """Digest of everything the vectors depend on."""
    return hashlib.sha256(repr((MINILM_SHA256, imagenet_texts(), imagenet_descriptions())).encode()).hexdigest()


@lru_cache(maxsize=1)
def shipped() -> dict[str, Tensor] | None:
    """``centres`` ``(1000, 384)`` and ``glosses`` ``(n, 384)``, of unit length; ``None`` where they do not fit."""
    path = Path(str(files(__package__).joinpath(FILE)))
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("made_from") != made_from():
            return None
        return {name: normalize(file.get_tensor(name).float(), dim=1) for name in ("centres", "glosses")}


def encoded() -> dict[str, Tensor]:
    """The same, encoded now."""
    embed = load_minilm().encode
    glosses = [text for texts in imagenet_descriptions().values() for text in texts]
    return {"centres": class_centres(imagenet_texts(), embed), "glosses": embed(glosses)}


def sentences() -> dict[str, Float[Tensor, "n 384"]]:
    """Vectors of the classes and of their glosses, shipped or encoded now."""
    return shipped() or encoded()


def main() -> None:
    halves = {name: vectors.to(torch.float16).contiguous() for name, vectors in encoded().items()}
    write_atomic(Path(str(files(__package__).joinpath(FILE))), save(halves, {"made_from": made_from()}))


if __name__ == "__main__":
    main()
