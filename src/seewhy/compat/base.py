"""The base of pytorch-grad-cam's calls: layers, targets, smoothing and display; a method writes its maps."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..attributions.cam import first_component
from ..attributions.finer_cam import lead_over
from ..attributions.layers import Taps, bends_of, layout_of, refuse_windows, run_through
from ..encoders.base import Layout
from ..errors import InputError

Targets = Sequence[Callable[[Any], Tensor]]
"""One a picture: a picture's own output, ``(k,)`` of a classifier → a number."""

Choose = Callable[[Any], Targets]
"""The network's output for all pictures → their targets."""


@dataclass(eq=False)
class ClassifierOutputTarget:
    """The logit of one class."""

    category: int

    def __call__(self, output: Tensor) -> Tensor:
        return output[..., self.category]


class ClassifierOutputSoftmaxTarget(ClassifierOutputTarget):
    """The probability of one class."""

    def __call__(self, output: Tensor) -> Tensor:
        return output.softmax(-1)[..., self.category]


class ClassifierOutputReST(ClassifierOutputTarget):
    """The logit and the log of the probability, added (Cai 2025, arXiv 2501.06261)."""

    def __call__(self, output: Tensor) -> Tensor:
        return output[..., self.category] + output.log_softmax(-1)[..., self.category]


class BinaryClassifierOutputTarget(ClassifierOutputTarget):
    """The single logit of a two-class network, negated for the class that is not 1."""

    def __call__(self, output: Tensor) -> Tensor:
        return output if self.category == 1 else -output


class SoftmaxOutputTarget:
    """The output's softmax; for outputs of one number."""

    def __call__(self, output: Tensor) -> Tensor:
        return output.softmax(-1)


class RawScoresOutputTarget:
    """The output itself; for outputs of one number."""

    def __call__(self, output: Tensor) -> Tensor:
        return output


@dataclass(eq=False)
class SemanticSegmentationTarget:
    """The scores of one class ``(k, h, w)``, added up over the pixels of a mask."""

    category: int
    mask: np.ndarray

    def __call__(self, output: Tensor) -> Tensor:
        return (output[self.category] * torch.from_numpy(self.mask).to(output.device)).sum()


@dataclass(eq=False)
class FasterRCNNBoxScoreTarget:
    """How well a detector finds the given boxes again: overlap plus score of the best box for each, summed."""

    labels: Sequence[int]
    bounding_boxes: Any
    iou_threshold: float = 0.5

    def __call__(self, output: dict[str, Tensor]) -> Tensor:
        from torchvision.ops import box_iou

        boxes = output["boxes"]
        total = boxes.new_zeros(1)
        if not len(boxes):
            return total
        for box, label in zip(self.bounding_boxes, self.labels, strict=True):
            overlaps = box_iou(torch.as_tensor(box, device=boxes.device, dtype=boxes.dtype)[None], boxes)[0]
            best = overlaps.argmax()
            if overlaps[best] > self.iou_threshold and output["labels"][best] == label:
                total = total + overlaps[best] + output["scores"][best]
        return total


@dataclass(eq=False)
class FinerWeightedTarget:
    """A class's logit minus other classes', weighted by probability; see :mod:`seewhy.attributions.finer_cam`."""

    main_category: int
    comparison_categories: Sequence[int]
    alpha: float

    def __call__(self, output: Tensor) -> Tensor:
        rows = output if output.ndim == 2 else output[None]
        classes = torch.tensor([self.main_category], device=rows.device).expand(len(rows))
        others = torch.tensor([[*self.comparison_categories]], device=rows.device).expand(len(rows), -1)
        weights = rows.softmax(1).gather(1, others)
        found = lead_over(rows, classes, others, self.alpha, weights / (weights.sum(1, keepdim=True) + 1e-9))
        return found if output.ndim == 2 else found[0]


def check_targets(targets: Targets, n_pictures: int) -> None:
    """Refuse a list of another length: pytorch-grad-cam would give the remaining pictures empty maps silently."""
    if callable(targets) or len(targets) != n_pictures:
        n = 1 if callable(targets) else len(targets)
        raise InputError(
            f"{n} target(s) were given for {n_pictures} picture(s). Expected one target per picture. Give a list of "
            "that length."
        )
    wrong = next((t for t in targets if not callable(t)), None)
    if wrong is not None:
        raise InputError(
            f"The target {wrong!r} is of the type {type(wrong).__name__}. Expected a function of one picture's output. "
            "Write ClassifierOutputTarget(class index)."
        )


