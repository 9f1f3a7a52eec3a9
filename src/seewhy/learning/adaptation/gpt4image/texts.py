"""Vectors of the texts about pictures, however many there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ....encoders.base import Encoder
from ....encoders.stream import encode_texts
from ....storage.cache import cache_dir
from ....storage.folders import write_by

IN_MEMORY = 2**28
"""Bytes of text vectors up to which they stay in memory; ImageNet's, 1,024 numbers each, are twenty times as many."""
CHUNK = 1024
"""Texts encoded between two writes to the disk."""


class TextVectors:
    """One vector a picture; in memory, or read from a file in the cache where there are many.

    Args:
        encoder: whose text half encodes.
        texts: one a picture, in the pictures' order.
        in_memory: bytes up to which no file is used.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str], in_memory: int = IN_MEMORY) -> None:
        self.width = encoder.encode_text(texts[:1]).shape[1]
        shape = (len(texts), self.width)
        if 4 * shape[0] * shape[1] <= in_memory:
            self.path: Path | None = None
            self._rows: np.ndarray = _encoded(encoder, texts, np.empty(shape, np.float32))
            return
        said = json.dumps([encoder.text.fingerprint, list(texts)]).encode()
        self.path = cache_dir("captions") / f"{hashlib.sha256(said).hexdigest()[:32]}.npy"
        if not self.path.exists():

            def make(part: Path) -> None:
                rows = np.lib.format.open_memmap(part, "w+", np.float32, shape)
                _encoded(encoder, texts, rows)
                rows.flush()

            write_by(self.path, make)
        self._rows = np.load(self.path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Sequence[int]) -> Float[Tensor, "b d"]:
        """The vectors of these pictures."""
        return torch.from_numpy(np.array(self._rows[list(index)]))


def _encoded(encoder: Encoder, texts: Sequence[str], into: np.ndarray) -> np.ndarray:
    for start in range(0, len(texts), CHUNK):
        part = texts[start : start + CHUNK]
        distinct = list(dict.fromkeys(part))
        place = {text: i for i, text in enumerate(distinct)}
        vectors = encode_texts(encoder, distinct)
        into[start : start + len(part)] = vectors[[place[text] for text in part]].numpy()
    return into
