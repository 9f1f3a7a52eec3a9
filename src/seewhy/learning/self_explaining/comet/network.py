"""Networks, training and mask of COMET (Zhang et al. 2024, arXiv 2407.19308)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from ....attributions import attributions
from ....attributions.base import Attribution, Explainable
from ....classifiers.network import Network
from ....encoders.base import Encoder, EncoderOutput
from ....encoders.split import fingerprint, freeze
from ....errors import InputError, needs
from ....heads.head import Target, TargetFunction
from ....seeded import seeded
from ....training.batches import Batch
from ....training.task import Task
from ....types import Transform
from ...adaptation.backbone import Predictor, TunedNetwork
from ...encoders.delta import load_delta, state_delta

Kind = Literal["unet", "lraspp"]
Fill = Literal["black", "mean"]
Mode = Literal["2p", "3p", "post_hoc"]
Norm = Literal["frozen", "batch"]


class Selector(nn.Module):
    """Mask network ``S = sigmoid(upsample(network(pixels)))``, with one mask per picture."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        return enlarged(self.network(pixels), pixels).sigmoid()[:, 0]


def make_selector(kind: Kind) -> Selector:
    if kind == "unet":
        return Selector(UNet())
    with needs("torchvision", "The selector 'lraspp'"):
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    return Selector(_Out(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1)))


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al. 2015, arXiv 1505.04597), starting at half resolution."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 64)) -> None:
        super().__init__()
        self.start = _block(3, widths[0], stride=2)
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in pairwise(widths))
        pairs = list(pairwise(widths))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in reversed(pairs))
        self.last = nn.Conv2d(widths[0], 1, 1)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 gh gw"]:
        maps = [self.start(pixels)]
        for step in self.down:
            maps.append(step(maps[-1]))
        x = maps.pop()
        for step in self.up:
            finer = maps.pop()
            x = step(torch.cat([finer, enlarged(x, finer)], 1))
        return self.last(x)


def _block(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    first, second = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(n_out), nn.ReLU(), second, nn.BatchNorm2d(n_out), nn.ReLU())


