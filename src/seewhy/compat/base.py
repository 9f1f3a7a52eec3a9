"""Base class, targets and display functions with the interface of pytorch-grad-cam."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..attributions.cam import first_component, stretched
from ..attributions.finer_cam import lead_over
from ..attributions.layers import Taps, bends_of, layout_of, refuse_windows, run_through
from ..encoders.base import Layout
from ..errors import InputError

Targets = Sequence[Callable[[Any], Tensor]]
"""Functions from the output for one picture, such as logits ``(k,)``, to a number; one per picture."""

Choose = Callable[[Any], Targets]
"""A function from the network's output to the targets."""


@dataclass(eq=False)
class ClassifierOutputTarget:
    """Logit of one class."""

    category: int

    def __call__(self, output: Tensor) -> Tensor:
        return output[..., self.category]


class ClassifierOutputSoftmaxTarget(ClassifierOutputTarget):
    """Probability of one class."""

    def __call__(self, output: Tensor) -> Tensor:
        return output.softmax(-1)[..., self.category]


class ClassifierOutputReST(ClassifierOutputTarget):
    """Sum of the logit and the log probability of one class (Cai 2025, arXiv 2501.06261)."""

    def __call__(self, output: Tensor) -> Tensor:
        return output[..., self.category] + output.log_softmax(-1)[..., self.category]


class BinaryClassifierOutputTarget(ClassifierOutputTarget):
    """Logit of a binary classifier with one output, negated for any class but 1."""

    def __call__(self, output: Tensor) -> Tensor:
        return output if self.category == 1 else -output


class SoftmaxOutputTarget:
    """Softmax of a single-number output."""

    def __call__(self, output: Tensor) -> Tensor:
        return output.softmax(-1)


class RawScoresOutputTarget:
    """Unchanged single-number output."""

    def __call__(self, output: Tensor) -> Tensor:
        return output


@dataclass(eq=False)
class SemanticSegmentationTarget:
    """Sum of the scores of one class ``(k, h, w)`` over the pixels of a mask."""

    category: int
    mask: np.ndarray

    def __call__(self, output: Tensor) -> Tensor:
        return (output[self.category] * torch.from_numpy(self.mask).to(output.device)).sum()


@dataclass(eq=False)
class FasterRCNNBoxScoreTarget:
    """Sum over the given boxes of the overlap and the score of the best matching detected box."""

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
    """Logit of a class minus the weighted logits of other classes; see :mod:`seewhy.attributions.finer_cam`."""

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
    """Check that there is one target per picture; pytorch-grad-cam returns empty maps for missing targets."""
    if callable(targets) or len(targets) != n_pictures:
        n = 1 if callable(targets) else len(targets)
        raise InputError(
            f"`targets` must be a list with one target per picture, got {n} target(s) for {n_pictures} picture(s)."
        )
    wrong = next((t for t in targets if not callable(t)), None)
    if wrong is not None:
        raise InputError(
            f"`targets` must be functions, such as ClassifierOutputTarget(281), got {wrong!r} of type "
            f"{type(wrong).__name__}."
        )


def highest(output: Any) -> Targets:
    """Return the class with the highest output of each picture as its target."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"Without targets, the network's output must have the shape (b, k), got {shape}. Give one target per "
            "picture: a function of the output for that picture."
        )
    return [ClassifierOutputTarget(category) for category in output.argmax(1).tolist()]


def scores(targets: Targets, output: Any) -> Tensor:
    """Return the value of each target, ``(n,)``; with more pictures than targets, the targets are repeated in turn."""
    if not isinstance(output, Tensor | list | tuple) or len(output) % len(targets):
        raise InputError(
            f"The network must return a tensor or list with one row per picture, got a {type(output).__name__}. Wrap "
            "the network in a module that returns one."
        )
    try:
        found = [targets[i % len(targets)](row) for i, row in enumerate(output)]
    except IndexError as error:
        raise InputError(
            f"The index of a target is outside the network's output: {error}. Indices count from 0."
        ) from error
    wrong = next((value for value in found if value.numel() != 1), None)
    if wrong is not None:
        raise InputError(
            f"A target must return one number per picture, got the shape {tuple(wrong.shape)}. Use "
            "ClassifierOutputTarget, for example."
        )
    return torch.stack([value.reshape(()) for value in found])


_log = logging.getLogger("seewhy")

Reshape = Callable[[Any], Tensor]
"""A function from a layer's output to ``(b, c, h, w)``."""


