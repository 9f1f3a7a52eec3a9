"""What GPT4Image (arXiv 2306.00693) trains: a classifier and, beside it, a projection towards the texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from ...encoders.base import Encoder
from ...encoders.stream import encode_texts
from ...objectives.gpt4image import GPT4Image as Alignment
from ...objectives.gpt4image import recall
from ...storage.cache import cache_dir
from ...storage.folders import write_by
from ...training.batches import Batch
from ...training.task import Task
from ..backbone import Predictor

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


class Student(Task):
    """A classifier, and beside it a projection towards the texts: ``loss = CE + lam alignment``.

    Without ``"texts"`` in a batch the classes alone are learnt; with them it is watched how many features find their
    own text in the batch.

    Args:
        predictor: which alone is used when predicting.
        projection: features → the space of the texts.
        pretrained: whether the predictor comes from a trained network: its normalisation then stays as it was.
        alignment: of features and texts.
        label_smoothing: of the cross entropy.
    """

    needs: ClassVar[tuple[str, ...]] = ("pixels", "labels")

    def __init__(
        self,
        predictor: Predictor,
        projection: nn.Module,
        pretrained: bool,
        alignment: Alignment,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.projection = projection
        self.pretrained = pretrained
        self.alignment = alignment
        self.label_smoothing = label_smoothing
        self.requires_grad_(True)

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """Logits, and features in the space of the texts."""
        own = self.predictor
        if self.pretrained:
            own.eval()
        pooled = own.pool(own.trunk(batch["pixels"]))
        return linear(own.feature(pooled), own.weight, own.bias), self.projection(pooled)

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        logits, projected = features
        by_class = cross_entropy(logits, batch["labels"], label_smoothing=self.label_smoothing)
        if "texts" not in batch.columns:
            return {"loss": by_class, "ce": by_class}
        by_text = self.alignment(projected, batch["texts"])
        found = torch.tensor(recall(projected.detach(), batch["texts"]))
        return {"loss": by_class + self.alignment.lam * by_text, "ce": by_class, "text": by_text, "recall": found}
