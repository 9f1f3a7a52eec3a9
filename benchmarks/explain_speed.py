"""What an explanation costs: a prediction with its Grad-CAM map, beside pytorch-grad-cam and Captum, in one run.

All take the same normalised pictures and explain the same class, the one predicted. The peers run their own public
calls on the plain torch module, with the last feature map (``module.bn2``, ReLU6 included) as target layer. Rounds are
interleaved, so that whatever else the machine does falls on all alike; the median round counts.

    python benchmarks/explain_speed.py
    python benchmarks/explain_speed.py --engine openvino:f32 --rounds 9 --json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from side_by_side import in_turn
from torch import Tensor

from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as load_encoder

Explain = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pixels → classes ``(b,)`` and maps ``(b, h, w)``."""


def read_pictures(folder: Path | None, n: int, encoder: Encoder) -> Tensor:
    """Photographs from a folder, or smooth noise where none is given."""
    height, width = encoder.transform.input_size
    if folder is None:
        noise = torch.randn(n, 3, 9, 9, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(-1, 1).contiguous()
    from PIL import Image, ImageOps

    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:n]
    if len(paths) < n:
        raise SystemExit(f"{folder} has {len(paths)} pictures; {n} are needed.")
    fitted = [ImageOps.fit(Image.open(p).convert("RGB"), (width, height), Image.Resampling.BICUBIC) for p in paths]
    return encoder.pixels([np.asarray(picture) for picture in fitted])


def predict(encoder: Encoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The prediction alone; the second value is what an explanation starts from."""
    assert encoder.classifier is not None
    look = encoder.look(pixels)
    with torch.no_grad():
        return encoder.classifier(look.pooled).argmax(1), look.features


def seewhy_explain(encoder: Encoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Behind a mean-pooled linear head, Grad-CAM is the class's own row of weights times the features."""
    assert encoder.classifier is not None
    classes, features = predict(encoder, pixels)
    weights = encoder.classifier.weight.detach()[classes] / features[0, 0].numel()
    return classes, torch.bmm(weights[:, None], features.flatten(2)).relu().unflatten(2, features.shape[2:])[:, 0]


def pytorch_grad_cam(module: torch.nn.Module) -> Explain:
    """Its call scales each map to the input's size and to 0…1; ``targets=None`` explains the class predicted."""
    from pytorch_grad_cam import GradCAM

    cam = GradCAM(model=module, target_layers=[module.bn2])

    def explain(pixels: Tensor) -> tuple[Tensor, Tensor]:
        maps = cam(input_tensor=pixels, targets=None)
        return cam.outputs.argmax(1), torch.from_numpy(np.asarray(maps))

    return explain


def captum(module: torch.nn.Module) -> Explain:
    """Captum wants the classes beforehand, so a prediction comes first."""
    from captum.attr import LayerGradCam

    grad_cam = LayerGradCam(module, module.bn2)

    def explain(pixels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            classes = module(pixels).argmax(1)
        return classes, grad_cam.attribute(pixels, target=classes, relu_attributions=True)[:, 0].detach()

    return explain


def correlations(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> list[float]:
    """Per picture explained for the same class, at the coarser map's size."""
    found = []
    for i in range(len(ours[0])):
        if ours[0][i] != theirs[0][i]:
            continue
        a, b = ours[1][i], theirs[1][i]
        if a.shape != b.shape:  # the peer's own enlargement, so that only the maps differ
            from pytorch_grad_cam.utils.image import scale_cam_image

            a = torch.from_numpy(scale_cam_image([a.numpy()], (b.shape[1], b.shape[0]))[0])
        found.append(float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1]))
    return found


def measure(engine: str, batch: int, rounds: int, pictures: Path | None) -> dict[str, Any]:
    """Run everything ``rounds`` times in turn, after one round that does not count."""
    encoder = load_encoder("lite0", engine=engine)
    # The peers get the network as a user has it, its parameters open to gradients; the engine keeps its own module.
    module = load_encoder("lite0", engine="torch").module.requires_grad_(True)
    pixels = read_pictures(pictures, batch, encoder)
    contenders: dict[str, Explain] = {
        "predict": lambda x: predict(encoder, x),
        "explain": lambda x: seewhy_explain(encoder, x),
        "pytorch-grad-cam": pytorch_grad_cam(module),
        "captum": captum(module),
    }
    answers = {name: call(pixels.clone()) for name, call in contenders.items()}
    ours = ("predict", "explain") * 5  # so short that one alone would be mostly noise
    programs = {name: partial(call, pixels) for name, call in contenders.items()}
    times = in_turn(programs, rounds, ["pytorch-grad-cam", *ours, "captum", *ours])
    per_picture = {name: t.median / batch * 1000 for name, t in times.items()}
    explain = per_picture["explain"]
    return {
        "engine": encoder.engine.name,
        "precision": encoder.engine.precision,
        "batch": batch,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "ms_per_picture": {name: round(value, 3) for name, value in per_picture.items()},
        "explain_over_predict": round(explain / per_picture["predict"], 3),
        "times_faster": {name: round(per_picture[name] / explain, 1) for name in ("pytorch-grad-cam", "captum")},
        "same_class": {n: int((answers["explain"][0] == answers[n][0]).sum()) for n in ("pytorch-grad-cam", "captum")},
        "map_correlation": {
            name: {"least": round(min(found), 5), "median": round(float(np.median(found)), 5)}
            for name in ("pytorch-grad-cam", "captum")
            if (found := correlations(answers["explain"], answers[name]))
        },
    }


def show(result: dict[str, Any], console: Console) -> None:
    """The result as a table."""
    title = f"lite0, {result['engine']} {result['precision']}, batches of {result['batch']}, {result['rounds']} rounds"
    table = Table(
        "", "ms a picture", "SeeWhy is faster by", "same class", "map correlation (least, median)", title=title
    )
    for name, value in result["ms_per_picture"].items():
        faster, found = result["times_faster"].get(name), result["map_correlation"].get(name)
        table.add_row(
            name if faster else f"SeeWhy {name}",
            f"{value:.2f}",
            f"{faster:.1f} ×" if faster else "",
            f"{result['same_class'][name]}/{result['batch']}" if faster else "",
            f"{found['least']:.4f}, {found['median']:.4f}" if found else "",
        )
    console.print(table)
    console.print(f"An explanation costs {result['explain_over_predict']:.2f} × the prediction alone.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="auto", help="auto, openvino:f32, openvino:bf16, onnxruntime, torch")
    parser.add_argument("--batch", type=int, default=32, help="pictures in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--pictures", type=Path, help="a folder of photographs; smooth noise where none is given")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    result = measure(options.engine, options.batch, options.rounds, options.pictures)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result, Console())


if __name__ == "__main__":
    main()
