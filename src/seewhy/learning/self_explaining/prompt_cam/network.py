"""Prompt-CAM (arXiv 2501.09333): class prompts inside a frozen vision transformer, and their attention maps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ....attributions import attributions
from ....attributions.attention import Capture
from ....attributions.base import Attribution, Explainable
from ....bounds import Count
from ....classifiers.network import Network
from ....encoders.base import Encoder, EncoderOutput, Layout
from ....encoders.split import LastBlock, example_pixels, freeze, replaced, weights_digest
from ....errors import InputError, ModelError
from ....heads.head import Target, TargetFunction
from ...encoders.delta import WITHOUT_WORDS
from ...encoders.token_blocks import image_stack, inside, with_more_prefix

NORMS = ("model.norm", "model.fc_norm", "visual.ln_post", "norm")
"""Paths of the norm after the last block; the first with weights is used."""


class Prompts(nn.Module):
    """Class prompts (without position embedding) with a scoring vector, both initialised as in the authors' code."""

    def __init__(
        self, n_early: int, n_classes: int, width: int, area: float = 256.0, shared: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * area + width))

        def drawn() -> nn.Parameter:
            return nn.Parameter(torch.empty(n_classes, width).uniform_(-bound, bound))

        self.early = nn.ParameterList(drawn() for _ in range(n_early))
        self.own = drawn()
        self.weight = nn.Parameter(torch.empty(1 if shared else n_classes, width).uniform_(-(width**-0.5), width**-0.5))
        self.dropout = nn.Dropout(dropout)

    def put(self, tokens: Float[Tensor, "b t d"], early: int | None = None) -> Float[Tensor, "b s d"]:
        """Prepend prompts to the tokens: those of layer ``early``, or the class prompts if it is ``None``."""
        prompts = self.dropout(self.own if early is None else self.early[early])
        return torch.cat([prompts.expand(len(tokens), -1, -1), tokens], 1)


class Prompted(nn.Module):
    """A transformer block that inserts prompts before its tokens."""

    def __init__(self, block: nn.Module, prompts: Prompts, early: int | None) -> None:
        super().__init__()
        self.block, self.prompts, self.early = block, prompts, early

    def forward(self, tokens: Float[Tensor, "b t d"], *args: Any, **keywords: Any) -> Any:
        out = self.block(self.prompts.put(tokens, self.early), *args, **keywords)
        if self.early is None:
            return out
        n = len(self.prompts.own)
        return (out[0][:, n:], *out[1:]) if isinstance(out, tuple) else out[:, n:]


class Scores(nn.Module):
    """Module that returns the class scores and the network's own pooled vector, concatenated.

    The score of a class is ``w · norm(z)``, where ``z`` is the output for its prompt and ``w`` a learnt vector.
    """

    def __init__(self, norm: nn.Module, prompts: Prompts, has_prefix: bool) -> None:
        super().__init__()
        self.norm, self.prompts, self.has_prefix = norm, prompts, has_prefix

    def forward(self, tokens: Float[Tensor, "b s d"]) -> Float[Tensor, "b p"]:
        n = len(self.prompts.own)
        tokens = self.norm(tokens[:, : n + 1] if self.has_prefix else tokens)
        scores = (tokens[:, :n] * self.prompts.weight).sum(2)
        return torch.cat([scores, tokens[:, n] if self.has_prefix else tokens[:, n:].mean(1)], 1)


