"""A CLIP training step beside open_clip's trainer: the same small towers, files, batch and optimiser, loader included.

    python benchmarks/clip_step.py --pairs flickr8k/train.jsonl [--n 512] [--batch-size 64] [--epochs 2] [--rounds 3]

The towers are open_clip's, small, with random weights. The peer is open_clip's own: its `train_one_epoch`, training
transform and loss, its `CsvDataset` line by line without pandas, in a DataLoader with two processes that stay. Ours is
`seewhy.training.loop.train` on a `Contrast` with the objective `clip`, files read by `TrainingPictures`. Both crop at
random and tokenise by open_clip's tokenizer as they go. What a process costs to start is part of the peer's time, as it
is of its first epoch. Losses are compared on one batch, and as they fall.

`features` is what stays when both towers are frozen and were asked before: 6,000 pictures of 1,280 numbers, five
captions of 384 each, a linear layer to 256 behind both, 20 epochs of 512 pictures.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import image_transform
from open_clip_train.train import train_one_epoch
from PIL import Image
from side_by_side import cpu_seconds, in_turn, keep_memory, ratios
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import seewhy
from seewhy.encoders.base import Encoder, Layout
from seewhy.encoders.open_clip import transform_of
from seewhy.learning.contrast import Contrast, Drawn
from seewhy.learning.objectives.pairs import CLIP
from seewhy.progress import Progress
from seewhy.training.augmentation import TrainingPictures
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

SIDE, WORDS, WORKERS, RATE, DECAY = 112, 32, 2, 5e-4, 0.2
OURS, THEIRS = "seewhy", "open_clip"


def towers() -> open_clip.CLIP:
    """Four layers of 128 for pictures, two for texts."""
    torch.manual_seed(0)
    seen = {"image_size": SIDE, "patch_size": 16, "layers": 4, "width": 128, "head_width": 32}
    said = {"context_length": WORDS, "vocab_size": 49408, "layers": 2, "width": 128, "heads": 4}
    return open_clip.CLIP(128, seen, said, output_dict=True)


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """As open_clip's trainer has them: no decay of what has less than two dimensions."""
    named = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in named if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in named if p.ndim >= 2], "weight_decay": DECAY},
    ]


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """open_clip's `CsvDataset`, from lists."""

    def __init__(self, files: Sequence[str], texts: Sequence[str], tokenizer: Any) -> None:
        self.files, self.texts, self.tokenizer = files, texts, tokenizer
        self.transform = image_transform(SIDE, is_train=True)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.open(self.files[i])), self.tokenizer([self.texts[i]])[0]


class Losses:
    """open_clip's loss, each step's kept."""

    def __init__(self) -> None:
        self.loss, self.values = open_clip.ClipLoss(), []

    def __call__(self, **given: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.loss(**given)
        self.values.append(found["contrastive_loss"].detach())
        return found


def theirs(start: nn.Module, files: Sequence[str], texts: Sequence[str], args: Namespace) -> list[float]:
    model, tokenizer = copy.deepcopy(start), open_clip.get_tokenizer("ViT-B-32", context_length=WORDS)
    dataset = Pairs(files, texts, tokenizer)
    loader = DataLoader(
        dataset, args.batch_size, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )
    loader.num_samples, loader.num_batches = len(dataset), len(loader)
    how = Namespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=True, horovod=False, rank=0,
        grad_clip_norm=None, log_every_n_steps=100, world_size=1, batch_size=args.batch_size, wandb=False,
    )  # fmt: skip
    data = {"train": Namespace(dataloader=loader, set_epoch=lambda epoch: None)}
    optimiser, losses = torch.optim.AdamW(groups(model), lr=RATE), Losses()
    for epoch in range(args.epochs):
        train_one_epoch(model, data, losses, epoch, optimiser, None, None, None, how)
    loader._iterator._shutdown_workers()  # so that their CPU seconds are counted
    return torch.stack(losses.values).tolist()