class TestTimeTransform(Protocol):
    """A test-time augmentation with the methods of ttach's transforms."""

    def augment_image(self, image: Tensor, /) -> Tensor: ...

    def deaugment_mask(self, mask: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class View:
    """A horizontal flip and multiplication by a factor."""

    flip: bool = False
    factor: float = 1.0

    def augment_image(self, image: Float[Tensor, "b p h w"]) -> Float[Tensor, "b p h w"]:
        return self.deaugment_mask(image) * self.factor

    def deaugment_mask(self, mask: Float[Tensor, "b q h w"]) -> Float[Tensor, "b q h w"]:
        return mask.flip(3) if self.flip else mask


SIX_VIEWS = tuple(View(flip, factor) for flip in (False, True) for factor in (0.9, 1.0, 1.1))
"""The test-time augmentations of pytorch-grad-cam."""


@dataclass(eq=False, repr=False)
class PeerCAM(AbstractContextManager["PeerCAM"], ABC):
    """A class activation map with the interface of pytorch-grad-cam.

    Args:
        model: any network whose output has one row per picture.
        target_layers: layers of this network; maps of several layers are averaged.
        reshape_transform: function from a layer's output to ``(b, c, h, w)``; default: the layout is detected, even for
            tokens.
        tta_transforms: test-time augmentations for ``aug_smooth``; default: the six of pytorch-grad-cam.

    Attributes:
        outputs: output of the network in the last call.
    """

    model: nn.Module
    target_layers: Sequence[nn.Module]
    reshape_transform: Reshape | None = None
    tta_transforms: Iterable[TestTimeTransform] | None = field(default=None, kw_only=True)
    outputs: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Check the target layers and find their names."""
        names = {id(part): name for name, part in self.model.named_modules() if name}
        if isinstance(self.target_layers, nn.Module) or not self.target_layers:
            raise InputError("`target_layers` must be a list with at least one layer. Write target_layers=[layer].")
        unknown = [type(layer).__name__ for layer in self.target_layers if id(layer) not in names]
        if unknown:
            raise InputError(
                f"`target_layers` must be layers of model, and {unknown[0]} is not a layer of this "
                f"{type(self.model).__name__}. It may be a layer of a copy."
            )
        self._layers = {names[id(layer)]: layer for layer in self.target_layers}

    def __call__(
        self, input_tensor: Tensor, targets: Targets | None = None, aug_smooth: bool = False, eigen_smooth: bool = False
    ) -> np.ndarray:
        """Return maps ``(b, h, w)``, each scaled to 0…1."""
        if input_tensor.ndim != 4:
            raise InputError(
                f"`input_tensor` must have the shape (b, channels, h, w), got {tuple(input_tensor.shape)}."
            )
        if targets is None:
            return self.explain(input_tensor, highest, aug_smooth, eigen_smooth)
        check_targets(targets, len(input_tensor))
        return self.explain(input_tensor, lambda _: targets, aug_smooth, eigen_smooth)

    def explain(self, pixels: Tensor, choose: Choose, aug_smooth: bool, eigen_smooth: bool) -> np.ndarray:
        """Compute maps of the targets that ``choose`` returns for the network's output."""
        device = next((p.device for p in self.model.parameters()), pixels.device)
        modes = [(part, part.training) for part in self.model.modules()]
        self.model.eval()
        try:
            found = []
            views = SIX_VIEWS if self.tta_transforms is None else self.tta_transforms
            for view in views if aug_smooth else (View(),):
                seen = view.augment_image(pixels.detach().to(device)).contiguous(memory_format=torch.channels_last)
                layers = [
                    interpolate(stretched(one.relu(), (1, 2))[:, None], size=pixels.shape[2:], mode="bilinear")[:, 0]
                    for one in self.maps(seen, choose, eigen_smooth)
                ]
                shown = stretched(torch.stack(layers).relu().mean(0), (1, 2))
                found.append(view.deaugment_mask(shown[:, None])[:, 0])
        finally:
            for part, mode in modes:
                part.training = mode
        return torch.stack(found).mean(0).cpu().numpy()

    @abstractmethod
    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        """Return signed maps, one tensor per layer."""

    def arranged(self, out: Any, pixels: Tensor, name: str) -> Float[Tensor, "b c h w"]:
        """Return a layer's output in the layout ``(b, c, h, w)``."""
        return (self.reshape_transform or layout(out, pixels, name).to_grid)(out)

    def slopes(
        self, pixels: Float[Tensor, "b p h w"], choose: Choose, less_bends: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """Return, for each layer, the output and the gradient of the targets, both ``(b, c, h, w)``."""
        taps = Taps(self._layers, cut=True)
        output = self._run(pixels, taps)
        leaves = [taps.only(name) for name in self._layers]
        with torch.enable_grad():
            score = scores(choose(output), output).sum()
            gradients = torch.autograd.grad(score, leaves, allow_unused=True, create_graph=less_bends)
        found = []
        for name, leaf, gradient in zip(self._layers, leaves, gradients, strict=True):
            if gradient is None:
                raise InputError(f"The output does not depend on the target layer {name!r}. Choose another layer.")
            slope = gradient.detach() - bends_of([gradient], [leaf])[0] / 2 if less_bends else gradient
            found.append(tuple(self.arranged(part, pixels, name).float() for part in (leaf.detach(), slope)))
        return found  # type: ignore[return-value]

    def heard(self, pixels: Tensor) -> tuple[list[tuple[str, Any, Tensor]], Any]:
        """Return the name, the raw output and the ``(b, c, h, w)`` output of each layer, and the network's output."""
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

    def __exit__(self, *_: object) -> None:
        """Do nothing; no hooks remain in the model."""


def summed(products: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
    """Return the sum over channels or, with ``eigen_smooth``, the first principal component."""
    return first_component(products, products.sum(1)) if eigen_smooth else products.sum(1)


def layout(out: Any, pixels: Tensor, name: str) -> Layout:
    """Return the layout of a layer's output."""
    if not isinstance(out, Tensor):
        raise InputError(
            f"The layer {name!r} must return a tensor, got a {type(out).__name__}. Choose a layer inside it, or give a "
            "reshape_transform that returns (b, c, h, w)."
        )
    refuse_windows(out, len(pixels), name)
    size = (pixels.shape[2], pixels.shape[3])
    if out.ndim == 4 and 1 in (out.shape[2] * out.shape[3], out.shape[1] * out.shape[2]):
        text = (
            "The output of the layer %r is 1 x 1 for a picture of %d x %d, so its map is 0. Name an earlier layer, or "
            "give "
        )
        _log.warning(f"{text}larger pictures.", name, *size)
        return Layout("nchw" if out.shape[2] * out.shape[3] == 1 else "nhwc")
    return layout_of(tuple(out.shape), size, Layout(), name)
