"""From JPEG files to lite0's embeddings: SeeWhy beside the loop people write, or its memory on a large folder.

The loop opens each file with Pillow, prepares it with timm's evaluation transform and runs timm's network on batches of
32, with the same weights. OpenVINO by hand prepares them alike, with its own queue and threads that decode, in the
precision of SeeWhy's engine. SeeWhy runs twice: with its engine, and with eager torch, which leaves what comes from
reading ahead in threads and from decoding large JPEGs at a fraction of their size.

The loops, as people write them, ignore colour profiles and EXIF orientation; SeeWhy applies both. The embeddings are
compared with the loop over upright sRGB pixels, and the result says how many files these two change.

    python benchmarks/files_to_embeddings.py
    python benchmarks/files_to_embeddings.py --pictures FOLDER --n 200 --rounds 3 --json
    python benchmarks/files_to_embeddings.py --memory 20000

Without a folder, photographs are made from scikit-image's samples: random parts, with the grain of a camera.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grad_cam_peers import batches, openvino_files, transform_of
from PIL import Image, ImageCms, ImageOps
from rich.console import Console
from rich.table import Table
from side_by_side import in_turn, keep_memory, ratios
from torch import Tensor

from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as load_encoder
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.pictures.sources import list_pictures

BATCH = 32
SMALL, LARGE, TINY = (640, 480), (2000, 1500), (320, 240)
TOLERANCE = 0.99
"""Least cosine with timm's embedding; JPEGs decoded at a fraction of their size differ by a pixel's rounding."""


def make_photographs(folder: Path, n: int, size: tuple[int, int], seed: int = 0) -> list[Path]:
    """Random parts of scikit-image's photographs at a camera's size, with its grain."""
    from skimage import data

    rng = np.random.default_rng(seed)
    scenes = [Image.fromarray(scene) for scene in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())]
    paths = []
    for i in range(n):
        scene = scenes[i % len(scenes)]
        width = rng.uniform(0.5, 1) * min(scene.width, scene.height * size[0] / size[1])
        height = width * size[1] / size[0]
        left, top = rng.uniform(0, scene.width - width), rng.uniform(0, scene.height - height)
        part = scene.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        grain = rng.normal(0, 5, (size[1], size[0], 1))
        pixels = np.clip(np.asarray(part) + grain, 0, 255).astype(np.uint8)
        paths.append(folder / f"{size[0]}_{i:04}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def read_pictures(folder: Path | None, n: int, encoder: Encoder) -> Tensor:
    """Photographs from a folder, or smooth noise where none is given."""
    height, width = encoder.transform.input_size
    if folder is None:
        noise = torch.randn(n, 3, 9, 9, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(-1, 1).contiguous()
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:n]
    if len(paths) < n:
        raise SystemExit(f"{folder} has {len(paths)} pictures; {n} are needed.")
    fitted = [ImageOps.fit(Image.open(p).convert("RGB"), (width, height), Image.Resampling.BICUBIC) for p in paths]
    return encoder.pixels([np.asarray(picture) for picture in fitted])


def as_stored(name: str) -> Image.Image:
    """What people write: the pixels as they lie in the file."""
    return Image.open(name).convert("RGB")


def upright_srgb(name: str) -> Image.Image:
    """The picture as a viewer shows it: turned by its EXIF, and in sRGB."""
    image = ImageOps.exif_transpose(Image.open(name))
    if (profile := image.info.get("icc_profile")) and image.mode in ("RGB", "L", "CMYK"):
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB") or image
    return image.convert("RGB")


def n_changed(names: Sequence[str]) -> int:
    """Files whose pixels a colour profile or EXIF orientation changes."""
    pairs = ((np.asarray(as_stored(n)), np.asarray(upright_srgb(n))) for n in names)
    return sum(a.shape != b.shape or np.abs(a.astype(int) - b).max() > 2 for a, b in pairs)


def plain_loop(
    module: torch.nn.Module, read: Callable[[str], Image.Image] = as_stored
) -> Callable[[Sequence[str]], Tensor]:
    """What people write: Pillow, timm's transform, batches, eager torch."""
    import timm

    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)

    @torch.no_grad()
    def embed(names: Sequence[str]) -> Tensor:
        found = []
        for start in range(0, len(names), BATCH):
            batch = torch.stack([prepare(read(n)) for n in names[start : start + BATCH]])
            found.append(module.forward_head(module.forward_features(batch), pre_logits=True))
        return torch.cat(found)

    return embed


