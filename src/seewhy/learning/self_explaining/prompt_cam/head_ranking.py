"""Which attention heads a class prompt needs: the greedy ranking of Prompt-CAM (Chowdhury et al. 2025, 2501.09333)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ....attributions.attention import Capture
from ....errors import InputError
from .network import PromptHead

Flatten = Literal["keys", "patches"]
"""What a flattened head attends to, evenly: all tokens, prompts among them (authors' code), or patches (paper)."""


@dataclass(frozen=True)
class HeadRanking:
    """What flattening one head after the other does to a class, the least needed first.

    Attributes:
        order: heads, the most needed first.
        probability: of the class with 0, 1, … all heads flattened, from the end of ``order``; ``r + 1`` numbers.
        n_needed: heads left where one more flattened would lose the class; all, where it is not the predicted one.
    """

    order: tuple[int, ...]
    probability: tuple[float, ...]
    n_needed: int


def run_last_block(
    head: PromptHead, tokens: Float[Tensor, "b t d"], change: Callable[[Tensor], Tensor] | None = None
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b r s s"]]:
    """Scores, and the last block's attention: ``s`` tokens, the ``k`` prompts first; a row is what its token reads."""
    with torch.no_grad(), Capture(change) as capture:
        scores = head.scores(tokens)
    if len(capture.maps) != 1 or capture.maps[0].shape[-1] != capture.maps[0].shape[-2]:
        raise InputError(
            f"The last block attends {len(capture.maps)} times. Attention among all tokens, once, was expected. "
            "Use grad_cam, rise or occlusion."
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
    """Scores with the attention of each picture's class prompt made even in some heads.

    ``softmax(0) = 1 / s`` over all ``s`` tokens, as in the authors' code, which sets the logits to 0; or ``1 / m`` over
    the ``m`` patches, as in the paper's formula. A flattened head still hands on a mean of the values: it is not gone.
    """
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
    """Greedy, as published: flatten the head without which the class stays most probable, again and again.

    Each round costs a pass through the last block for each head that is left, ``r (r + 1) / 2`` in all. The authors'
    code sorts the heads that are left at its end by scores that belong to other heads (one of them is gone already);
    here the order is that of the greedy rounds to their end.
    """
    first, weights = run_last_block(head, tokens)
    return [
        _rank(head, tokens[i : i + 1], index[i : i + 1], weights.shape[1], (n_patches, flatten), first[i])
        for i in range(len(tokens))
    ]


def _rank(
    head: PromptHead,
    tokens: Float[Tensor, "1 t d"],
    index: Int[Tensor, " 1"],
    n_heads: int,
    how: tuple[int, Flatten],
    scores: Float[Tensor, " k"],
) -> HeadRanking:
    label = int(index)
    gone: list[int] = []
    probability, kept = [float(scores.softmax(0)[label])], [int(scores.argmax()) == label]
    while len(gone) < n_heads:
        left = [h for h in range(n_heads) if h not in gone]
        flat = torch.zeros(len(left), n_heads, dtype=torch.bool)
        flat[:, gone] = True
        flat[torch.arange(len(left)), left] = True
        found = flattened_scores(head, tokens.expand(len(left), -1, -1), index.expand(len(left)), flat, *how)
        values = found.softmax(1)[:, label]
        best = int(values.argmax())
        gone.append(left[best])
        probability.append(float(values[best]))
        kept.append(int(found[best].argmax()) == label)
    n_flat = kept.index(False) - 1 if False in kept else n_heads
    return HeadRanking(tuple(reversed(gone)), tuple(probability), n_heads - max(n_flat, 0))


def curve_of_order(
    head: PromptHead, tokens: Float[Tensor, "1 t d"], label: int, order: list[int], how: tuple[int, Flatten]
) -> list[float]:
    """Probability of a class as heads are flattened in a given order: what the greedy one is compared with."""
    flat = torch.zeros(len(order) + 1, len(order), dtype=torch.bool)
    for step, one in enumerate(order):
        flat[step + 1 :, one] = True
    index = torch.full((len(flat),), label)
    found = flattened_scores(head, tokens.expand(len(flat), -1, -1), index, flat, *how).softmax(1)[:, label]
    return [float(p) for p in found]
