"""Learnt vectors before a class's name: what every way of learning prompts here has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...encoders.base import Encoder, TextTower, TrainableText
from ...encoders.text_tokens import ReadsTokens, TokenEmbeddings, encode_tokens
from ...errors import InputError, ModelError
from ...training.batches import Batch
from ...training.task import Task, classified

N_PARTS = 4
"""In which names are read, the short ones first."""
STD = 0.02
"""Of vectors that begin without words (CoOp's authors)."""


def spoken(name: str) -> str:
    """A class's name as it is read, with blanks where file names have ``_``, as the authors do.

    >>> spoken("sports_car")
    'sports car'
    """
    return name.replace("_", " ").strip()


def opened(on: Encoder) -> TrainableText:
    """The encoder's words half, whose vocabulary vectors of one's own can be put among.

    Raises:
        ModelError: it has none, or none that shows its tokens.
    """
    tower = on.text
    if not isinstance(tower, TrainableText) or not isinstance(tower.module, ReadsTokens):
        raise ModelError(
            f"The text half of {on.name!r} shows no single tokens, and a prompt is learnt among them. The embedded "
            "encoder, or one under 'open_clip:' or 'hf:', was expected. Take one of those."
        )
    return tower


def learning_rate(on: Encoder) -> float:
    """At which prompts are learnt behind this encoder unless another is given: CoOp's, or the tower's own."""
    return float(getattr(on.text, "prompt_lr", 2e-3))


class Names:
    """Classes' names, looked up in the vocabulary once; what follows the name in the encoder's own template follows.

    Names of like length are read together, as padding costs what words cost.

    Args:
        tower: that reads them.
        classes: as they are called.
    """

    def __init__(self, tower: TrainableText, classes: Sequence[str]) -> None:
        self.tower, self.n = tower, len(classes)
        ending = tower.templates[0].partition("{}")[2]
        said = [spoken(name) + ending for name in classes]
        with torch.no_grad():
            lengths = [int(tower.embed(tower.tokens([one])).lengths) for one in said]
            order = sorted(range(self.n), key=lengths.__getitem__)
            cuts = sorted({round(self.n * i / N_PARTS) for i in range(N_PARTS + 1)})
            self.parts = [tower.embed(tower.tokens([said[i] for i in order[a:b]])) for a, b in pairwise(cuts)]
        self.places = torch.tensor(order).argsort()

    @property
    def width(self) -> int:
        """Numbers of a vector before a name."""
        return self.parts[0].vectors.shape[2]

    def read(self, context: Float[Tensor, "*b p w"], words: nn.Module | None = None) -> Float[Tensor, "*b k d"]:
        """Unit vectors of all names behind these vectors; behind each of several where there are several.

        Args:
            context: the vectors.
            words: a view of the tower's network that reads them, where it is not the network itself.
        """
        if context.ndim == 2:
            read = [_read(self.tower, part, context, words) for part in self.parts]
            return torch.cat(read)[self.places]
        b, found = len(context), []
        for e in self.parts:
            k = len(e.ids)
            several = TokenEmbeddings(
                e.vectors.repeat(b, 1, 1), e.ids.repeat(b, 1), e.lengths.repeat(b), e.words.repeat(b, 1), e.sentence
            )
            found.append(_read(self.tower, several, context.repeat_interleave(k, 0), words).unflatten(0, (b, k)))
        return torch.cat(found, 1)[:, self.places]


def _read(
    tower: TrainableText, embeddings: TokenEmbeddings, context: Tensor, words: nn.Module | None
) -> Float[Tensor, "n d"]:
    given = embeddings.with_prefix(context)
    read = tower.encode_tokens(given) if words is None else encode_tokens(words, given)
    return normalize(read.pooled.float(), dim=1)


class Prompt(nn.Module, ABC):
    """Vectors ``v`` that stand before every name: ``[mark, v_1, …, v_M, name, end]``.

    Args:
        vectors: ``v``.
    """

    conditional: ClassVar[bool] = False
    """Whether what is read depends on the picture."""

    def __init__(self, vectors: Float[Tensor, "p w"]) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone())

    @abstractmethod
    def texts(self, names: Names, image: Float[Tensor, "b d"]) -> Float[Tensor, "*b k d"]:
        """Unit vectors of all names, for these pictures."""

    @classmethod
    @abstractmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Self:
        """From its ``state_dict``."""