def data_loader(module: torch.nn.Module) -> Callable[[Sequence[str]], Tensor]:
    """What those write who know torch: two decoding processes, channels last."""
    module = module.to(memory_format=torch.channels_last)
    prepare = transform_of(module)

    @torch.no_grad()
    def embed(names: Sequence[str]) -> Tensor:
        found = []
        for batch in batches(names, prepare, 2):
            pixels = batch.contiguous(memory_format=torch.channels_last)
            found.append(module.forward_head(module.forward_features(pixels), pre_logits=True))
        return torch.cat(found)

    return embed


class Pooled(torch.nn.Module):
    """Pixels → what the last layer reads."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        return self.module.forward_head(self.module.forward_features(pixels), pre_logits=True)


def openvino_by_hand(module: torch.nn.Module, precision: str) -> Callable[[Sequence[str]], Tensor]:
    """What those write who know OpenVINO; the engine pools."""
    found: dict[int, np.ndarray] = {}

    def keep(request: Any, index: int) -> None:
        found[index] = request.get_output_tensor(0).data[0].copy()

    run = openvino_files(Pooled(module), module, precision, keep)

    def embed(names: Sequence[str]) -> Tensor:
        found.clear()
        run(names)
        return torch.from_numpy(np.stack([found[i] for i in range(len(names))]))

    return embed


def seewhy_embed(encoder: Encoder, names: Sequence[str]) -> Tensor:
    return torch.cat(
        [one.pooled for one in encode_stream(encoder, names, batch_size=BATCH) if isinstance(one, Encoded)]
    )


def difference(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """Least cosine, and the largest difference as a part of the picture's largest feature."""
    cosine = torch.cosine_similarity(ours, theirs).min()
    gap = ((ours - theirs).abs().amax(1) / theirs.abs().amax(1)).max()
    return {"least_cosine": round(float(cosine), 5), "largest_relative_difference": round(float(gap), 5)}


def compare(names: Sequence[str], engine: str, rounds: int) -> dict[str, Any]:
    """All programs on the same files, in turn."""
    encoder, eager = load_encoder("lite0", engine=engine), load_encoder("lite0", engine="torch")
    loop = plain_loop(load_encoder("lite0", engine="torch").module)
    loader = data_loader(load_encoder("lite0", engine="torch").module)
    loader(names[:BATCH])
    short = "bf16" if encoder.engine.precision == "bfloat16" else "f32"
    by_hand = openvino_by_hand(load_encoder("lite0", engine="torch").module, short)
    programs = {
        "Pillow, timm, eager torch": lambda: loop(names),
        "DataLoader, timm, eager torch": lambda: loader(names),
        f"OpenVINO {short} by hand": lambda: by_hand(names),
        "SeeWhy, eager torch": lambda: seewhy_embed(eager, names),
        "SeeWhy": lambda: seewhy_embed(encoder, names),
    }
    for embed in (loop, by_hand, lambda n: seewhy_embed(eager, n), lambda n: seewhy_embed(encoder, n)):
        embed(names[:BATCH])  # warm
    times = in_turn(programs, rounds)
    theirs = plain_loop(load_encoder("lite0", engine="torch").module, upright_srgb)(names)
    found = difference(seewhy_embed(encoder, names), theirs)
    return {
        "files": len(names),
        "engine": f"{encoder.engine.name} {encoder.engine.precision}",
        "rounds": rounds,
        "seconds": {name: t.to_json() for name, t in times.items()},
        "images_per_second": {name: round(len(names) / t.median, 1) for name, t in times.items()},
        "times_faster": {n: times["Pillow, timm, eager torch"].over(times[n]) for n in list(programs)[1:]},
        "times_faster_than_openvino_by_hand": times[f"OpenVINO {short} by hand"].over(times["SeeWhy"]),
        **found,
        "files_with_profile_or_orientation": n_changed(names),
        "equal": found["least_cosine"] >= TOLERANCE,
    }


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def many_files(folder: Path, n: int) -> Path:
    """``n`` names for a few hundred small pictures, by hard links."""
    sources = make_photographs(folder, min(n, 200), TINY)
    linked = folder / "many"
    linked.mkdir()
    for i in range(n):
        os.link(sources[i % len(sources)], linked / f"{i:06}.jpg")
    return linked