def highest(output: Any) -> Targets:
    """The class with the highest output of each picture."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"No targets were given, and the network's output {shape} has no highest class. Expected an output "
            "(b, k). Give one target per picture: a function of that picture's output."
        )
    return [ClassifierOutputTarget(category) for category in output.argmax(1).tolist()]


def scores(targets: Targets, output: Any) -> Tensor:
    """The targets' numbers, ``(n,)``; if there are more rows than targets, the targets repeat."""
    if not isinstance(output, Tensor | list | tuple) or len(output) % len(targets):
        raise InputError(
            f"The network returns a {type(output).__name__}. Expected a tensor, or a list with one row per "
            "picture. Wrap the network in a module that returns one."
        )
    try:
        found = [targets[i % len(targets)](row) for i, row in enumerate(output)]
    except IndexError as error:
        raise InputError(
            f"A target asks for an output that the network does not have: {error}. Expected one of its outputs, "
            "counted from 0. Correct the target."
        ) from error
    wrong = next((value for value in found if value.numel() != 1), None)
    if wrong is not None:
        raise InputError(
            f"A target returns the shape {tuple(wrong.shape)} for one picture. Expected one number. Choose one of "
            "the outputs, for example with ClassifierOutputTarget."
        )
    return torch.stack([value.reshape(()) for value in found])


_log = logging.getLogger("seewhy")

Reshape = Callable[[Any], Tensor]
"""What a layer gives → ``(b, c, h, w)``."""


