"""An encoder whose last layers depend on an instruction."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...encoders.base import STEP, Encoder, TrainableText
from ...encoders.last_layers import Arranged, Onwards, last_layers
from ...encoders.names import own_vectors
from ...encoders.split import LastBlock, Part, example_pixels, freeze, hooked, replaced, weights_digest
from ...errors import InputError
from .delta import WITHOUT_WORDS, digest_of, seeing_the_same, sizes_of
from .heads import SENTENCE_SCALE
from .token_blocks import Placed, Without, with_more_prefix

_logger = logging.getLogger(__name__)

RANK = 64
"""Default rank of the projection; a full matrix overfits."""
LAYERS = 4
"""Minimum number of modulated convolutions."""
SHARPNESS = 20.0
"""Inverse temperature of the mixture of trained instructions."""
SAID = 0.99
"""Cosine above which an instruction counts as trained, such as 'The_Colour' for 'the colour'."""
TOLD: set[tuple[str, str]] = set()
"""Encoder fingerprints and instructions that have already been warned about."""
FAR = 0.4
"""Default of ``far`` if only one instruction was trained."""


class Modulated(nn.Module):
    """A convolution with scaled and shifted output channels."""

    gain: Tensor
    shift: Tensor

    def __init__(self, layer: nn.Module, gain: Float[Tensor, "*b c"], shift: Float[Tensor, "*b c"]) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("gain", gain)
        self.register_buffer("shift", shift)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c gh gw"]:
        return self.layer(x) * (1 + self.gain)[..., None, None] + self.shift[..., None, None]


class Modulation(nn.Module):
    """Feature-wise modulation of the last convolutions (FiLM, Perez et al. 2018, arXiv 1709.07871).

        y' = (1 + γ) y + σ β
        [γ, β] = F tanh(H c)

    ``y`` is the output of a convolution, ``y'`` the modulated output, ``σ`` the standard deviation of a channel, and
    ``c`` the instruction vector. ``F`` and ``H`` are learnt matrices; ``F`` starts at 0.
    """

    deviation: Tensor

    def __init__(self, on: Encoder, n_layers: int, sentence_width: int) -> None:
        super().__init__()
        self.below, rest = last_layers(on, n_layers)
        self.parts = rest, on.head
        self.sizes = {n: m.out_channels for n, m in rest.named_modules() if isinstance(m, nn.Conv2d)}
        self.hidden = nn.Linear(sentence_width, RANK)
        self.film = nn.Linear(RANK, 2 * sum(self.sizes.values()))
        self.register_buffer("deviation", torch.ones(sum(self.sizes.values())))
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    @torch.no_grad()
    def measure(self, vectors: Float[Tensor, "n f"]) -> None:
        found: list[Tensor] = []

        def look(_m: nn.Module, _args: Any, out: Tensor) -> None:
            found.append(out.std((0, 2, 3)).clamp(min=1e-6))

        with hooked(self.parts[0].get_submodule(name).register_forward_hook(look) for name in self.sizes):
            self.parts[0](vectors)
        self.deviation.copy_(torch.cat(found))

    def changed(self, instruction: Float[Tensor, "*b e"], strength: float = 1.0) -> tuple[nn.Module, nn.Module]:
        """Return the modulated layers and the head, for one instruction or one per picture."""
        gain, shift = (strength * self.film(self.hidden(SENTENCE_SCALE * instruction).tanh())).chunk(2, -1)
        parts = (one.split([*self.sizes.values()], -1) for one in (gain, shift * self.deviation))
        layers = [(name, self.parts[0].get_submodule(name)) for name in self.sizes]
        modulated = {n: Modulated(m, *two) for (n, m), *two in zip(layers, *parts, strict=True)}
        return replaced(self.parts[0], modulated), self.parts[1]


class Blend(nn.Module):
    """A weighted mean of the outputs of two heads."""

    def __init__(self, plain: nn.Module, other: nn.Module, strength: float) -> None:
        super().__init__()
        self.plain, self.other, self.strength = plain, other, strength

    def forward(self, features: Tensor) -> Float[Tensor, "b p"]:
        if self.strength == 1:
            return self.other(features)
        return torch.lerp(self.plain(features), self.other(features), self.strength)


class ConditionToken(nn.Module):
    """An additional token ``W c`` in the last transformer block, as in FocalLens-CLIP; ``c`` is the instruction vector.

    The effect of the additional token on the class token is scaled by ``strength``; 0 means no effect.
    """

    def __init__(self, on: Encoder, sentence_width: int) -> None:
        super().__init__()
        self.on = (on,)
        with torch.no_grad():
            shape = tuple(on.trunk(example_pixels(on.transform.input_size)).shape[1:])
        self.arranged = Arranged(shape)
        self.below = on.but(
            name=f"{on.name} until its last block",
            head=nn.Flatten(),
            fingerprint=weights_digest({}, f"{on.fingerprint}|tokens"),
            engine=lambda: on.engine,
            **WITHOUT_WORDS,
        )
        self.token = nn.Linear(sentence_width, shape[1])

    def measure(self, vectors: Float[Tensor, "n f"]) -> None:
        """Do nothing, because transformer blocks normalise their input."""

    def changed(self, instruction: Float[Tensor, "*b e"], strength: float = 1.0) -> tuple[nn.Module, nn.Module]:
        head, at = self.on[0].head, self.on[0].layout.prefix
        assert isinstance(head, LastBlock)
        token = self.token(SENTENCE_SCALE * instruction)
        vectors = token.unsqueeze(-2) if token.ndim > 1 else token[None]
        block = Placed(with_more_prefix(head.block, 1), lambda: vectors, at, replaces=False)
        other = LastBlock(block, Without(head.tail, at, 1), head.keywords)
        return self.arranged, Blend(head, other, strength)


class Projection(nn.Module):
    """A low-rank change of the pooled vector ``p`` that depends on the instruction vector ``c``.

        p' = p + strength · size · U (g(c) * (V (p - mean) / spread + b))

    ``U``, ``V``, ``g`` and ``b`` are learnt; ``U`` starts at 0. ``mean``, ``spread`` and ``size`` are statistics of
    ``p``.
    """

    mean: Tensor
    spread: Tensor
    size: Tensor

    def __init__(self, width: int, sentence_width: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width, bias=False)
        self.gate = nn.Linear(sentence_width, rank)
        for name, value in (("mean", torch.zeros(width)), ("spread", torch.ones(())), ("size", torch.ones(()))):
            self.register_buffer(name, value)
        nn.init.zeros_(self.up.weight)

    def measure(self, pooled: Float[Tensor, "n p"]) -> None:
        self.mean = pooled.mean(0)
        self.spread = (pooled - self.mean).square().mean().sqrt().clamp(min=1e-6)
        self.size = pooled.norm(dim=1).mean()

    def forward(
        self, pooled: Float[Tensor, "b p"], instruction: Float[Tensor, "*b e"], strength: float = 1.0
    ) -> Float[Tensor, "b p"]:
        seen = self.down((pooled - self.mean) / self.spread) * self.gate(SENTENCE_SCALE * instruction)
        return pooled + strength * self.size * self.up(seen)


def refuse_long(on: Encoder, instruction: str) -> None:
    """Check that an instruction fits into the text encoder."""
    if isinstance(on.text, TrainableText) and on.text.n_cut([instruction]):
        raise InputError(
            f"The instruction {instruction[:40]!r}… is too long for the text encoder of {on.name!r}: it has "
            f"{len(instruction.split()):,} words. Use a short phrase, such as 'the colour'."
        )


class Instructed(nn.Module):
    """Layers and projection that depend on an instruction.

    The vector of an instruction is replaced by a mixture ``c`` of the vectors ``c_k`` of the trained instructions:

        c = Σ_k softmax(SHARPNESS cos)_k c_k

    where ``cos`` are the cosines of the instruction with the trained instructions. The encoder changes less for an
    instruction that is unlike all trained ones. Let ``far`` be the mean cosine between different trained instructions.
    If the largest cosine is at most ``far``, the encoder does not change. From there, the change grows linearly, up to
    the full change at the cosine ``(1 + far) / 2``. The change is multiplied by ``keep``.
    """

    form = "instructed_layers"
    sentences: Tensor
    far: Tensor

    def __init__(self, on: Encoder, n_taught: int, rank: int = RANK, n_layers: int = LAYERS) -> None:
        super().__init__()
        self.rank, self.n_layers, self.taught = rank, n_layers, ("",) * n_taught
        width = own_vectors(on.text, ["a"]).shape[1]
        is_token = isinstance(on.head, LastBlock)
        self.layers = ConditionToken(on, width) if is_token else Modulation(on, n_layers, width)
        with torch.no_grad():
            pooled = on.head(on.trunk(example_pixels(on.transform.input_size).to(_device(on.trunk))).cpu())
        self.projection = Projection(pooled.shape[1], width, rank)
        self.register_buffer("sentences", torch.zeros(n_taught, width))
        self.register_buffer("far", torch.tensor(FAR))

    @classmethod
    def before(cls, on: Encoder, questions: Sequence[Sequence[str]], **sizes: int) -> Self:
        taught = tuple(words for wordings in questions for words in wordings)
        found = cls(on, len(taught), **sizes)
        found.taught, found.sentences = taught, normalize(own_vectors(on.text, taught), dim=1).clone()
        of = torch.tensor([k for k, wordings in enumerate(questions) for _ in wordings])
        if len(questions) > 1:
            cosines = (found.sentences @ found.sentences.T).masked_fill(of[:, None] == of, -1.0)
            found.far = cosines.amax(1).mean().clamp(0, 0.99)
        return found

    @property
    def below(self) -> Encoder:
        return self.layers.below

    @torch.no_grad()
    def plain(self, vectors: Float[Tensor, "n f"]) -> Float[Tensor, "n p"]:
        """Return the original encoder's pooled vectors, from the outputs of :attr:`below`."""
        rest, head = self.layers.changed(self.sentences[0], 0.0)
        return torch.cat([head(rest(part.float())) for part in vectors.split(STEP)])

    def measure(self, vectors: Float[Tensor, "n f"]) -> Float[Tensor, "n p"]:
        """Compute the statistics of both parts and return the original encoder's pooled vectors."""
        pooled = self.plain(vectors)
        self.layers.measure(vectors[:: max(1, len(vectors) // 128)].float())
        self.projection.measure(pooled)
        return pooled

    def read(self, instruction: Float[Tensor, "b e"]) -> tuple[Float[Tensor, "b e"], Float[Tensor, " b"]]:
        """Return mixtures of the trained instructions, and the fraction of the change to apply."""
        cosines = normalize(instruction, dim=1) @ self.sentences.T
        near = (1 + self.far) / 2
        trust = ((cosines.amax(1) - self.far) / (near - self.far)).clamp(0, 1)
        return (SHARPNESS * cosines).softmax(1) @ self.sentences, trust

    def pooled(self, vectors: Float[Tensor, "b f"], instruction: Float[Tensor, "b e"]) -> Float[Tensor, "b p"]:
        rest, head = self.layers.changed(instruction)
        return head(rest(vectors))

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """Return the encoder with support for instructions."""
        digest = digest_of(self.delta(on), on, keep)

        @torch.no_grad()
        def under(instruction: str) -> Encoder:
            refuse_long(on, instruction)
            sentence = own_vectors(on.text, [instruction])
            read, trust = self.read(sentence)
            if (digest, instruction) not in TOLD:
                TOLD.add((digest, instruction))
                self.say_untaught(name, instruction, sentence[0], float(trust))
            vector, strength = read[0].clone(), keep * float(trust)
            rest, pool = map(freeze, self.layers.changed(vector, strength))
            below = self.below
            projection = Part(self.projection, lambda own, pooled: own(pooled, vector, strength))
            head = nn.Sequential(pool, projection)

            def trunk() -> nn.Module:
                return nn.Sequential(below.trunk, nn.Flatten(), copy.deepcopy(rest).to(_device(below.trunk)))

            return on.but(
                name=f"{name}#{instruction}",
                trunk=trunk,
                head=freeze(head),
                fingerprint=weights_digest({"instruction": sentence}, digest),
                module=lambda: nn.Sequential(trunk(), head),
                engine=on.engine_asked if torch.cuda.is_available() else lambda: Onwards(below.engine, rest),
                base=below,
                rest=rest,
                classifier=None,
                classes=(),
            )

        return seeing_the_same(on, name, digest, lambda: on.text, under)

    def say_untaught(self, name: str, instruction: str, sentence: Float[Tensor, " e"], trust: float) -> None:
        """Warn that an instruction was not trained, and name the most similar trained one."""
        cosines = self.sentences @ normalize(sentence, dim=0)
        best = int(cosines.argmax())
        if instruction in self.taught or float(cosines[best]) >= SAID:
            return
        _logger.warning(
            "%s was not trained on the instruction %r, so its accuracy is unknown. It was trained on %s. The most "
            "similar is %r (cosine %.2f), so SeeWhy applies %.0f %% of that instruction's change.",
            *(name, instruction, ", ".join(map(repr, self.taught[:8])), self.taught[best], float(cosines[best])),
            100 * trust,
        )

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {"form": self.form, "rank": self.rank, "n_layers": self.n_layers, "taught": list(self.taught)}

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        rank, n_layers = sizes_of(facts, "rank", "n_layers")
        taught = facts["taught"]
        if not isinstance(taught, list) or not all(isinstance(one, str) for one in taught):
            raise ValueError("its instructions must be a list of texts")
        found = cls(on, len(taught), rank, n_layers)
        found.taught = tuple(taught)
        found.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        freeze(found)
        return found


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))
