"""torch-cam's extractors, from our mathematics: hooks keep what a layer gives while you run the network yourself.

``extractor = GradCAM(model, "layer4"); scores = model(pixels); maps = extractor(class_idx, scores)``
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..attributions.cam import CAM as Rule
from ..attributions.finer_cam import lead_over, likest
from ..attributions.grad_cam import GradCAM as _GradCAM
from ..attributions.grad_cam_plus_plus import GradCAMPlusPlus as _GradCAMPlusPlus
from ..attributions.layers import layout_of
from ..attributions.layer_cam import LayerCAM as _LayerCAM
from ..attributions.score_cam import channel_scores
from ..attributions.xgrad_cam import XGradCAM as _XGradCAM
from ..encoders.base import Layout
from ..errors import InputError, ModelError, UnknownNameError
from .base import Reshape, arranged
from .targets import ClassifierOutputTarget, Targets, check_targets, scores

Classes = int | Sequence[int]
Layer = nn.Module | str


class Extractor(ABC):
    """Maps of what went through the network last.

    Args:
        model: any network; its weights may be frozen.
        target_layer: one layer or several, or their names; left out, the last that gives a map of more than one cell.
        input_shape: of the empty picture by which that layer is found.
        enable_hooks: listen from the beginning.
        reshape_transform: a layer's output → ``(b, c, h, w)``; left out, the arrangement is found, tokens included.
    """

    clips: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | Sequence[Layer] | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        enable_hooks: bool = True,
        reshape_transform: Reshape | None = None,
    ) -> None:
        self.model = model
        self.reshape_transform = reshape_transform
        self.target_names = _names(model, target_layer, input_shape)
        self._listens = enable_hooks
        self._pixels: Tensor | None = None
        self._outputs: dict[str, Tensor] = {}
        self.hook_handles = [model.register_forward_pre_hook(self._hear_pixels)]
        for name in self.target_names:
            self.hook_handles.append(model.get_submodule(name).register_forward_hook(self._hearing(name)))

    def __call__(
        self,
        class_idx: Classes | None = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: Callable[[Any], Tensor] | Targets | None = None,
        retain_graph: bool = False,
    ) -> list[Float[Tensor, "b _h _w"]]:
        """A map for each layer, at the layer's own size."""
        if self._pixels is None or len(self._outputs) < len(self.target_names):
            raise InputError("No picture went through the network yet. Run scores = model(pixels) first.")
        chosen = _targets(class_idx, targets, len(self._pixels))
        maps = self._maps(chosen, scores, retain_graph)
        maps = [found.detach().relu() if self.clips else found.detach() for found in maps]
        return [_from_0_to_1(found) for found in maps] if normalized else maps

    @abstractmethod
    def _maps(self, targets: Targets, scores: Any, retain_graph: bool) -> list[Tensor]:
        """Signed maps, one a layer."""

    def _grid(self, out: Tensor, name: str) -> Float[Tensor, "b c h w"]:
        assert self._pixels is not None
        return arranged(out, self._pixels, name, self.reshape_transform).float()

    def _hear_pixels(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        if self._listens:
            self._outputs.clear()
            self._pixels = args[0].detach()

    def _hearing(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_: nn.Module, args: Any, out: Any) -> Any:
            if not self._listens:
                return None
            own = out[0] if isinstance(out, tuple) else out
            if torch.is_grad_enabled() and not own.requires_grad:
                own = own.detach().requires_grad_()  # so that frozen networks have gradients behind the layer
            self._outputs[name] = own
            passed = own.clone()  # what follows may work in place
            return (passed, *out[1:]) if isinstance(out, tuple) else passed

        return hook

    def enable_hooks(self) -> None:
        self._listens = True

    def disable_hooks(self) -> None:
        self._listens = False

    def reset_hooks(self) -> None:
        """Forget what was heard."""
        self._pixels = None
        self._outputs = {}

    def remove_hooks(self) -> None:
        """Take the hooks out of the model."""
        for handle in self.hook_handles:
            handle.remove()
        self.hook_handles = []

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove_hooks()
        self.reset_hooks()

    @classmethod
    def fuse_cams(
        cls, cams: Sequence[Float[Tensor, "b _h _w"]], target_shape: tuple[int, int] | None = None
    ) -> Float[Tensor, "b _h _w"]:
        """The highest value of several layers' maps, at the size of the largest unless another is given."""
        if isinstance(cams, Tensor) or not cams:
            raise InputError("fuse_cams was given no list of maps. What an extractor returns was expected.")
        if len(cams) == 1:
            return cams[0]
        size = target_shape or (max(m.shape[1] for m in cams), max(m.shape[2] for m in cams))
        resized = [interpolate(cls._scaled(m)[:, None], size=size, mode="bilinear")[:, 0] for m in cams]
        return torch.stack(resized).amax(0)

    @classmethod
    def _scaled(cls, cam: Tensor) -> Tensor:
        return (2 * cam).tanh() if cls.scales else cam

    scales: ClassVar[bool] = False
    """Whether fusing brings maps of early layers up first (LayerCAM, equation 9)."""


class _GradientExtractor(Extractor):
    rule: ClassVar[Rule]

    def _maps(self, targets: Targets, scores: Any, retain_graph: bool) -> list[Tensor]:
        return self._weighed(_numbers(targets, scores), retain_graph)

    def _weighed(self, numbers: Float[Tensor, " b"], retain_graph: bool) -> list[Tensor]:
        leaves = [self._outputs[name] for name in self.target_names]
        if not numbers.requires_grad or not all(leaf.requires_grad for leaf in leaves):
            raise InputError("The scores were computed without gradients. Run the network outside torch.no_grad().")
        gradients = torch.autograd.grad(numbers.sum(), leaves, retain_graph=retain_graph, allow_unused=True)
        found = []
        for name, leaf, gradient in zip(self.target_names, leaves, gradients, strict=True):
            if gradient is None:
                raise InputError(f"The scores do not depend on the layer {name!r}. Choose another target layer.")
            found.append(self.rule.weigh(self._grid(leaf.detach(), name), self._grid(gradient, name)))
        return found


class GradCAM(_GradientExtractor):
    rule = _GradCAM()


class GradCAMpp(_GradientExtractor):
    """The paper's weights. Theirs (0.5.0) are ``Σ g² relu(g)``: they divide a copy, and the denominator is lost."""

    rule = _GradCAMPlusPlus()


class LayerCAM(_GradientExtractor):
    rule = _LayerCAM()
    scales = True


class XGradCAM(_GradientExtractor):
    rule = _XGradCAM()


class FinerCAM(_GradientExtractor):
    """Grad-CAM of a class's lead over those whose scores are nearest; see :mod:`seewhy.attributions.finer_cam`.

    Args:
        gamma: how strongly the others count.
        num_references: how many.
    """

    rule = _GradCAM()

    def __init__(self, *args: Any, gamma: float = 0.6, num_references: int = 3, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gamma = gamma
        self.num_references = num_references

    def _maps(self, targets: Targets, scores: Any, retain_graph: bool) -> list[Tensor]:
        if not all(isinstance(target, ClassifierOutputTarget) for target in targets) or not isinstance(scores, Tensor):
            raise InputError("FinerCAM compares classes. class_idx and the network's scores (b, k) were expected.")
        classes = torch.tensor([t.category for t in targets], device=scores.device)  # type: ignore[attr-defined]
        others = likest(scores.detach(), classes, self.num_references)
        equal = torch.full(others.shape, 1 / others.shape[1], device=scores.device)
        return self._weighed(lead_over(scores, classes, others, self.gamma, equal), retain_graph)


class CAM(Extractor):
    """The first of them (Zhou et al. 2016): channels weighed by the last layer's row of the class.

    Args:
        fc_layer: the last layer or its name; left out, the network's only linear layer.
    """

    clips = False

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | Sequence[Layer] | None = None,
        fc_layer: Layer | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **options: Any,
    ) -> None:
        linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
        if fc_layer is None and len(linear) != 1:
            raise InputError(f"The network has {len(linear)} linear layers. One was expected. Name it as fc_layer.")
        name = _names(model, linear[0] if fc_layer is None else fc_layer, input_shape)[0]
        self.weights: Tensor = model.get_submodule(name).weight.detach().flatten(1)  # type: ignore[operator]
        super().__init__(model, target_layer, input_shape, **options)
        if len(self.target_names) != 1:
            raise InputError("CAM reads one layer, and several were given. Name the one before the pooling.")

    def _maps(self, targets: Targets, scores: Any, retain_graph: bool) -> list[Tensor]:
        if not all(isinstance(target, ClassifierOutputTarget) for target in targets):
            raise InputError("CAM explains classes, and functions of the output were given. Give class_idx.")
        name = self.target_names[0]
        rows = self.weights[[target.category for target in targets]]  # type: ignore[attr-defined]
        return [torch.einsum("bc,bchw->bhw", rows, self._grid(self._outputs[name].detach(), name))]


class ScoreCAM(Extractor):
    """Every channel is a mask. It is enlarged with corners aligned, which theirs does not.

    Args:
        batch_size: masked pictures a pass sees.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layer | Sequence[Layer] | None = None,
        batch_size: int = 32,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **options: Any,
    ) -> None:
        super().__init__(model, target_layer, input_shape, **options)
        self.bs = batch_size

    @torch.no_grad()
    def _maps(self, targets: Targets, scores: Any, retain_graph: bool) -> list[Tensor]:
        assert self._pixels is not None
        pixels, found = self._pixels, []
        with self._at_rest():
            for name in self.target_names:
                grid = self._grid(self._outputs[name].detach(), name)
                weights = channel_scores(
                    lambda masked: _numbers(targets, self.model(masked))[:, None],
                    pixels,
                    grid,
                    lambda values: values[:, 0],
                    0,
                    self.bs,
                ).softmax(1)
                found.append(torch.einsum("bc,bchw->bhw", weights, grid))
        return found

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Without hooks, in evaluation mode; both as they were afterwards."""
        listened, modes = self._listens, [(part, part.training) for part in self.model.modules()]
        self._listens = False
        self.model.eval()
        try:
            yield
        finally:
            self._listens = listened
            for part, mode in modes:
                part.training = mode


def _targets(class_idx: Classes | None, targets: Any, n_pictures: int) -> Targets:
    if (class_idx is None) == (targets is None):
        raise InputError("Either class_idx or targets was expected, and not both. Say what is to be explained.")
    if targets is not None:
        chosen = [targets] * n_pictures if callable(targets) else list(targets)
    else:
        classes = [class_idx] * n_pictures if isinstance(class_idx, int) else list(class_idx)  # type: ignore[arg-type]
        wrong = next((c for c in classes if not isinstance(c, int) or c < 0), None)
        if wrong is not None:
            raise InputError(f"The class {wrong!r} was given. The index of a class, from 0, was expected.")
        chosen = [ClassifierOutputTarget(c) for c in classes]
    check_targets(chosen, n_pictures)
    return chosen


def _numbers(targets: Targets, output: Any) -> Float[Tensor, " n"]:
    if output is None:
        raise InputError("The scores are missing. What the network gave was expected: extractor(class_idx, scores).")
    if isinstance(output, Tensor) and output.ndim == 2:
        last = max((t.category for t in targets if isinstance(t, ClassifierOutputTarget)), default=0)
        if last >= output.shape[1]:
            raise InputError(f"The class {last} was given, and there are {output.shape[1]}. Count from 0.")
    return scores(targets, output)


def _from_0_to_1(maps: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-8)


def _names(model: nn.Module, layers: Any, input_shape: tuple[int, ...]) -> list[str]:
    """Where the layers are in the model."""
    if layers is None:
        return [_last_map(model, input_shape)]
    parts = dict(model.named_modules())
    names = {id(part): name for name, part in parts.items() if name}
    found = []
    for layer in [layers] if isinstance(layers, nn.Module | str) else layers:
        if isinstance(layer, str):
            if layer not in parts:
                raise UnknownNameError("layer in the model", layer, parts)
            found.append(layer)
        elif id(layer) in names:
            found.append(names[id(layer)])
        else:
            raise InputError(
                f"The target layer {type(layer).__name__} is not inside {type(model).__name__}. One of its own, or its "
                "name, was expected."
            )
    return found


@torch.no_grad()
def _last_map(model: nn.Module, input_shape: tuple[int, ...]) -> str:
    """The last layer that gives a map of more than one cell."""
    device = next((p.device for p in model.parameters()), None)
    pixels = torch.zeros(1, *input_shape, device=device)
    found: list[str] = []

    def hear(name: str, out: Any) -> None:
        if isinstance(out, Tensor) and out.ndim == 4:
            try:
                layout_of(tuple(out.shape), input_shape[1:], Layout(), name)  # type: ignore[arg-type]
            except ModelError:
                return
            found.append(name)

    modes = [(part, part.training) for part in model.modules()]
    handles = [
        part.register_forward_hook(lambda _m, _a, out, name=name: hear(name, out))
        for name, part in model.named_modules()
        if name
    ]
    try:
        model.eval()(pixels)
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in modes:
            part.training = mode
    if not found:
        raise InputError("No layer of the network gives a map. Name the target_layer.")
    return found[-1]
