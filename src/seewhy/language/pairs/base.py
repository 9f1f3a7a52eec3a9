"""A rule, and what it is asked about: every pair of a set, with what is known of its picture."""

from __future__ import annotations

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ...encoders.base import Encoder
from ...encoders.stream import encode_stream, encode_texts
from ...errors import ImageError
from ...pictures.images import read_picture
from ...pictures.samples import Sample, Samples
from ...progress import Progress
from ...storage.features import FeatureStore
from ...types import Failure, Transform

_GLANCE = Transform((32, 32), (32, 32), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Glance:
    """What a picture's file says.

    Attributes:
        size: width and height of the upright picture; ``None`` where it cannot be read.
        digest: of its bytes; empty where it cannot be read.
        fault: why it cannot be read; empty where it can.
    """

    size: tuple[int, int] | None
    digest: str
    fault: str = ""


@dataclass(frozen=True, eq=False)
class Corpus:
    """All pairs of a set; what is costly is found once, when a rule asks for it.

    Attributes:
        samples: pictures with texts.
        encoder: scores how well they fit; ``None`` where nobody asks for that.
        store: where what it saw is kept.
        progress: hears of progress.
    """

    samples: Samples
    encoder: Encoder | None = None
    store: FeatureStore | None = None
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def pairs(self) -> tuple[tuple[int, str], ...]:
        """Which picture, which text."""
        return tuple((i, text) for i, sample in enumerate(self.samples.items) for text in sample.texts)

    @cached_property
    def glances(self) -> tuple[Glance, ...]:
        """Of every picture, each read once."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            seen = pool.map(_glance, self.samples.items)
            return tuple(self.progress.track(seen, "Reading pictures", len(self.samples)))

    @cached_property
    def vectors(self) -> tuple[Float[Tensor, "p d"], Float[Tensor, "n d"]]:
        """Of every picture and of every pair's text, of unit length; zeros where a picture cannot be read."""
        encoder = self.encoder
        assert isinstance(encoder, Encoder)
        stream = encode_stream(encoder, [s.source for s in self.samples.items], store=self.store)
        looked = list(self.progress.track(stream, "Looking", len(self.samples)))
        texts = encode_texts(encoder, [text for _, text in self.pairs], self.store)
        blank = torch.zeros(texts.shape[1])
        with torch.no_grad():
            rows = [
                blank if isinstance(one, Failure) else normalize(encoder.text.project(one.pooled[:1]), dim=1)[0]
                for one in looked
            ]
        return torch.stack(rows), texts


def _glance(sample: Sample) -> Glance:
    try:
        picture = read_picture(sample.source, _GLANCE)
    except ImageError as error:
        return Glance(None, "", error.reason)
    return Glance(picture.original_size, picture.digest)


class Rule(ABC):
    """Names the pairs that are not worth learning from. A frozen dataclass, whose fields are the paper's parameters."""

    name: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str] = "texts"
    """``texts``, ``pictures`` (their files are read) or ``an encoder``."""

    @abstractmethod
    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        """Places in ``corpus.pairs`` that break it, each with the reason; in order, each once."""


def folded(text: str) -> str:
    """A text as a person would compare it: case, width and blanks do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
