"""Train a small vision transformer on the outputs of the embedded network, for use where no pretrained one is at hand.

A ViT-Tiny of fewer blocks and pixels (Dosovitskiy et al. 2021, arXiv:2010.11929) is distilled (Hinton et al. 2015,
arXiv:1503.02531) on crops of any pictures, without labels. Its class token learns the embedded network's pooled vector
and predicted classes, and its patch tokens learn the vectors of the cells below them. Teacher and student get the same
crops. The result is a folder that loads by name, with ImageNet's classes, and works with every transformer method:

    python examples/small_vit.py --pictures photos/ more/ -o small_vit
    seewhy explain photo.jpg --encoder timm:./small_vit --where chefer

The same command continues a stopped run. ``--steps 0`` makes the untrained control.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.classifiers.linear.jitter import ASPECT
from seewhy.cli.terminal import Terminal
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder
from seewhy.errors import ImageError, InputError
from seewhy.pictures.images import random_crop, read_views
from seewhy.pictures.sources import list_pictures
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Task
from seewhy.types import Failure

N_MAP = 128  # numbers of a cell's vector that are kept: a random projection of 1,280 holds its distances well enough
BATCH = 32
HELD_OUT = 20  # every twentieth picture is never trained on


class Student(nn.Module):
    """The transformer, and the two linear maps from its tokens to what the teacher says."""

    def __init__(self, size: int, depth: int, n_pooled: int) -> None:
        super().__init__()
        self.about = {"img_size": size, "depth": depth, "num_classes": 1000}
        self.vit: Any = timm.create_model("vit_tiny_patch16_224", **self.about)
        self.to_pooled = nn.Linear(self.vit.embed_dim, n_pooled)
        self.to_map = nn.Linear(self.vit.embed_dim, N_MAP)
        self.vit.pos_embed.data[:] = positions(self.vit.patch_embed.grid_size[0], self.vit.embed_dim)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.vit.forward_features((pixels.float() / 127.5 - 1).contiguous())
        return self.to_pooled(tokens[:, 0]), self.to_map(tokens[:, 1:])


def positions(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, the class token at zero: neighbours are alike from the first step."""
    waves = torch.arange(side)[:, None] / 100 ** torch.linspace(0, 1, width // 4)
    line = torch.cat([waves.sin(), waves.cos()], 1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return 0.1 * F.pad(torch.cat([rows, columns], 2).flatten(0, 1), (0, 0, 1, 0))


def whiten(layer: nn.Conv2d, pixels: Tensor) -> None:
    """Start from the principal components of patches: every number of a first token varies alike, and none together."""
    patches = F.unfold(pixels.float() / 127.5 - 1, layer.kernel_size, stride=layer.stride).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    rows = (vectors / (values.clamp(min=0) + 0.01).sqrt()).flip(1)[:, : layer.out_channels].T
    layer.weight.data[:], layer.bias.data[:] = 0.5 * rows.unflatten(1, layer.weight.shape[1:]), -0.5 * rows @ mean


def look(teacher: Encoder, pictures: Sequence[str], n_crops: int, size: int, said: Terminal) -> dict[str, Tensor]:
    """Crops as the student sees them, what the teacher says of each, and which picture each is from."""
    grid = size // 16
    project = torch.randn(teacher.classifier.in_features, N_MAP, generator=torch.Generator().manual_seed(0))

    def read(number: int) -> Tensor | Failure:
        try:
            rngs = [np.random.default_rng([0, number, i]) for i in range(n_crops - 1)]
            views = [None, *(random_crop(rng, (0.15, 1.0), ASPECT, False) for rng in rngs)]
            return teacher.pixels([v.pixels for v in read_views(pictures[number], teacher.transform, views)])
        except ImageError as error:
            return Failure(pictures[number], error.reason)

    def parts() -> Iterator[dict[str, Tensor]]:
        with ThreadPoolExecutor(2) as pool:
            chunks = [range(i, min(i + 16, len(pictures))) for i in range(0, len(pictures), 16)]
            for chunk in said.track(chunks, "Asking the teacher", len(chunks)):
                for number, pixels in zip(chunk, pool.map(read, chunk), strict=True):
                    if isinstance(pixels, Failure):
                        said.failed(pixels)
                        continue
                    seen = teacher.encode(pixels)
                    small = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
                    cells = F.interpolate(seen.features, (grid, grid), mode="bilinear").flatten(2).transpose(1, 2)
                    yield {
                        "pixels": (small * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8),
                        "pooled": seen.pooled.half(),
                        "map": (cells @ project).half(),
                        "picture": torch.full((n_crops,), number),
                    }

    found = list(parts())
    if not found:
        raise InputError("No picture could be read, so there is nothing to learn from. Give other --pictures.")
    return {name: torch.cat([part[name] for part in found]).contiguous() for name in found[0]}


def distil(
    student: Student, teacher: Encoder, crops: dict[str, Tensor], how: Training, bf16: bool, **told: Any
) -> None:
    """Train on all crops but those of held-out pictures."""
    rows = (crops["picture"] % HELD_OUT != 0).nonzero()[:, 0]
    pooled, cells = crops["pooled"][rows].float(), crops["map"][rows[::20]].float()
    centre, spread = pooled.mean(0), pooled.var(0).mean()
    cell_centre, cell_spread = cells.mean((0, 1)), cells.var((0, 1)).mean()
    whiten(student.vit.patch_embed.proj, crops["pixels"][rows[:: max(1, len(rows) // 500)]])
    for layer, start in ((student.to_pooled, centre), (student.to_map, cell_centre)):
        layer.weight.data.mul_(0.1)
        layer.bias.data[:] = start

    columns = {"crops": lambda index, _: {name: crops[name][rows[index]] for name in ("pixels", "pooled", "map")}}
    task = Distilling(student, teacher, (spread, cell_spread), bf16)
    train(task, TrainingData(len(rows), columns), how, **told)


class Distilling(Task):
    """A student that learns what its teacher makes of crops."""

    needs = ("crops",)
    moves = False  # nor does the teacher

    def __init__(self, student: Student, teacher: Encoder, spreads: tuple[Tensor, Tensor], bf16: bool) -> None:
        super().__init__()
        self.student, self.teacher, self.spreads, self.bf16 = student, teacher, spreads, bf16

    def features(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """What was got, and what was wanted."""
        pixels, wanted, cells = (batch["crops"][name] for name in ("pixels", "pooled", "map"))
        if torch.rand(()) < 0.5:  # the mirror image, of which the teacher says nearly the same
            grid = self.student.vit.patch_embed.grid_size
            pixels, cells = pixels.flip(3), cells.unflatten(1, grid).flip(2).flatten(1, 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            got, got_cells = self.student(pixels)
        return {"pooled": (got.float(), wanted.float()), "map": (got_cells.float(), cells.float())}

    def loss(self, features: dict[str, tuple[Tensor, Tensor]], batch: Batch) -> dict[str, Tensor]:
        spreads = zip(features.items(), self.spreads, strict=True)
        # Shares of the variance that are not explained.
        terms = {name: (got - wanted).square().mean() / spread for (name, (got, wanted)), spread in spreads}
        got, wanted = (self.teacher.classifier(vectors) for vectors in features["pooled"])
        terms["classes"] = F.kl_div(got.log_softmax(1), wanted.softmax(1), reduction="batchmean")
        return {"loss": terms["pooled"] + 0.5 * terms["map"] + 0.2 * terms["classes"], **terms}


@torch.no_grad()
def measure(student: Student, teacher: Encoder, crops: dict[str, Tensor]) -> dict[str, float]:
    """On pictures never trained on: how near the teacher, beside what the mean vector alone would reach."""
    held = crops["picture"] % HELD_OUT == 0
    wanted, centre = crops["pooled"][held].float(), crops["pooled"][~held].float().mean(0)
    got = torch.cat([student(part)[0] for part in crops["pixels"][held].split(64)])
    same = teacher.classifier(got).argmax(1) == teacher.classifier(wanted).argmax(1)
    return {
        "n_held_out_crops": int(held.sum()),
        "cosine": F.cosine_similarity(got, wanted).mean().item(),
        "cosine_of_the_mean": F.cosine_similarity(centre[None], wanted).mean().item(),
        "cosine_less_the_mean": F.cosine_similarity(got - centre, wanted - centre).mean().item(),
        "variance_explained": 1 - ((got - wanted).square().sum() / (wanted - centre).square().sum()).item(),
        "same_class_as_teacher": same.float().mean().item(),
    }


def save(student: Student, teacher: Encoder, folder: Path) -> None:
    """The folder timm writes, with ImageNet's classes read through the map to the pooled vector."""
    vit, last = student.vit, teacher.classifier
    vit.head.weight.data[:] = last.weight @ student.to_pooled.weight
    vit.head.bias.data[:] = last.weight @ student.to_pooled.bias + last.bias
    half, size = (0.5, 0.5, 0.5), student.about["img_size"]
    vit.pretrained_cfg.update(
        input_size=(3, size, size), mean=half, std=half, interpolation="bicubic", crop_pct=0.875, num_classes=1000
    )
    vit.pretrained_cfg.update(tag="distilled_from_lite0", hf_hub_id=None, url="")
    timm.models.save_for_hf(vit, folder, model_args=student.about, safe_serialization=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", nargs="+", required=True, help="files and folders, without labels")
    parser.add_argument("-o", "--output", type=Path, default=Path("small_vit"))
    parser.add_argument("--size", type=int, default=128, help="side of the input in pixels, a multiple of 16")
    parser.add_argument("--depth", type=int, default=8, help="number of blocks")
    parser.add_argument("--crops", type=int, default=12, help="crops per picture")
    parser.add_argument("--steps", type=int, default=2000, help=f"batches of {BATCH} crops; 0 trains nothing")
    parser.add_argument("--engine", default="auto", help="engine for the teacher")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16: faster on processors that support it")
    asked = parser.parse_args()

    said, teacher = Terminal(), encoder("lite0", engine=asked.engine)
    torch.manual_seed(0)
    student = Student(asked.size, asked.depth, teacher.classifier.in_features)
    asked.output.mkdir(parents=True, exist_ok=True)
    pictures = sorted(list_pictures(asked.pictures))
    asked_of_teacher = repr((pictures, asked.crops, asked.size, asked.engine)).encode()
    cache = asked.output / f"crops-{hashlib.sha256(asked_of_teacher).hexdigest()[:12]}.safetensors"
    checkpoint = asked.output / "checkpoint.safetensors"
    if not cache.exists():
        save_file(look(teacher, pictures, asked.crops, asked.size, said), cache)
    crops = load_file(cache)
    print(f"{len(crops['picture'].unique())} pictures, {len(crops['picture'])} crops")
    if asked.steps:
        how = Training(asked.steps, batch_size=BATCH, lr=1e-3, weight_decay=0.05, checkpoint_every=20)
        distil(student, teacher, crops, how, asked.bf16, checkpoint=(checkpoint, str(asked)), progress=said)
    student.eval()
    measured = measure(student, teacher, crops)
    save(student, teacher, asked.output)
    (asked.output / "measured.json").write_text(json.dumps(vars(asked) | measured, indent=1, default=str))
    for file in (cache, checkpoint):
        file.unlink(missing_ok=True)
    for name, value in measured.items():
        print(f"  {name.replace('_', ' '):<24} {value:.3f}" if name[0] != "n" else f"  {value} held-out crops:")
    print(f"Use it: seewhy explain photo.jpg --encoder timm:{asked.output.resolve()} --where chefer")


if __name__ == "__main__":
    main()