class _Out(nn.Module):
    """A torchvision segmentation network that returns its main output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.network(pixels)["out"]


def enlarged(maps: Float[Tensor, "b c _h _w"], like: Float[Tensor, "b _c h w"]) -> Float[Tensor, "b c h w"]:
    return interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)


class Hide(nn.Module):
    """Replacement of hidden pixels by a fill colour ``q``: ``x ∘ S + q ∘ (1 − S)`` for picture ``x`` and mask ``S``."""

    q: Tensor

    def __init__(self, fill: Fill, transform: Transform) -> None:
        super().__init__()
        black = -torch.tensor(transform.mean) / torch.tensor(transform.std)
        colour = black if fill == "black" else torch.zeros(3)
        self.register_buffer("q", colour[:, None, None], persistent=False)

    def forward(self, pixels: Float[Tensor, "b 3 h w"], mask: Float[Tensor, "b h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.q + (pixels - self.q) * mask[:, None]


class SelectedTrunk(nn.Module):
    def __init__(self, selector: Selector, hide: Hide, trunk: nn.Module) -> None:
        super().__init__()
        self.selector, self.hide, self.trunk = selector, hide, trunk

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
        return self.trunk(self.hide(pixels, self.selector(pixels)))


@dataclass(frozen=True, eq=False)
class COMETNetwork(Network):
    """A selector and a predictor, with settings ``selector``, ``fill`` and ``frozen``."""

    where: ClassVar[str] = "comet"

    selector: Selector
    predictor: TunedNetwork
    settings: dict[str, Any]

    def encoder(self) -> Encoder:
        plain, own, fill = self.predictor.encoder(), self.base, self.settings["fill"]
        masked = freeze(SelectedTrunk(self.selector, Hide(fill, plain.transform), plain.trunk))
        whole = nn.ModuleList([masked, plain.head])
        text = (lambda: own.text) if self.settings["frozen"] and own.has_text else None
        digest = f"{fingerprint(whole, plain.transform)}-{fill}"
        return plain.but(trunk=lambda: masked, module=lambda: whole, text=text, fingerprint=digest)

    def tensors(self) -> dict[str, Tensor]:
        return state_delta({"selector": self.selector}, {}, whole=True) | self.predictor.tensors()

    def facts(self) -> dict[str, Any]:
        return {**self.settings, **self.predictor.facts()}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        with seeded(0):
            selector = make_selector(facts["selector"])
        load_delta({"selector": selector}, tensors, whole=True)
        own = {n: t for n, t in tensors.items() if not n.startswith("selector.")}
        settings = {name: facts[name] for name in ("selector", "fill", "frozen")}
        freeze(selector)
        return cls(base, selector, TunedNetwork.restore(base, facts, own), settings)


Objective = Callable[[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "b h w"]], Float[Tensor, ""]]
"""Loss of the selector, from the cross entropies of predictor and detector, and the masks."""


class Playing(Task):
    """Joint training of selector, predictor and detector."""

    needs = ("pixels", "labels")

    def __init__(
        self,
        selector: Selector,
        predictor: Predictor,
        detector: Predictor,
        mode: Mode,
        objective: Objective,
        hide: Hide,
        pretrained: bool = False,
        detector_norm: Norm = "frozen",
    ) -> None:
        super().__init__()
        self.selector, self.predictor, self.detector = selector, predictor, detector
        self.objective, self.hide, self.pretrained = objective, hide, pretrained
        self.names = {"selector"} | {"2p": {"predictor"}, "3p": {"predictor", "detector"}, "post_hoc": set()}[mode]
        self.drifts = detector_norm == "batch" and mode == "2p"
        self.free()

    def free(self) -> None:
        for name in ("selector", "predictor", "detector"):
            self.get_submodule(name).requires_grad_(name in self.names)

    def players(self) -> Mapping[str, nn.Module]:
        return {name: part for name, part in self.named_children() if name in self.names}

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """Return the mask and the class scores of the shown and of the hidden pixels."""
        pixels = batch["pixels"]
        changed = self.names | ({"detector"} if self.drifts else set())  # its averages drift
        for name in {"predictor", "detector"} - (set() if self.pretrained else changed):
            self.get_submodule(name).eval()
        mask = self.selector(pixels)
        return mask, self.predictor(self.hide(pixels, mask)), self.detector(self.hide(pixels, 1 - mask))

    def loss(self, features: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        (mask, shown, rest), labels = features, batch["labels"]
        ce_p, ce_d = cross_entropy(shown, labels), cross_entropy(rest, labels)
        return {
            "selector": self.objective(ce_p, ce_d, mask), "predictor": ce_p, "detector": ce_d, "area": mask.mean(),
            "right": (shown.argmax(1) == labels).float().mean(),
            "right on the rest": (rest.argmax(1) == labels).float().mean(),
        }  # fmt: skip


@attributions.register
@dataclass(frozen=True)
class COMETMask(Attribution):
    """The mask on which a COMET classifier bases its decision.

    The mask ``S(x)`` has the resolution of the picture ``x`` and values between 0 and 1. The input of the classifier is
    ``S ∘ x + (1 − S) ∘ q``, where ``q`` is a fill colour. The mask is the same for every class, so it cannot compare
    two classes.
    """

    name: ClassVar[str] = "comet"
    spelt: ClassVar[str] = "COMET"
    paper: ClassVar[str] = "Zhang et al. 2024, arXiv:2407.19308"
    needs: ClassVar[str] = "a classifier made with: seewhy fit --method comet"
    cost: ClassVar[str] = "0, and 1 of the selector"
    needs_pixels: ClassVar[bool] = True
    recipe: ClassVar[str] = "comet"

    @torch.no_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        selector = getattr(getattr(model, "network", None), "selector", None)
        if selector is None:
            raise InputError(
                "comet can only explain a comet classifier. Use grad_cam, or fit a classifier with: seewhy fit "
                "--method comet"
            )
        if isinstance(target, Target) and target.against is not None:
            raise InputError(
                "comet does not support contrasts, because its mask is the same for every class. Leave the contrast "
                "out, or use grad_cam."
            )
        device = next(selector.parameters()).device
        return selector(look.pixels_for(self.name).to(device)).cpu()
