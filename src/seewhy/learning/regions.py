"""Pictures with their regions, texts with their words or sentences, and an objective that compares both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from ..encoders.base import Layout
from ..encoders.text_tokens import encode_tokens
from ..training.batches import Batch
from ..training.distributed import gathered, sizes_of
from ..training.task import Task
from .contrast import gathered_pairs, hold_norms, read_texts
from .objectives.contrastive import Regional


class RegionalContrast(Task):
    """Two networks that bring each picture and its text to one place, and what a text says to where it is seen.

    Watched are ``"whole"`` and ``"parts"``, which add up to the loss. Over several processes each compares the words of
    all texts with the regions of all pictures, where the objective does; that part of the work is not shared.

    Args:
        image: pixels → a vector ``(b, d)`` and regions ``(b, r, d)``, such as :class:`ImageRegions`.
        text: what the batch has of the texts → a vector ``(n, d)``, words ``(n, t, d)`` and which of them are said
            ``(n, t)``, such as :class:`TextWords`.
        objective: what is made small.
        column: which column the pictures are.
        hold: whether batch normalisations stay as in evaluation.
    """

    def __init__(
        self, image: nn.Module, text: nn.Module, objective: Regional, *, column: str = "pixels", hold: bool = False
    ) -> None:
        super().__init__()
        self.needs = (column, "text")  # type: ignore[misc]
        self.image, self.text, self.objective, self.hold = image, text, objective, hold
        self.state, self.local = objective.state(), objective.local()

    def features(self, batch: Batch) -> tuple[Tensor, ...]:
        if self.hold:
            hold_norms(self)
        image, regions = self.image(batch[self.needs[0]])
        if self.objective.parts == "words":
            return image, regions, *read_texts(self.text, batch, 1)
        whole = read_texts(_Whole(self.text), batch, self.objective.n_texts)
        return image, regions, whole

    def loss(self, features: tuple[Tensor, ...], batch: Batch) -> Mapping[str, Tensor]:
        image, regions, text, *said = features
        x, y, share = gathered_pairs(image, text)
        whole = self.objective(x, y, None, self.state, share=share)
        words = said[0] if said else text.view(len(text), -1, text.shape[-1])
        filled = said[1] if said else words.new_ones(words.shape[:2]).bool()
        if self.local.across:
            regions, words, filled = _of_all(regions, words, filled)
        parts = self.objective.local_weight * self.local(regions, words, filled, self.state)
        learnt = {name: p.detach().clone() for name, p in self.state.named_parameters()}
        return {"loss": whole + parts, "whole": whole.detach(), "parts": parts.detach(), **learnt}

    def after_step(self) -> None:
        self.state.hold()


class _Whole(nn.Module):
    """A network of texts without its words."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *said: Tensor) -> Tensor:
        whole: Tensor = self.network(*said)[0]
        return whole


def _of_all(
    regions: Float[Tensor, "b r d"], words: Float[Tensor, "b t d"], said: Bool[Tensor, "b t"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of all processes; texts are made as long as the longest."""
    more = max(sizes_of(words.shape[1])) - words.shape[1]
    longer, filled = pad(words, (0, 0, 0, more)), pad(said.to(words), (0, more))
    return gathered(regions)[0], gathered(longer)[0], gathered(filled)[0] > 0.5


class ImageRegions(nn.Module):
    """An encoder's picture half → the picture and its cells among the texts, neither of unit length.

    Cells go through the projection that pooled vectors go through. Behind a mean over space the picture is the mean of
    its cells.

    Args:
        trunk: pixels → features.
        pool: features → pooled vector.
        projection: pooled vector → the space of the texts.
        layout: how the features are arranged.
    """

    def __init__(self, trunk: nn.Module, pool: nn.Module, projection: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.trunk, self.pool, self.projection, self.layout = trunk, pool, projection, layout

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b r d"]]:
        features = self.trunk(pixels)
        cells = self.layout.to_grid(features).flatten(2).transpose(1, 2)
        return self.projection(self.pool(features)), self.projection(cells)


class Still(nn.Module):
    """A network in evaluation whatever the training says: its normalisations and dropouts do nothing of their own.

    Args:
        network: taken as it is.
        learns: whether its weights are trained all the same; left out, they are frozen.
    """

    def __init__(self, network: nn.Module, *, learns: bool = False) -> None:
        super().__init__()
        self.network = network.requires_grad_(learns).eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, *given: Tensor) -> Any:
        return self.network(*given)


class TextWords(nn.Module):
    """An encoder's words half → the text, its tokens among the pictures, and which of them are its own words.

    Args:
        network: the half, as ``TextTower.module``, or that standing still; one that can be read token by token.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tokens: Tensor) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n t d"], Bool[Tensor, "n t"]]:
        network = self.network.network if isinstance(self.network, Still) else self.network
        read = encode_tokens(network, tokens)
        return read.pooled, read.vectors, read.words
