"""The attention of a class prompt (Prompt-CAM; Chowdhury et al., CVPR 2025, arXiv 2501.09333)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ....attributions import attributions
from ....attributions.base import Attribution, Explainable
from ....encoders.base import EncoderOutput
from ....errors import InputError
from ....heads.head import Target, TargetFunction
from .head_ranking import HeadRanking, rank_heads, run_last_block
from .network import PromptHead


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

    n_heads: int = 4
    flatten: Literal["keys", "patches"] = "keys"

    def __post_init__(self) -> None:
        if self.n_heads < 1 or self.flatten not in ("keys", "patches"):
            raise InputError(
                f"prompt_cam was given n_heads={self.n_heads} and flatten={self.flatten!r}. At least 1 head, and "
                "'keys' or 'patches', were expected. Change them."
            )

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
        """The map of each head for one class a picture; what it does not add up to 1 goes to prompts and class token.

        Raises:
            InputError: the classifier is not a Prompt-CAM.
        """
        grid = model.encoder.layout.to_grid(look.features).shape[2:]
        weights = run_last_block(prompt_head(model), look.features)[1]
        own = weights[torch.arange(len(look)), :, index]
        return own[:, :, -grid[0] * grid[1] :].unflatten(2, tuple(grid))

    def ranking(self, model: Explainable, look: EncoderOutput, index: Int[Tensor, " b"]) -> list[HeadRanking]:
        """For each picture the heads by how much the class needs them, and what it loses as they are flattened.

        Raises:
            InputError: the classifier is not a Prompt-CAM.
        """
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