class Words(nn.Module):
    """open_clip's words half as a network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        said: Tensor = self.model.encode_text(tokens)
        return said


def ours(start: open_clip.CLIP, files: Sequence[str], texts: Sequence[str], args: Namespace) -> list[float]:
    model, tokenizer = copy.deepcopy(start), open_clip.get_tokenizer("ViT-B-32", context_length=WORDS)
    visual = model.visual
    model.visual = nn.Identity()  # the words half keeps the rest
    prepared = transform_of(open_clip.transform.PreprocessCfg(size=SIDE).__dict__, "small towers")
    encoder = Encoder(name="small", transform=prepared, trunk=lambda: visual, head=nn.Identity(), layout=Layout(),
                      fingerprint="small", engine="torch")  # fmt: skip
    model.logit_scale.requires_grad_(False)  # the objective has its own
    columns = {
        "pixels": TrainingPictures(encoder, files, SIDE, Progress()),
        "text": Drawn([[text] for text in texts], tokenizer),
    }
    n_steps = args.epochs * (len(files) // args.batch_size)
    how = Training(n_steps, args.batch_size, lr=RATE, weight_decay=DECAY, schedule="constant")
    task = Contrast(visual.train(), Words(model).train(), CLIP())
    return [terms["loss"] for terms in train(task, TrainingData(len(files), columns), how).history]


def same_loss(start: open_clip.CLIP) -> float:
    """How far the losses of one batch are apart."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(16, 3, SIDE, SIDE, generator=draw)
    tokens = torch.randint(1, 49405, (16, WORDS), generator=draw)
    with torch.no_grad():
        found = start(pixels, tokens)
        image, text = start.encode_image(pixels), start.encode_text(tokens)
        mine = CLIP()(image, text)
        return abs(float(mine) - float(open_clip.ClipLoss()(**found, output_dict=True)["contrastive_loss"]))


def features(n: int, epochs: int) -> dict[str, float]:
    """Seconds of a training on features that are there."""
    torch.manual_seed(0)
    pooled, said = torch.randn(n, 1280), torch.randn(5 * n, 384)
    words = Drawn([range(5 * i, 5 * i + 5) for i in range(n)], lambda rows: said[torch.tensor(rows)])
    task = Contrast(nn.Linear(1280, 256), nn.Linear(384, 256), CLIP(), column="pooled")
    steps = epochs * (n // 512)
    wall, cpu = time.perf_counter(), sum(cpu_seconds())
    train(task, TrainingData(n, {"pooled": pooled, "text": words}), Training(steps, 512, schedule="cosine"))
    return {
        "steps": steps,
        "seconds": round(time.perf_counter() - wall, 2),
        "CPU seconds": round(sum(cpu_seconds()) - cpu, 2),
    }


def compared(args: Namespace) -> dict[str, Any]:
    samples = seewhy.load_pairs(args.pairs).items[: args.n]
    files, texts = [s.image for s in samples], [s.texts[0] for s in samples]
    start, losses = towers(), {}

    def mine() -> None:
        losses[OURS] = ours(start, files, texts, args)

    def peer() -> None:
        losses[THEIRS] = theirs(start, files, texts, args)

    for program in (mine, peer):
        program()
    times = in_turn({OURS: mine, THEIRS: peer}, args.rounds)
    per_epoch = args.n // args.batch_size
    return {
        "seconds": {name: one.to_json() for name, one in times.items()},
        "open_clip over seewhy": times[THEIRS].over(times[OURS]),
        "steps": len(losses[OURS]),
        "loss, mean of each epoch": {
            name: [round(sum(v[i : i + per_epoch]) / per_epoch, 3) for i in range(0, len(v), per_epoch)]
            for name, v in losses.items()
        },
        "losses of one batch apart": same_loss(start.eval()),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=Path, help="table of pictures with captions; left out, `features` alone")
    options.add_argument("--n", type=int, default=512, help="pictures")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=1, help="of torch")
    options.add_argument("--json", action="store_true", help="print the numbers as JSON")
    args = options.parse_args()
    logging.disable(logging.INFO)
    keep_memory()
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {"features": features(6000, 20)}
    if args.pairs:
        found |= compared(args)
    if args.json:
        print(json.dumps({"threads": args.threads, **found}, indent=2))
        return
    if args.pairs:
        print(f"open_clip's time over seewhy's: {ratios(found['open_clip over seewhy'])}")
    for name, one in found.items():
        print(f"{name}: {one}")


if __name__ == "__main__":
    main()