class CommonPrompt(Prompt):
    """A prompt behind which names are read once, whatever the picture."""

    @abstractmethod
    def read(self, names: Names) -> Float[Tensor, "k d"]:
        """Unit vectors of all names."""

    def texts(self, names: Names, image: Float[Tensor, "b d"]) -> Float[Tensor, "k d"]:
        return self.read(names)


class SharedPrompt(CommonPrompt):
    """The same vectors for every class and every picture (CoOp's unified context)."""

    @classmethod
    def begun(cls, tower: TrainableText, words: str, n_tokens: int) -> Self:
        """With the vectors of words; without words, ``n_tokens`` of torch's random numbers."""
        found = begun(tower, words, n_tokens)
        return cls(found)

    def read(self, names: Names) -> Float[Tensor, "k d"]:
        return names.read(self.vectors)

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Self:
        found = cls(tensors["vectors"].float())
        found.load_state_dict(dict(tensors))
        return found


@torch.no_grad()
def begun(tower: TrainableText, words: str, n_tokens: int) -> Float[Tensor, "p w"]:
    """Vectors that a prompt begins with; see :meth:`SharedPrompt.begun`."""
    e = tower.embed(tower.tokens([words or "a"]))
    longest = e.sentence.longest - e.sentence.opening - e.sentence.closing - 1
    found = e.vectors[0][e.words[0]] if words else STD * torch.randn(n_tokens, e.vectors.shape[2])
    if not 0 < len(found) <= longest:
        raise InputError(
            f"A prompt of {len(found)} vectors was asked for, and the encoder reads {longest} beside a name. From 1 to "
            f"{longest} were expected. Give fewer words, or fewer tokens."
        )
    return found.float()


@torch.no_grad()
def as_it_was(tower: TextTower, names: Sequence[str]) -> Float[Tensor, "k d"]:
    """Names in the encoder's own templates, as zero-shot classification has them."""
    said = [t.replace("{}", spoken(name)) for name in names for t in tower.templates]
    vectors = tower.encode_text(said)
    return normalize(vectors.unflatten(0, (len(names), len(tower.templates))).mean(1), dim=1)


def mixed(now: Float[Tensor, "*b k d"], before: Float[Tensor, "k d"], keep: float) -> Float[Tensor, "*b k d"]:
    """As far from what names were towards what the prompt makes of them as ``keep`` says."""
    if keep in (0.0, 1.0):
        return now if keep else before.expand_as(now)
    return normalize(keep * now + (1 - keep) * before, dim=-1)


def scores(image: Float[Tensor, "b d"], text: Float[Tensor, "*b k d"]) -> Float[Tensor, "b k"]:
    """Cosines of unit vectors; of each picture with texts of its own where there are such."""
    return image @ text.T if text.ndim == 2 else (text @ image[:, :, None])[:, :, 0]


class PromptTask(Task):
    """Pictures find their classes' names behind a prompt: ``CE(scale cos(image, text), label)``.

    Args:
        prompt: what learns.
        names: of the classes, in the labels' order.
        scale: of the cosines.
    """

    needs = ("image", "labels")
    moves = False
    rates: tuple[tuple[str, float], ...] = ()
    """Learning rates of parts, as multiples; see :class:`seewhy.training.loop.Training`."""

    def __init__(self, prompt: Prompt, names: Names, scale: float) -> None:
        super().__init__()
        self.prompt, self.names, self.scale = prompt.requires_grad_(True), names, scale

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch["image"], self.prompt.texts(self.names, batch["image"])

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        return classified(self.scale * scores(*features), batch["labels"])
