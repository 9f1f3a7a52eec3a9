"""The attention of a class prompt (Prompt-CAM; Chowdhury et al., CVPR 2025, arXiv 2501.09333)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ....attributions import attributions
from ....attributions.attention import Capture
from ....attributions.base import Attribution, Explainable
from ....bounds import Count, check_fields
from ....encoders.base import EncoderOutput
from ....errors import InputError
from ....heads.head import Target, TargetFunction
from .network import PromptHead

Flatten = Literal["keys", "patches"]
"""What a flattened head attends to, evenly: all tokens, prompts among them (authors' code), or patches (paper)."""


@dataclass(frozen=True)
class HeadRanking:
    """What flattening one head after the other does to a class, the least needed first."""

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


@attributions.register
@dataclass(frozen=True)
class PromptCAM(Attribution):
    """What the prompt of a class attends to in the last block of a Prompt-CAM classifier.

    ``A_r = softmax(q_c K^T / √(d / r))`` of each head, patch columns only and not divided by their sum: prompts and
    class token take their part, and what is left says how far a head looks at the picture at all. The map is the mean
    over the heads the class needs most, by the authors' greedy ranking
    (:func:`~.head_ranking.rank_heads`). One class against another is the difference of their prompts'
    maps in the same heads. The paper shows each head on its own, smoothed and scaled to 0…1; here :meth:`heads_of`
    gives the heads, and maps stay as they are.

    Args:
        n_heads: heads kept; 4 in the authors' code. As many as there are, or more, saves the ranking.
        flatten: what a flattened head attends to evenly in the ranking: ``"keys"``, all tokens (authors' code), or
            ``"patches"`` (paper). The two can rank differently.

    Cost: one pass through the last block, and one more for each of ``r (r + 1) / 2`` rounds where heads are ranked
    (12 heads: 78 of a twelfth of the network each).
    """

    name: ClassVar[str] = "prompt_cam"
    spelt: ClassVar[str] = "Prompt-CAM"
    paper: ClassVar[str] = "Chowdhury et al. 2025, arXiv:2501.09333"
    needs: ClassVar[str] = "a classifier made with: seewhy fit --method prompt_cam"
    cost: ClassVar[str] = "0"
    recipe: ClassVar[str] = "prompt_cam"

    n_heads: Count = 4
    flatten: Flatten = "keys"

    def __post_init__(self) -> None:
        check_fields(self)

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        if not isinstance(target, Target):
            raise InputError(
                "prompt_cam shows what a class's prompt attends to, and the target is another function of the logits. "
                "A class was expected. Use grad_cam for this one."
            )
        weights = self.heads_of(model, look, target.index)
        if target.against is not None:
            weights = weights - self.heads_of(model, look, target.against)
        kept = self._kept(model, look, target.index, weights.shape[1])
        return weights.gather(1, kept[:, :, None, None].expand(-1, -1, *weights.shape[2:])).mean(1)

    def heads_of(self, model: Explainable, look: EncoderOutput, index: Int[Tensor, " b"]) -> Float[Tensor, "b r h w"]:
        """The map of each head for one class a picture; what is left to 1 goes to prompts and class token."""
        grid = model.encoder.layout.to_grid(look.features).shape[2:]
        weights = run_last_block(prompt_head(model), look.features)[1]
        own = weights[torch.arange(len(look)), :, index]
        return own[:, :, -grid[0] * grid[1] :].unflatten(2, tuple(grid))

    def ranking(self, model: Explainable, look: EncoderOutput, index: Int[Tensor, " b"]) -> list[HeadRanking]:
        """For each picture the heads by how much the class needs them, and what it loses as they are flattened."""
        n_patches = model.encoder.layout.to_grid(look.features)[0, 0].numel()
        return rank_heads(prompt_head(model), look.features, index, n_patches, self.flatten)

    def _kept(self, model: Explainable, look: EncoderOutput, index: Int[Tensor, " b"], n: int) -> Int[Tensor, "b m"]:
        """The heads that a class needs most on each picture."""
        if self.n_heads >= n:
            return torch.arange(n).expand(len(look), -1)
        return torch.tensor([r.order[: self.n_heads] for r in self.ranking(model, look, index)])


def prompt_head(model: Explainable) -> PromptHead:
    """The head of a Prompt-CAM encoder."""
    head = model.encoder.head
    if not isinstance(head, PromptHead):
        raise InputError(
            f"prompt_cam shows the attention of class prompts, and this classifier on {model.encoder.name!r} has none. "
            "One made with: seewhy fit --method prompt_cam was expected. Use grad_cam, or make such a classifier."
        )
    return head


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
