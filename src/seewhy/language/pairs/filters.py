"""Rules that filter image-text pairs: those of ALIGN (Jia et al. 2021, arXiv:2102.05918, section 3.1) and others."""

from __future__ import annotations

import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
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
from ...registry import Registry
from ...storage.features import FeatureStore
from ...types import Failure, Transform

ALIGN = "Jia et al. 2021, arXiv:2102.05918"
OURS = "SeeWhy"
_GLANCE = Transform((32, 32), (32, 32), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Glance:
    """The size and digest of a picture's file, or the reason why it cannot be read."""

    size: tuple[int, int] | None
    digest: str
    fault: str = ""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Image-text pairs with properties that are computed when first used."""

    samples: Samples
    encoder: Encoder | None = None
    store: FeatureStore | None = None
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def pairs(self) -> tuple[tuple[int, str], ...]:
        """The index of the picture and the text of each pair."""
        return tuple((i, text) for i, sample in enumerate(self.samples.items) for text in sample.texts)

    @cached_property
    def glances(self) -> tuple[Glance, ...]:
        """The file properties of every picture."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            seen = pool.map(_glance, self.samples.items)
            return tuple(self.progress.track(seen, "Reading pictures", len(self.samples)))

    @cached_property
    def vectors(self) -> tuple[Float[Tensor, "p d"], Float[Tensor, "n d"]]:
        """Unit vectors of every picture and of every pair's text; zeros for an unreadable picture."""
        encoder = self.encoder
        assert isinstance(encoder, Encoder)
        stream = encode_stream(encoder, [s.source for s in self.samples.items], store=self.store)
        texts = encode_texts(encoder, [text for _, text in self.pairs], self.store)
        pictures = torch.zeros(len(self.samples), texts.shape[1])
        for row, looked in zip(
            pictures, self.progress.track(stream, "Looking at pictures", len(self.samples)), strict=True
        ):
            if not isinstance(looked, Failure):
                with torch.no_grad():
                    row[:] = normalize(encoder.text.project(looked.pooled[:1]), dim=1)[0]
        return pictures, texts


def _glance(sample: Sample) -> Glance:
    try:
        picture = read_picture(sample.source, _GLANCE)
    except ImageError as error:
        return Glance(None, "", error.reason)
    return Glance(picture.original_size, picture.digest)


class Rule(ABC):
    """A rule that removes pairs."""

    name: ClassVar[str]
    paper: ClassVar[str] = OURS
    needs: ClassVar[str] = "texts"
    """What the rule reads: ``texts``, ``pictures`` (files) or ``an encoder``."""

    @abstractmethod
    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        """Yield the indices in ``corpus.pairs`` that break the rule, in order, with reasons."""


rules: Registry[Rule] = Registry("rule", __name__, (), is_listed=False)


def folded(text: str) -> str:
    """Normalise the case, width and spaces of a text."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class _OfPictures(Rule):
    """A rule that depends on the picture only."""

    needs = "pictures"

    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        reasons = [self.reason(glance) for glance in corpus.glances]
        yield from ((i, reasons[picture]) for i, (picture, _) in enumerate(corpus.pairs) if reasons[picture])

    @abstractmethod
    def reason(self, glance: Glance) -> str:
        """Return the reason why a picture breaks the rule, or an empty text."""


def words_of(text: str) -> list[str]:
    """Return the case-folded words of a text."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.casefold())


@rules.register
@dataclass(frozen=True)
class Unreadable(_OfPictures):
    """Remove pairs whose picture is missing or unreadable."""

    name = "unreadable"

    def reason(self, glance: Glance) -> str:
        return glance.fault


@rules.register
@dataclass(frozen=True)
class SmallPicture(_OfPictures):
    """Remove pairs whose picture has a shorter side of at most ``more_than`` pixels."""

    more_than: int = 200
    name = "small_picture"
    paper = ALIGN

    def reason(self, glance: Glance) -> str:
        small = glance.size is not None and min(glance.size) <= self.more_than
        return f"is {glance.size[0]} x {glance.size[1]} pixels" if small and glance.size else ""


@rules.register
@dataclass(frozen=True)
class Elongated(_OfPictures):
    """Remove pairs whose picture has an aspect ratio of ``less_than`` or more."""

    less_than: float = 3.0
    name = "elongated"
    paper = ALIGN

    def reason(self, glance: Glance) -> str:
        ratio = max(glance.size) / min(glance.size) if glance.size else 0.0
        return f"is {ratio:.1f} times as long as it is wide" if ratio >= self.less_than else ""


@rules.register
@dataclass(frozen=True)
class Copy(Rule):
    """Remove pairs whose picture is an exact copy of an earlier one."""

    name = "copy"
    needs = "pictures"

    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        first: dict[str, int] = {}
        for i, glance in enumerate(corpus.glances):
            if glance.digest:
                first.setdefault(glance.digest, i)
        for i, (picture, _) in enumerate(corpus.pairs):
            earlier = first.get(corpus.glances[picture].digest, picture)
            if earlier != picture:
                yield i, f"is the same picture as {corpus.samples.items[earlier].image}"


@rules.register
@dataclass(frozen=True)
class ManyTexts(Rule):
    """Remove pairs whose picture has more than ``most`` texts."""

    most: int = 1000
    name = "many_texts"
    paper = ALIGN

    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        counts = Counter(picture for picture, _ in corpus.pairs)
        many = {picture: n for picture, n in counts.items() if n > self.most}
        yield from ((i, f"has {many[p]} texts") for i, (p, _) in enumerate(corpus.pairs) if p in many)


@rules.register
@dataclass(frozen=True)
class SharedText(Rule):
    """Remove pairs whose text belongs to more than ``most`` pictures, such as "img 1920x1080"."""

    most: int = 10
    name = "shared_text"
    paper = ALIGN

    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        of: dict[str, set[int]] = defaultdict(set)
        for picture, text in corpus.pairs:
            of[folded(text)].add(picture)
        for i, (_, text) in enumerate(corpus.pairs):
            if (n := len(of[folded(text)])) > self.most:
                yield i, f"is the text of {n} pictures"


@rules.register
@dataclass(frozen=True)
class RepeatedText(Rule):
    """Remove pairs that repeat a text of the same picture."""

    name = "repeated_text"

    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        said: set[tuple[int, str]] = set()
        for i, (picture, text) in enumerate(corpus.pairs):
            if (pair := (picture, folded(text))) in said:
                yield i, "occurs twice for this picture"
            said.add(pair)


@rules.register
@dataclass(frozen=True)
class TooShort(Rule):
    """Remove pairs whose text has fewer than ``least`` words."""

    least: int = 3
    name = "too_short"
    paper = ALIGN

    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        counts = (len(words_of(text)) for _, text in corpus.pairs)
        yield from ((i, f"has {n} word{'s' * (n != 1)}") for i, n in enumerate(counts) if n < self.least)


@rules.register
@dataclass(frozen=True)
class TooLong(Rule):
    """Remove pairs whose text has more than ``most`` words."""

    most: int = 20
    name = "too_long"
    paper = ALIGN

    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        counts = (len(words_of(text)) for _, text in corpus.pairs)
        yield from ((i, f"has {n} words") for i, n in enumerate(counts) if n > self.most)


@rules.register
@dataclass(frozen=True)
class WrongScript(Rule):
    """Remove pairs if less than a fraction ``part`` of the letters of the text is in the Unicode script ``script``."""

    script: str = ""
    part: float = 0.5
    name = "wrong_script"

    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        letters = ([c for c in text if c.isalpha()] for _, text in corpus.pairs)
        # The first word of a letter's Unicode name is its script.
        counts = [Counter(unicodedata.name(c, "UNKNOWN").partition(" ")[0] for c in own) for own in letters]
        usual = Counter(c.most_common(1)[0][0] for c in counts if c)
        if not usual:
            return
        wanted = self.script.upper() or usual.most_common(1)[0][0]
        for i, mine in enumerate(counts):
            if mine and mine[wanted] < self.part * mine.total():
                yield i, f"is written in {mine.most_common(1)[0][0]}, not in {wanted}"


@rules.register
@dataclass(frozen=True)
class PoorMatch(Rule):
    """Remove pairs whose text matches the picture worse than other texts do.

    The score of picture ``i`` and text ``j`` is

        z = (s_ij - mean_k s_ik) / std_k s_ik

    where ``s_ij`` is the cosine similarity of picture ``i`` and text ``j``, and ``k`` runs over a fixed random sample
    of texts of other pictures. For these sampled texts, ``z`` has mean 0 and standard deviation 1. The default limit
    removes a text if about two thirds of the sampled texts match the picture better.
    """

    least: float = -0.5
    n_others: int = 256
    seed: int = 0
    name = "poor_match"
    needs = "an encoder"

    def broken(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        pictures, texts = corpus.vectors
        owner = torch.tensor([picture for picture, _ in corpus.pairs])
        drawn = torch.randperm(len(texts), generator=torch.Generator().manual_seed(self.seed))[: self.n_others]
        scores = pictures @ texts[drawn].T
        others = owner[drawn] != torch.arange(len(pictures))[:, None]
        n = others.sum(1).clamp(min=1)
        mean = (scores * others).sum(1) / n
        std = (((scores - mean[:, None]) ** 2 * others).sum(1) / n).sqrt().clamp(min=1e-6)
        own = (pictures[owner] * texts).sum(1)
        z = (own - mean[owner]) / std[owner]
        for i in ((z < self.least) & (pictures.norm(dim=1)[owner] > 0)).nonzero()[:, 0].tolist():
            yield i, f"fits its picture worse than texts of other pictures do (z = {z[i]:.1f})"
