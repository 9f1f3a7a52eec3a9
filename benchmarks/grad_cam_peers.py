"""Grad-CAM from files as users of other libraries write it: by their README, and as somebody who knows them would.

Every function here takes file names and gives the class predicted and the map of it, for each picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Explain = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""File names → classes ``(b,)`` and maps ``(b, h, w)``."""
BATCH = 32


class Files(Dataset[Tensor]):
    """Pictures by Pillow and timm's evaluation transform."""

    def __init__(self, names: Sequence[str], prepare: Callable[[Image.Image], Tensor]) -> None:
        self.names = names
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        return self.prepare(Image.open(self.names[index]).convert("RGB"))


def transform_of(module: nn.Module) -> Any:
    return timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)


def batches(names: Sequence[str], prepare: Any, workers: int) -> DataLoader[Tensor]:
    return DataLoader(Files(names, prepare), batch_size=BATCH, num_workers=workers)


def joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([c for c, _ in parts]), torch.cat([m for _, m in parts])


def pytorch_grad_cam(
    module: nn.Module, layer: nn.Module, *, tuned: str = "", reshape: Any = None, workers: int = 0
) -> Explain:
    """Its call scales each map to the input's size and to 0…1; ``targets=None`` explains the class predicted.

    Args:
        module: the network, parameters open to gradients, as it is loaded.
        layer: whose map it is.
        tuned: ``"frozen"``: no parameter has a gradient, the input has, as its issue tracker advises, channels last;
            ``"one layer open"``: only the layer's own parameters have one, so that the backward pass ends there.
        reshape: tokens → maps.
        workers: processes that decode; 0 decodes between batches.
    """
    from pytorch_grad_cam import GradCAM

    cam = GradCAM(model=module, target_layers=[layer], reshape_transform=reshape)
    prepare = transform_of(module)

    def explain(names: Sequence[str]) -> tuple[Tensor, Tensor]:
        module.requires_grad_(not tuned)
        if tuned == "one layer open":
            layer.requires_grad_(True)
        parts = []
        for pixels in batches(names, prepare, workers):
            if tuned:
                pixels = pixels.contiguous(memory_format=torch.channels_last)
            maps = cam(input_tensor=pixels.requires_grad_(tuned == "frozen"), targets=None)
            parts.append((cam.outputs.argmax(1), torch.from_numpy(np.asarray(maps))))
        return joined(parts)

    return explain


def captum(module: nn.Module, layer: nn.Module, workers: int = 0) -> Explain:
    """Frozen, channels last. Captum wants the classes beforehand, so a prediction comes first."""
    from captum.attr import LayerGradCam

    grad_cam, prepare = LayerGradCam(module, layer), transform_of(module)

    def explain(names: Sequence[str]) -> tuple[Tensor, Tensor]:
        module.requires_grad_(False)
        parts = []
        for pixels in batches(names, prepare, workers):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                classes = module(pixels).argmax(1)
            maps = grad_cam.attribute(pixels.requires_grad_(), target=classes, relu_attributions=True)
            parts.append((classes, maps[:, 0].detach()))
        return joined(parts)

    return explain


def openvino_files(
    network: nn.Module, module: nn.Module, precision: str, keep: Callable[[Any, int], None]
) -> Callable[[Sequence[str]], None]:
    """OpenVINO's own queue over single pictures, which threads decode.

    Args:
        network: what is run.
        module: whose preprocessing it is.
        precision: ``"f32"`` or ``"bf16"``, the one SeeWhy's engine runs in.
        keep: gets a finished request and the number of its file.
    """
    import openvino as ov

    height, width = timm.data.resolve_model_data_config(module)["input_size"][1:]
    converted = ov.convert_model(network, example_input=torch.randn(1, 3, height, width))
    converted.reshape([1, 3, height, width])
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    compiled, prepare = ov.Core().compile_model(converted, "CPU", hints), transform_of(module)
    pool = ThreadPoolExecutor(2)

    def run(names: Sequence[str]) -> None:
        queue = ov.AsyncInferQueue(compiled)
        queue.set_callback(keep)
        files = Files(names, prepare)
        for start in range(0, len(names), BATCH):
            batch = range(start, min(start + BATCH, len(names)))
            for i, pixels in zip(batch, pool.map(files.__getitem__, batch), strict=True):
                queue.start_async([pixels[None].numpy()], i)
        queue.wait_all()

    return run


class FeaturesAndLogits(nn.Module):
    """What the closed form needs of a network whose head is a mean and one linear layer."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.module.forward_features(pixels)  # type: ignore[operator]
        return features, self.module.forward_head(features)  # type: ignore[operator]


def openvino_by_hand(module: nn.Module, precision: str) -> Explain:
    """The class's row of weights times the features that OpenVINO gives.

    Args:
        module: a network whose head is a mean and one linear layer.
        precision: ``"f32"`` or ``"bf16"``, the one SeeWhy's engine runs in.
    """
    weight = module.get_classifier().weight.detach().numpy()  # type: ignore[operator]
    found: dict[int, tuple[int, np.ndarray]] = {}

    def keep(request: Any, index: int) -> None:
        features, logits = (request.get_output_tensor(i).data[0] for i in (0, 1))
        k = int(logits.argmax())
        heat = np.einsum("c,chw->hw", weight[k], features) / features[0].size
        found[index] = (k, np.maximum(heat, 0))

    run = openvino_files(FeaturesAndLogits(module), module, precision, keep)

    def explain(names: Sequence[str]) -> tuple[Tensor, Tensor]:
        found.clear()
        run(names)
        maps = np.stack([found[i][1] for i in range(len(names))])
        return torch.tensor([found[i][0] for i in range(len(names))]), torch.from_numpy(maps)

    return explain


def agreement(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Pictures decided alike, and the least and median correlation of their maps, at the finer map's size."""
    same = (ours[0] == theirs[0]).nonzero()[:, 0].tolist()
    found = []
    for i in same:
        a, b = (m[1][i].relu()[None, None].float() for m in (ours, theirs))
        size = tuple(max(x, y) for x, y in zip(a.shape[2:], b.shape[2:], strict=True))
        a, b = (nn.functional.interpolate(m, size, mode="bilinear") if m.shape[2:] != size else m for m in (a, b))
        if float(a.std()) and float(b.std()):
            found.append(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]))
    least, middle = (round(min(found), 4), round(float(np.median(found)), 4)) if found else (None, None)
    return {"same_class": len(same), "least_correlation": least, "median_correlation": middle}