class PromptHead(nn.Module):
    """Head that maps the input tokens of the last block to class scores and the network's own pooled vector."""

    def __init__(self, last: LastBlock, prompts: Prompts, inside: bool, first: int) -> None:
        super().__init__()
        self.last, self.prompts, self.inside, self.first = last, prompts, inside, first

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b p"]:
        return self.last(tokens if self.inside else self.prompts.put(tokens))

    @property
    def n_added(self) -> int:
        return len(self.prompts.own)

    def entering(self, n_tokens: int, n_layers: int) -> list[int]:
        """Return the number of tokens that enter each layer, given ``n_tokens`` at the last."""
        n = len(self.prompts.own)
        plain = n_tokens - n if self.inside else n_tokens
        return [plain + (n if layer > self.first else 0) for layer in range(n_layers)]

    def scores(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b k"]:
        return self(tokens)[:, : len(self.prompts.own)]


@dataclass(frozen=True)
class Parts:
    """The parts of a vision transformer where prompts can be inserted."""

    last: LastBlock
    norm: nn.Module
    stack: str
    n_layers: int
    width: int
    area: float


def parts_of(encoder: Encoder) -> Parts:
    """Return the blocks and the norm of a vision transformer."""
    last, grid = encoder.head, encoder.layout.grid
    if isinstance(last, LastBlock) and grid is not None:
        norms = [n for n in (inside(last.tail, path) for path in NORMS) if getattr(n, "weight", None) is not None]
        stack = image_stack(encoder)
        if norms and stack:
            height, width = encoder.transform.input_size
            blocks: Any = encoder.trunk.get_submodule(stack)
            norm: Any = norms[0]
            area = height / grid[0] * width / grid[1]
            return Parts(last, norm, stack, len(blocks) + 1, norm.weight.shape[-1], area)
    raise ModelError(
        f"prompt_cam needs a vision transformer from timm, open_clip or transformers, got {encoder.name!r}. Choose "
        "another encoder with --encoder."
    )


class PromptCAMNetwork(Network):
    """A frozen vision transformer with class prompts.

    Class prompts are inserted before layer ``first``; the first layer is 0. With ``n_early = first``, each earlier
    layer also has as many prompts, which are removed after the layer.
    """

    where: ClassVar[str] = "prompt_cam"

    def __init__(self, base: Encoder, first: int, prompts: Prompts) -> None:
        super().__init__(base)
        self.first, self.prompts, self.parts = first, prompts.eval(), parts_of(base)
        self._inside = first < self.parts.n_layers - 1
        self._check()

    @cached_property
    def trunk(self) -> nn.Module:
        """Return the network from pixels to the tokens before the last block."""
        parts, n = self.parts, len(self.prompts.own)
        stack: Any = self.base.trunk.get_submodule(parts.stack)
        changes: dict[str, nn.Module] = {}
        for i, block in enumerate(stack):
            early = i < len(self.prompts.early)
            if early or i >= self.first:
                longer = with_more_prefix(block, n)
                put = early or i == self.first
                changes[f"{parts.stack}.{i}"] = Prompted(longer, self.prompts, i if early else None) if put else longer
        return replaced(self.base.trunk, changes) if changes else self.base.trunk

    @cached_property
    def head(self) -> PromptHead:
        """Return the network from the tokens before the last block to class scores."""
        last = self.parts.last
        block = with_more_prefix(last.block, len(self.prompts.own))
        tail = Scores(self.parts.norm, self.prompts, self.base.layout.prefix > 0)
        return PromptHead(LastBlock(block, tail, last.keywords), self.prompts, self._inside, self.first)

    def _check(self) -> None:
        base, n = self.base, len(self.prompts.own)
        try:
            with torch.no_grad():
                scores = self.head.scores(self.trunk(example_pixels(base.transform.input_size)))
        except (RuntimeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:200].rstrip(".")
            raise ModelError(
                f"{base.name!r} does not accept additional tokens: {reason}. Choose another vision transformer with "
                "--encoder."
            ) from error
        if scores.shape != (1, n):
            raise ModelError(
                f"{base.name!r} returns scores of shape {tuple(scores.shape)} for {n} prompts. Choose a vision "
                "transformer with tokens in the order (b, t, d) with --encoder."
            )

    def encoder(self) -> Encoder:
        base, trunk, head, own = self.base, self.trunk, self.head, self.base.layout
        freeze(self.prompts)
        facts = json.dumps(self.facts(), sort_keys=True)
        same = not self._inside and not len(self.prompts.early)  # trunk and looks are the base's
        return base.but(
            trunk=lambda: trunk,
            head=freeze(head),
            layout=Layout("tokens", own.grid, own.prefix + len(self.prompts.own)) if self._inside else own,
            fingerprint=weights_digest(self.tensors(), base.fingerprint + facts),
            module=lambda: nn.Sequential(trunk, head),
            engine=(lambda: base.engine) if same else base.engine_asked,
            **WITHOUT_WORDS,
        )

    def tensors(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.prompts.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {"first": self.first, "n_early": len(self.prompts.early)}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        n_classes, width = tensors["own"].shape
        with torch.device("meta"):
            prompts = Prompts(int(facts["n_early"]), n_classes, width, shared=len(tensors["weight"]) == 1)
        prompts.load_state_dict(dict(tensors), assign=True)
        return cls(base, int(facts["first"]), prompts)


Flatten = Literal["keys", "patches"]
"""Tokens with uniform attention in a flattened head: all (authors' code) or patches (paper)."""


@dataclass(frozen=True)
class HeadRanking:
    """Attention heads, the most needed first, and the class probability after each removal."""

    order: tuple[int, ...]
    probability: tuple[float, ...]
    n_needed: int


def run_last_block(
    head: PromptHead, tokens: Float[Tensor, "b t d"], change: Callable[[Tensor], Tensor] | None = None
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b r s s"]]:
    """Return class scores and the attention of the last block, with the ``k`` prompts first."""
    with torch.no_grad(), Capture(change) as capture:
        scores = head.scores(tokens)
    if len(capture.maps) != 1 or capture.maps[0].shape[-1] != capture.maps[0].shape[-2]:
        raise InputError(
            f"The last block must compute one attention map over all tokens, got {len(capture.maps)} maps. Use "
            "grad_cam, rise or occlusion."
        )
    return scores, capture.maps[0]


def flattened_scores(
    head: PromptHead,
    tokens: Float[Tensor, "b t d"],
    index: Int[Tensor, " b"],
    flat: Bool[Tensor, "b r"],
    n_patches: int,
    flatten: Flatten = "keys",
) -> Float[Tensor, "b k"]:
    """Return the class scores after the class prompt's attention in some heads is made uniform."""
    rows = torch.arange(len(tokens))

    def change(weights: Tensor) -> Tensor:
        even = torch.zeros(weights.shape[-1], dtype=weights.dtype, device=weights.device)
        even[-n_patches if flatten == "patches" else 0 :] = 1
        changed = weights.clone()
        changed[rows, :, index] = torch.where(flat[:, :, None], even / even.sum(), weights[rows, :, index])
        return changed

    return run_last_block(head, tokens, change)[0]


def rank_heads(
    head: PromptHead,
    tokens: Float[Tensor, "b t d"],
    index: Int[Tensor, " b"],
    n_patches: int,
    flatten: Flatten = "keys",
) -> list[HeadRanking]:
    """Rank attention heads greedily: at each step, remove the head without which the class stays most probable."""
    first, weights = run_last_block(head, tokens)
    n_heads, rankings = weights.shape[1], []
    for one, label, scores in zip(tokens.split(1), index.tolist(), first, strict=True):
        gone: list[int] = []
        probability, kept = [float(scores.softmax(0)[label])], [int(scores.argmax()) == label]
        while len(gone) < n_heads:
            left = [h for h in range(n_heads) if h not in gone]
            flat = torch.zeros(len(left), n_heads, dtype=torch.bool)
            flat[:, gone] = True
            flat[torch.arange(len(left)), left] = True
            copies, own = one.expand(len(left), -1, -1), torch.full((len(left),), label)
            found = flattened_scores(head, copies, own, flat, n_patches, flatten)
            values = found.softmax(1)[:, label]
            best = int(values.argmax())
            gone.append(left[best])
            probability.append(float(values[best]))
            kept.append(int(found[best].argmax()) == label)
        n_flat = kept.index(False) - 1 if False in kept else n_heads
        rankings.append(HeadRanking(tuple(reversed(gone)), tuple(probability), n_heads - max(n_flat, 0)))
    return rankings


@attributions.register
@dataclass(frozen=True)
class PromptCAM(Attribution):
    """Attention map of a class prompt in the last block of a Prompt-CAM classifier.

        A_r = softmax(q_c K^T / √(d / r))

    ``A_r`` is the attention of head ``r`` to the patches, ``q_c`` the query of the prompt of class ``c``, ``K`` are the
    keys, and ``d / r`` is the width of a head. The map is ``A_r``, averaged over the heads that the class needs most by
    the authors' greedy ranking (:func:`rank_heads`). The sum of the map is below 1, because prompts and class token get
    some of the attention. With a contrast class, the map is the difference of the maps of the two prompts in the same
    heads. The paper shows each head separately, smoothed and scaled to [0, 1]; :meth:`heads_of` returns all heads
    unchanged.

    Args:
        n_heads: number of attention heads to average (authors' code: 4).
        flatten: tokens over which the ranking makes the attention of a removed head uniform: all tokens (``"keys"``,
            authors' code) or patches (``"patches"``, paper).
    """

    name: ClassVar[str] = "prompt_cam"
    spelt: ClassVar[str] = "Prompt-CAM"
    paper: ClassVar[str] = "Chowdhury et al. 2025, arXiv:2501.09333"
    needs: ClassVar[str] = "a classifier made with: seewhy fit --method prompt_cam"
    cost: ClassVar[str] = "0"
    recipe: ClassVar[str] = "prompt_cam"

    n_heads: Count = 4
    flatten: Flatten = "keys"

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        if not isinstance(target, Target):
            raise InputError("prompt_cam can only explain a class, got another target. Give a class, or use grad_cam.")
        weights = self.heads_of(model, look, target.index)
        if target.against is not None:
            weights = weights - self.heads_of(model, look, target.against)
        if self.n_heads >= weights.shape[1]:
            return weights.mean(1)
        kept = torch.tensor([r.order[: self.n_heads] for r in self.ranking(model, look, target.index)])
        return weights.gather(1, kept[:, :, None, None].expand(-1, -1, *weights.shape[2:])).mean(1)

    def heads_of(self, model: Explainable, look: EncoderOutput, index: Int[Tensor, " b"]) -> Float[Tensor, "b r h w"]:
        """Return the attention map of each head for one class per picture."""
        grid = model.encoder.layout.to_grid(look.features).shape[2:]
        weights = run_last_block(prompt_head(model), look.features)[1]
        own = weights[torch.arange(len(look)), :, index]
        return own[:, :, -grid[0] * grid[1] :].unflatten(2, tuple(grid))

    def ranking(self, model: Explainable, look: EncoderOutput, index: Int[Tensor, " b"]) -> list[HeadRanking]:
        n_patches = model.encoder.layout.to_grid(look.features)[0, 0].numel()
        return rank_heads(prompt_head(model), look.features, index, n_patches, self.flatten)


def prompt_head(model: Explainable) -> PromptHead:
    head = model.encoder.head
    if not isinstance(head, PromptHead):
        raise InputError(
            f"prompt_cam can only explain a prompt_cam classifier, got another classifier on {model.encoder.name!r}. "
            "Use grad_cam, or fit a classifier with: seewhy fit --method prompt_cam"
        )
    return head
