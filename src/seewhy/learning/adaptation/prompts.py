"""Learnt vectors before class names, and encoders that use them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...classifiers.base import Classifier
from ...classifiers.network import Network
from ...classifiers.unfitted import ZeroShot
from ...encoders.base import Encoder, TextTower, TrainableText
from ...encoders.split import freeze, weights_digest
from ...encoders.text_tokens import ReadsTokens, TokenEmbeddings, encode_tokens
from ...errors import InputError, ModelError
from ...progress import Progress
from ...results import Doc, Share
from ...training.batches import Batch
from ...training.task import Task, classified
from ..encoders.adapted import Keep, Named
from ..encoders.delta import seeing_the_same

N_PARTS = 4
"""Number of batches into which names are split by length."""
BATCH = 64
STD = 0.02
"""Standard deviation of random initial vectors (CoOp's authors)."""


def spoken(name: str) -> str:
    """Return a class name with spaces instead of underscores, as the text encoder gets it."""
    return name.replace("_", " ").strip()


def _alike(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def other_names(names: Iterable[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct names that are not among the classes; case, hyphens and underscores make no difference.

    >>> other_names(["heron", "Heron", "grey-heron", "grey_heron"], ["wren"])
    ('heron', 'grey-heron')
    """
    own, found = {_alike(name): name for name in classes}, dict[str, str]()
    for name in names:
        if (same := own.get(_alike(name))) is not None:
            other = "" if same == name else f" (class {same!r})"
            raise InputError(
                f"`new_names` must not contain classes with pictures, got {name!r}{other}. Remove this name."
            )
        found.setdefault(_alike(name), name)
    return tuple(found.values())


def opened(on: Encoder) -> TrainableText:
    """Return the text encoder, after a check that learnt vectors can be inserted between its tokens."""
    tower = on.text
    if not isinstance(tower, TrainableText) or not isinstance(tower.module, ReadsTokens):
        raise ModelError(
            f"The text encoder of {on.name!r} does not accept learnt prompts. Use the embedded encoder, or one whose "
            "name begins with 'open_clip:' or 'hf:'."
        )
    return tower


class Names:
    """Tokenised class names, each with the end of the encoder's template, in batches of equal length."""

    def __init__(self, tower: TrainableText, classes: Sequence[str]) -> None:
        self.tower, self.n = tower, len(classes)
        ending = tower.templates[0].partition("{}")[2]
        said = [spoken(name) + ending for name in classes]
        with torch.no_grad():
            lengths = [int(tower.embed(tower.tokens([one])).lengths) for one in said]
            order = sorted(range(self.n), key=lengths.__getitem__)
            cuts = sorted({round(self.n * i / N_PARTS) for i in range(N_PARTS + 1)})
            self.parts = [tower.embed(tower.tokens([said[i] for i in order[a:b]])) for a, b in pairwise(cuts)]
        self.places, self.width = torch.tensor(order).argsort(), self.parts[0].vectors.shape[2]

    def read(self, context: Float[Tensor, "*b p w"], words: nn.Module | None = None) -> Float[Tensor, "*b k d"]:
        """Return the unit vectors of all names, each preceded by the given context vectors."""

        def unit(embeddings: TokenEmbeddings, before: Tensor) -> Tensor:
            given = embeddings.with_prefix(before)
            read = self.tower.encode_tokens(given) if words is None else encode_tokens(words, given)
            return normalize(read.pooled.float(), dim=1)

        if context.ndim == 2:
            return torch.cat([unit(part, context) for part in self.parts])[self.places]
        b, found = len(context), []
        for e in self.parts:
            k = len(e.ids)
            several = TokenEmbeddings(
                e.vectors.repeat(b, 1, 1), e.ids.repeat(b, 1), e.lengths.repeat(b), e.words.repeat(b, 1), e.sentence
            )
            found.append(unit(several, context.repeat_interleave(k, 0)).unflatten(0, (b, k)))
        return torch.cat(found, 1)[:, self.places]


class Prompt(nn.Module, ABC):
    """Learnt vectors ``v`` before every name; the tokens are ``[start, v_1, …, v_M, name, end]``."""

    conditional: ClassVar[bool] = False
    """Whether the texts depend on the picture."""

    def __init__(self, vectors: Float[Tensor, "p w"]) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone())

    @abstractmethod
    def texts(self, names: Names, image: Any = None) -> Float[Tensor, "*b k d"]:
        """Return the unit vectors of all names; if the prompt depends on the picture, for each picture."""

    @classmethod
    @abstractmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return a prompt from its ``state_dict``."""


class SharedPrompt(Prompt):
    """A prompt with the same vectors for every class and picture (CoOp's unified context)."""

    def texts(self, names: Names, image: Tensor | None = None) -> Float[Tensor, "k d"]:
        return names.read(self.vectors)

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Self:
        found = cls(tensors["vectors"].float())
        found.load_state_dict(dict(tensors))
        return found


@torch.no_grad()
def begun(tower: TrainableText, words: str, n_tokens: int) -> Float[Tensor, "p w"]:
    """Return the embeddings of ``words`` or, if there are none, ``n_tokens`` random vectors."""
    e = tower.embed(tower.tokens([words or "a"]))
    longest = e.sentence.longest - e.sentence.opening - e.sentence.closing - 1
    found = e.vectors[0][e.words[0]] if words else STD * torch.randn(n_tokens, e.vectors.shape[2])
    if not 0 < len(found) <= longest:
        raise InputError(
            f"The prompt must have between 1 and {longest} vectors for this encoder, got {len(found)}. Shorten words, "
            "or lower n_tokens."
        )
    return found.float()


@torch.no_grad()
def as_it_was(tower: TextTower, names: Sequence[str]) -> Float[Tensor, "k d"]:
    """Return the vectors of the names in the encoder's templates, as in zero-shot classification."""
    said = [t.replace("{}", spoken(name)) for name in names for t in tower.templates]
    vectors = tower.encode_text(said)
    return normalize(vectors.unflatten(0, (len(names), len(tower.templates))).mean(1), dim=1)


def mixed(now: Float[Tensor, "*b k d"], before: Float[Tensor, "k d"], keep: float) -> Float[Tensor, "*b k d"]:
    """Interpolate between name vectors without the prompt (``keep=0``) and with the prompt (``keep=1``)."""
    if keep in (0.0, 1.0):
        return now if keep else before.expand_as(now)
    return normalize(keep * now + (1 - keep) * before, dim=-1)


def scores(image: Float[Tensor, "b d"], text: Float[Tensor, "*b k d"]) -> Float[Tensor, "b k"]:
    """Return cosines between unit vectors; each picture may have its own texts."""
    return image @ text.T if text.ndim == 2 else (text @ image[:, :, None])[:, :, 0]


class PromptTask(Task):
    """The training of a prompt with the loss ``CE(scale cos(image, text), label)``."""

    needs = ("image", "labels")
    moves = False
    rates: tuple[tuple[str, float], ...] = ()
    facts: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Names that are shown with the results."""
    advice: str = ""
    """Advice that is shown after ``facts``."""

    def __init__(self, prompt: Prompt, names: Names, scale: float) -> None:
        super().__init__()
        self.prompt, self.names, self.scale = prompt.requires_grad_(True), names, scale

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch["image"], self.prompt.texts(self.names, batch["image"])

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        return classified(self.scale * scores(*features), batch["labels"])


class PromptedText:
    """Text encoder with a prompt before every text."""

    templates: tuple[str, ...] = ("{}",)

    def __init__(self, tower: TrainableText, prompt: Prompt, keep: float, fingerprint: str) -> None:
        self.tower, self.prompt, self.keep = tower, prompt, keep
        self.fingerprint, self.logit_scale = fingerprint, tower.logit_scale

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        if not len(texts):
            return self.tower.encode_text(texts)
        if not self.keep:
            return as_it_was(self.tower, texts)
        parts = [Names(self.tower, texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]
        now = torch.cat([self.prompt.texts(names) for names in parts])
        return now if self.keep == 1 else mixed(now, as_it_was(self.tower, texts), self.keep)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return self.tower.project(pooled)


@dataclass(frozen=True, eq=False)
class PromptNetwork(Network):
    """An encoder with a learnt prompt."""

    where: ClassVar[str] = "grad_cam"

    prompt: Prompt
    keep: float
    recipe: str
    parameters: Mapping[str, Any]

    def untrained(self) -> Self:
        return replace(self, keep=0.0)

    def tensors(self) -> dict[str, Tensor]:
        return {name: t.detach().cpu() for name, t in self.prompt.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {"keep": self.keep, "recipe": self.recipe, "parameters": dict(self.parameters)}


class NamingNetwork(PromptNetwork):
    """A learnt prompt of a classifier by class names, with the encoder of the classifier."""

    of_names: ClassVar[str]

    def words(self) -> PromptedText:
        digest = weights_digest(self.tensors(), f"{self.base.fingerprint}|{self.keep!r}")
        return PromptedText(opened(self.base), self.prompt, self.keep, digest)

    def classifier(self, classes: Sequence[str]) -> Classifier:
        """Return a classifier for classes given by name."""
        own: dict[str, Any] = {"recipe": self.recipe, "parameters": dict(self.parameters), "network": self}
        return replace(ZeroShot().build(self.encoder(), classes), trained_on=self.of_names, **own)


@dataclass(frozen=True, eq=False)
class PromptedNetwork(NamingNetwork):
    """A learnt prompt before every text, with an unchanged image encoder."""

    of_names: ClassVar[str] = "nothing but the names of the classes, after a learnt prompt"

    prompt: SharedPrompt

    def encoder(self) -> Encoder:
        text = self.words()
        return seeing_the_same(self.base, self.base.name, text.fingerprint, lambda: text, None)

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        keep = float(facts["keep"])
        if not 0 <= keep <= 1:
            raise ValueError(f"keep is {keep}")
        prompt = SharedPrompt.restored(tensors)
        width = opened(base).embed(opened(base).tokens(["a"])).vectors.shape[2]
        if prompt.vectors.ndim != 2 or prompt.vectors.shape[1] != width:
            raise ValueError(f"its prompt has the shape {tuple(prompt.vectors.shape)}")
        freeze(prompt)
        return cls(base, prompt, keep, str(facts["recipe"]), dict(facts["parameters"]))


@torch.no_grad()
def image_vectors(on: Encoder, pooled: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
    return normalize(on.text.project(pooled), dim=1)


KEEPS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
N_READ = 20_000
"""Maximum number of texts encoded to measure forgetting of a conditional prompt."""


@dataclass(frozen=True)
class Kept:
    """Held-out results for one value of ``keep``."""

    keep: Keep
    accuracy: Annotated[Share, Doc("accuracy on the learnt classes")]
    named: Named

    @property
    def gain(self) -> float:
        return self.accuracy


@torch.no_grad()
def tried(
    on: Encoder,
    prompt: Prompt,
    names: Names,
    classes: Sequence[str],
    held: tuple[Float[Tensor, "n p"], Int[Tensor, " n"]],
    progress: Progress,
) -> list[Kept]:
    """Return held-out results for every value of ``keep``, starting with 0."""
    pooled, labels = held
    image, tower = image_vectors(on, pooled), opened(on)
    now, before = prompt.texts(names, image), as_it_was(tower, classes)
    right = [(scores(image, mixed(now, before, keep)).argmax(1) == labels).float() for keep in KEEPS]
    named: list[float | None] = [None] * len(KEEPS)
    layer = on.classifier
    if layer is not None and len(on.classes) == layer.out_features:
        n = min(len(pooled), max(1, N_READ // len(on.classes))) if prompt.conditional else len(pooled)
        own, said = as_it_was(tower, on.classes), layer(pooled[:n]).argmax(1)
        parts = [on.classes[i : i + BATCH] for i in range(0, len(on.classes), BATCH)]
        track = progress.track(parts, "Reading the encoder's own classes", len(parts))
        behind = torch.cat([prompt.texts(Names(tower, part), image[:n]) for part in track], -2)
        agree = [scores(image[:n], mixed(behind, own, keep)).argmax(1) == said for keep in KEEPS]
        named = [round(float(a.float().mean()), 4) for a in agree]
    return [Kept(keep, round(float(r.mean()), 4), a) for keep, r, a in zip(KEEPS, right, named, strict=True)]