class TestTimeTransform(Protocol):
    """One changed view of the pictures, with the methods of ttach's views."""

    def augment_image(self, image: Tensor, /) -> Tensor: ...

    def deaugment_mask(self, mask: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class View:
    """Pictures flipped and multiplied by a factor."""

    flip: bool = False
    factor: float = 1.0

    def augment_image(self, image: Float[Tensor, "b p h w"]) -> Float[Tensor, "b p h w"]:
        return self.deaugment_mask(image) * self.factor

    def deaugment_mask(self, mask: Float[Tensor, "b q h w"]) -> Float[Tensor, "b q h w"]:
        return mask.flip(3) if self.flip else mask


SIX_VIEWS = tuple(View(flip, factor) for flip in (False, True) for factor in (0.9, 1.0, 1.1))
"""The peer's."""


@dataclass(eq=False, repr=False)
class PeerCAM(ABC):
    """A class activation map with pytorch-grad-cam's arguments.

    Args:
        model: any network whose output has one row per picture.
        target_layers: layers of this network; the maps of several are averaged.
        reshape_transform: a layer's output → ``(b, c, h, w)``; left out, SeeWhy finds the layout, tokens included.
        tta_transforms: the views that ``aug_smooth`` averages over; left out, pytorch-grad-cam's six.

    Attributes:
        outputs: the network's output for the pictures explained last.
    """

    model: nn.Module
    target_layers: Sequence[nn.Module]
    reshape_transform: Reshape | None = None
    tta_transforms: Iterable[TestTimeTransform] | None = field(default=None, kw_only=True)
    outputs: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Where the layers are in the model."""
        names = {id(part): name for name, part in self.model.named_modules() if name}
        if isinstance(self.target_layers, nn.Module) or not self.target_layers:
            raise InputError("target_layers is not a list. Expected a list of layers. Write target_layers=[layer].")
        unknown = [type(layer).__name__ for layer in self.target_layers if id(layer) not in names]
        if unknown:
            raise InputError(
                f"The target layer {unknown[0]} is not inside {type(self.model).__name__}. Expected a layer of "
                "this network. Take it from the network itself, not from a copy."
            )
        self._layers = {names[id(layer)]: layer for layer in self.target_layers}

    def __call__(
        self, input_tensor: Tensor, targets: Targets | None = None, aug_smooth: bool = False, eigen_smooth: bool = False
    ) -> np.ndarray:
        """Maps ``(b, h, w)``, from 0 to 1 in each picture that has one."""
        if input_tensor.ndim != 4:
            raise InputError(
                f"The input has the shape {tuple(input_tensor.shape)}. Expected pictures (b, channels, h, w). "
                "Give a volume slice by slice."
            )
        if targets is None:
            return self.explain(input_tensor, highest, aug_smooth, eigen_smooth)
        check_targets(targets, len(input_tensor))
        return self.explain(input_tensor, lambda _: targets, aug_smooth, eigen_smooth)

    def explain(self, pixels: Tensor, choose: Choose, aug_smooth: bool, eigen_smooth: bool) -> np.ndarray:
        """Maps of the targets, which are chosen when the outputs are known."""
        device = next((p.device for p in self.model.parameters()), pixels.device)
        modes = [(part, part.training) for part in self.model.modules()]
        self.model.eval()
        try:
            found = []
            views = SIX_VIEWS if self.tta_transforms is None else self.tta_transforms
            for view in views if aug_smooth else (View(),):
                seen = view.augment_image(pixels.detach().to(device)).contiguous(memory_format=torch.channels_last)
                layers = [
                    interpolate(unit(one.relu())[:, None], size=pixels.shape[2:], mode="bilinear")[:, 0]
                    for one in self.maps(seen, choose, eigen_smooth)
                ]
                shown = unit(torch.stack(layers).relu().mean(0))
                found.append(view.deaugment_mask(shown[:, None])[:, 0])
        finally:
            for part, mode in modes:
                part.training = mode
        return torch.stack(found).mean(0).cpu().numpy()

    @abstractmethod
    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        """Signed maps, one per layer."""

    def arranged(self, out: Any, pixels: Tensor, name: str) -> Float[Tensor, "b c h w"]:
        """A layer's output with the channels as the second axis."""
        return (self.reshape_transform or layout(out, pixels, name).to_grid)(out)

    def slopes(
        self, pixels: Float[Tensor, "b p h w"], choose: Choose, less_bends: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """For each layer its output and the targets' gradient there, ``(b, c, h, w)``."""
        taps = Taps(self._layers, cut=True)
        output = self._run(pixels, taps)
        leaves = [taps.only(name) for name in self._layers]
        with torch.enable_grad():
            score = scores(choose(output), output).sum()
            gradients = torch.autograd.grad(score, leaves, allow_unused=True, create_graph=less_bends)
        found = []
        for name, leaf, gradient in zip(self._layers, leaves, gradients, strict=True):
            if gradient is None:
                raise InputError(
                    f"The output does not depend on the layer {name!r}. Expected a layer that the output is "
                    "computed from. Choose another target layer."
                )
            slope = gradient.detach() - bends_of([gradient], [leaf])[0] / 2 if less_bends else gradient
            found.append(tuple(self.arranged(part, pixels, name).float() for part in (leaf.detach(), slope)))
        return found  # type: ignore[return-value]

    def heard(self, pixels: Tensor) -> tuple[list[tuple[str, Any, Tensor]], Any]:
        """Names of the layers, their outputs, the same with channels second, and the network's output."""
        taps = Taps(self._layers, cut=False)
        output = self._run(pixels, taps)
        outs = [(name, taps.only(name)) for name in self._layers]
        return [(name, out, self.arranged(out, pixels, name).float()) for name, out in outs], output

    @torch.no_grad()
    def _run(self, pixels: Tensor, taps: Taps) -> Any:
        self.outputs = None
        output: Any = run_through(self.model, dict(self._layers), pixels, taps)
        self.outputs = output.detach() if isinstance(output, Tensor) else output
        return output

    def __enter__(self) -> PeerCAM:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027
        """Nothing was left in the model that would have to be taken out."""


def unit(maps: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """The map as the peer shows it: minus its lowest value, divided by the highest; without contrast it is 0."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax((1, 2), keepdim=True))


def summed(products: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
    """Weighted channels as one map: their sum, or their first component with the sign of the sum."""
    return first_component(products, products.sum(1)) if eigen_smooth else products.sum(1)


def layout(out: Any, pixels: Tensor, name: str) -> Layout:
    """How a layer arranges its output; a single cell per picture counts as a map, though an empty one."""
    if not isinstance(out, Tensor):
        raise InputError(
            f"The layer {name!r} returns a {type(out).__name__}. Expected a tensor. Name a layer inside it, or "
            "give a reshape_transform that returns (b, c, h, w)."
        )
    refuse_windows(out, len(pixels), name)
    size = (pixels.shape[2], pixels.shape[3])
    if out.ndim == 4 and 1 in (out.shape[2] * out.shape[3], out.shape[1] * out.shape[2]):
        text = (
            "The layer %r has only one cell for a picture of %d x %d, so its map is 0. Name an earlier layer, or give "
        )
        _log.warning(f"{text}larger pictures.", name, *size)
        return Layout("nchw" if out.shape[2] * out.shape[3] == 1 else "nhwc")
    return layout_of(tuple(out.shape), size, Layout(), name)