def watch_memory(encoder: Encoder, folder: Path, n: int) -> Iterator[tuple[int, float, float]]:
    """Files seen, memory in MiB, images a second so far; ten times and after 2,000."""
    stops = {2000, *(n * k // 10 for k in range(1, 11))}
    start = time.perf_counter()
    for i, _ in enumerate(encode_stream(encoder, list_pictures([str(folder)]), batch_size=BATCH), 1):
        if i in stops:
            yield i, resident_mb(), i / (time.perf_counter() - start)


def memory(n: int, engine: str, console: Console) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made:
        rows = []
        for i, mb, speed in watch_memory(load_encoder("lite0", engine=engine), many_files(Path(made), n), n):
            console.print(f"{i:>7,} files  {mb:7.1f} MiB  {speed:6.1f} images/s")
            rows.append({"files": i, "mb": round(mb, 1), "images_per_second": round(speed, 1)})
    early = next((r["mb"] for r in rows if r["files"] >= 2000), rows[0]["mb"])
    return {"memory": rows, "growth_mb_after_2000_files": round(rows[-1]["mb"] - early, 1)}


def show(result: dict[str, Any], console: Console) -> None:
    table = Table("", "images/s", "faster by", title=f"{result['files']} files, {result['engine']}")
    for name, speed in result["images_per_second"].items():
        faster = result["times_faster"].get(name)
        table.add_row(name, f"{speed:.1f}", ratios(faster) if faster else "")
    console.print(table)
    by_hand = ratios(result["times_faster_than_openvino_by_hand"])
    console.print(f"SeeWhy is faster than OpenVINO by hand by {by_hand}.")
    console.print(
        f"Embeddings {'agree' if result['equal'] else 'DIFFER'}: least cosine {result['least_cosine']:.5f} (tolerance "
        f"{TOLERANCE}), largest difference {result['largest_relative_difference']:.5f} of the largest feature; "
        "a plain loop ignores the colour profile or orientation of "
        f"{result['files_with_profile_or_orientation']} files."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="a folder; left out, photographs are made")
    parser.add_argument("--n", type=int, default=96, help=f"files; made ones are {SMALL[0]} x {SMALL[1]}")
    parser.add_argument("--large", type=int, default=16, help=f"of these, {LARGE[0]} x {LARGE[1]}")
    parser.add_argument("--engine", default="auto", help="auto, openvino:f32, onnxruntime, torch, …")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, metavar="N", help="watch memory over N files instead")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    console = Console(quiet=options.json)
    if options.memory:
        result = memory(options.memory, options.engine, console)
        console.print(f"From file 2,000 to the last, memory grew by {result['growth_mb_after_2000_files']} MiB.")
    else:
        keep_memory()
        with tempfile.TemporaryDirectory() as made:
            if options.pictures is None:
                make_photographs(Path(made), options.n - options.large, SMALL)
                make_photographs(Path(made), options.large, LARGE, seed=1)
            names = [str(p) for p in list_pictures([str(options.pictures or made)])][: options.n]
            result = compare(names, options.engine, options.rounds)
        show(result, console)
    if options.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
