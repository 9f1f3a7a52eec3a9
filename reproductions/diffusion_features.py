"""Diffusion features: what do blocks and noise steps of a denoising U-Net know about classes?

    python reproductions/diffusion_features.py --train cifake/train --test cifake/test --out found.json

Mukhopadhyay et al. 2023 (arXiv 2307.08702; ECCV 2024, 2311.17921) read classes from an ImageNet diffusion model of 550
M weights. Here a small U-Net of diffusers learns from photographs of CIFAR's ten classes, without labels. A linear
layer reads every block at several steps. It is compared with the same network before training, the same network trained
as an autoencoder without noise, and pixels. Block and step are chosen on held-out training pictures. The rules were
written before the run. Needs the extra `diffusion`.
"""

from __future__ import annotations

import re
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attention_head import AttentionHead
from claims import JUDGED, Claim, Report, command, deliver, judged, lead, machine, parser, verdict
from jaxtyping import Float, Int
from made_judges import enlarged
from real_or_generated import read
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from seewhy.classifiers.linear.solvers import fit_linear
from seewhy.encoders.diffusion import Noised, Reading, blocks_of, schedule
from seewhy.encoders.find import encoder
from seewhy.pictures.samples import gathered, load_samples
from seewhy.progress import Progress
from seewhy.seeded import seeded
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised, Task

STEPS = (10, 90, 300, 600)
CS = (0.01, 0.1, 1.0)
"""Of the regularisation, chosen with block and step."""
N_CLASSES = 10
HEAD = "diffusion, attention head"


class Denoise(Task):
    """The U-Net learns the noise of a picture at a step drawn anew; or, as an autoencoder, the picture itself at none.

    Args:
        network: a ``UNet2DModel``.
        alphas: of the schedule; ``None`` for the autoencoder.
    """

    needs = ("pixels",)

    def __init__(self, network: nn.Module, alphas: Float[Tensor, " steps"] | None) -> None:
        super().__init__()
        self.network, self.alphas = network.requires_grad_(True), alphas

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        pixels = batch["pixels"]
        if self.alphas is None:
            return self.network(pixels, 0).sample, pixels
        t = torch.randint(len(self.alphas), (len(pixels),))
        left, noise = self.alphas[t].float()[:, None, None, None], torch.randn_like(pixels)
        return self.network(left.sqrt() * pixels + (1 - left).sqrt() * noise, t).sample, noise

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": mse_loss(*features)}


def made(seed: int, side: int, width: int) -> nn.Module:
    """A small U-Net with new weights."""
    from diffusers import UNet2DModel

    with seeded(seed):
        return UNet2DModel(
            sample_size=side,
            block_out_channels=(width, 2 * width, 2 * width),
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,
            norm_num_groups=8,
            attention_head_dim=8,
        )


def pooled(block: int, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
    """One vector a picture."""
    return maps.mean((2, 3))


def cells_of(wanted: int, block: int, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c g g"]:
    """At most 8 cells a side of the wanted block, of others next to nothing."""
    return adaptive_avg_pool2d(maps, min(8, maps.shape[-1])) if block == wanted else maps[:, :1, :1, :1]


@torch.no_grad()
def maps_of(
    network: nn.Module,
    t: int,
    pixels: Float[Tensor, "n 3 h w"],
    seed: int,
    reduce: Callable[[int, Tensor], Tensor] = pooled,
) -> list[Tensor]:
    """What is made of every block's map at one step, of one pass; blocks are counted from 1."""
    side, found = (pixels.shape[2], pixels.shape[3]), []
    noised = Noised(network.eval(), float(schedule({})[t]), Reading(t=t, noise=seed), side)
    handles = [
        network.get_submodule(name).register_forward_hook(lambda _m, _a, out, i=i: taken.__setitem__(i, out))
        for i, name in enumerate(blocks_of(network))
    ]
    taken: dict[int, Tensor] = {}
    for part in pixels.split(100):
        noised(part)
        found.append([reduce(i + 1, taken[i]).clone() for i in range(len(handles))])
    for handle in handles:
        handle.remove()
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


class Probe:
    """Linear layers on features, chosen on held-out training pictures.

    Args:
        labels: of the training pictures.
        fitted: which of them are fitted on; the others choose.
        tests: labels of the test.
    """

    def __init__(self, labels: Int[Tensor, " n"], fitted: Tensor, tests: Int[Tensor, " m"]) -> None:
        self.labels, self.fitted, self.tests = labels, fitted, tests

    def __call__(self, features: Float[Tensor, "n d"], others: Float[Tensor, "m d"]) -> tuple[float, list[float]]:
        """Right on those that choose, and 1 or 0 of each test picture, by the best regularisation."""
        mean, spread = features[self.fitted].mean(0), features[self.fitted].std(0).clamp(min=1e-6)
        x, z = (features - mean) / spread, (others - mean) / spread
        best: tuple[float, list[float]] = (-1.0, [])
        for c in CS:
            fit = fit_linear(x[self.fitted], self.labels[self.fitted], N_CLASSES, c, tol=1e-4)
            right = float((fit.logits(x[~self.fitted]).argmax(1) == self.labels[~self.fitted]).float().mean())
            if right > best[0]:
                best = right, (fit.logits(z).argmax(1) == self.tests).float().tolist()
        return best


def linear_cka(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> float:
    """``|Y'X|^2 / (|X'X| |Y'Y|)`` of centred columns (Kornblith et al. 2019): 1 for the same up to a rotation.

    >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> round(linear_cka(x, x @ torch.linalg.qr(torch.randn(4, 4))[0]), 4)
    1.0
    """
    x, y = (v.double() - v.double().mean(0) for v in (x, y))
    return float((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def photographs(folder: str, n: int, side: int) -> tuple[Tensor, Tensor]:
    """Pixels of -1 to 1, CIFAR classes by the ends of the names."""
    samples = [s for s in load_samples(folder).items if s.label == "REAL"]
    draws = torch.Generator().manual_seed(len(samples))  # not every so many: classes take turns in the whole set
    samples = [samples[i] for i in torch.randperm(len(samples), generator=draws)[:n].tolist()]
    marks = [re.search(r"(?:_| \()(\d+)\)?$", Path(s.image).stem) for s in samples]
    labels = torch.tensor([int(m[1]) - 1 if m else 0 for m in marks])
    pixels = torch.from_numpy(read(gathered(samples), side, Progress())).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels, labels


def attended(x: Tensor, z: Tensor, labels: Tensor, tests: Tensor, seed: int) -> list[float]:
    """1 or 0 of each test picture by an attention head on training maps and test maps of at most 8 cells a side."""
    mean, spread = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True).clamp(min=1e-6)
    with seeded(seed):
        head = AttentionHead(x.shape[1], N_CLASSES, n_heads=4)
    data = TrainingData(len(x), {"maps": (x - mean) / spread, "labels": labels})
    train(Supervised(head, column="maps"), data, Training(300, 64, lr=1e-3, weight_decay=0.05, seed=seed))
    with torch.no_grad():
        return (
            (torch.cat([head(part).argmax(1) for part in ((z - mean) / spread).split(100)]) == tests).float().tolist()
        )


def claims_of(table: Mapping[str, Any], right: Mapping[str, list[float]]) -> tuple[Claim, ...]:
    """The paper's claims on what was measured.

    Args:
        table: ``chosen``: block, t and ``n_blocks``, ``middle``, ``after`` (the last block before the second doubling),
            ``steps``; ``rows``: of each network the best on held-out training pictures.
        right: of each arm, 1 or 0 of every test picture.
    """
    block, t, n = table["block"], table["t"], len(right["diffusion"])
    inner = table["middle"] < block <= table["after"]
    steps = sorted(table["steps"])
    means = {name: f"{sum(values) / n:.1%}" for name, values in right.items()}

    def ahead(claim: str, other: str, section: str = "controls", of: str = "diffusion") -> Claim:
        found = lead(right[of], right[other])
        told = f"{means[of]} against {means[other]}: {found}"
        rule = f"paired difference of the parts right; {JUDGED}"
        return Claim(claim, rule, told, judged(found), n, section, interval=found)

    return (
        Claim("Classes are read best just behind the bottleneck", "block chosen on held-out training pictures; shown: "
              "behind the middle and not beyond the second doubling; partly: elsewhere, but "
              "neither the first nor the last",
              f"block {block} of {table['n_blocks']}, the middle is {table['middle']}",
              verdict(inner, 1 < block < table["n_blocks"]), n),
        Claim("A small step of noise is best, and not none",
              "chosen likewise; shown: neither the first nor the last tried; not shown: one of them",
              f"t = {t} of {', '.join(map(str, steps))}", verdict(steps[0] < t < steps[-1]), n),
        ahead("It knows more than before any training", "random weights"),
        ahead("It knows more than the same network that gives pictures back", "autoencoder"),
        ahead("It knows more than pixels", "pixels 8 x 8"),
        ahead("An attention head reads more than a linear layer", "diffusion", "heads", HEAD),
        ahead("Under it, too, it knows more than before any training", "random weights, attention head", "heads", HEAD),
    )  # fmt: skip


def learnt(args: Namespace, pixels: Float[Tensor, "n 3 h w"]) -> tuple[dict[str, nn.Module], dict[str, float]]:
    """The diffusion model, the autoencoder and what both were before, and the losses; stopped, it goes on."""
    how = Training(args.steps, args.batch, lr=2e-3, ema=0.99, seed=args.seed)
    networks = {name: made(args.seed, args.side, args.width) for name in ("diffusion", "autoencoder", "random weights")}
    losses = {}
    for name, alphas in (("diffusion", schedule({})), ("autoencoder", None)):
        kept = None
        if args.out is not None:
            kept = args.out.parent / f"{args.out.stem}.{name}", f"{name} {args.side} {args.width}"
        data = TrainingData(len(pixels), {"pixels": pixels})
        done = train(Denoise(networks[name], alphas), data, how, checkpoint=kept)
        losses[name] = round(sum(row["loss"] for row in done.history[-50:]) / len(done.history[-50:]), 4)
        print(f"{name}: loss {losses[name]}, {done.seconds_per_step:.2f} s a step", flush=True)
    return networks, losses


def run(args: Namespace) -> Report:
    start = time.monotonic()
    pixels, labels = photographs(args.train, args.pictures, args.side)
    others, tests = photographs(args.test, args.pictures // 2, args.side)
    probe = Probe(labels, torch.arange(len(labels)) % 5 != 0, tests)
    networks, losses = learnt(args, pixels)
    blocks = blocks_of(networks["diffusion"])
    looks = enlarged(encoder("lite0"))
    shown = ((pixels[:400] + 1) * 127.5).byte()
    seen = looks.encode(looks.pixels([_large(one) for one in shown])).pooled
    rows, right = {}, {}
    for name, network in networks.items():
        cells, alike = {}, {}
        for t in args.noise if name != "autoencoder" else (0,):
            own, more = (maps_of(network, t, one, args.seed) for one in (pixels, others))
            cells |= {(i, t): probe(a, b) for i, (a, b) in enumerate(zip(own, more, strict=True), 1)}
            alike[t] = [round(linear_cka(one[:400], seen), 4) for one in own]
        block, t = max(cells, key=lambda k: cells[k][0])
        cut = partial(cells_of, block)
        own, more = (maps_of(network, t, one, args.seed, cut)[block - 1] for one in (pixels, others))
        right[name] = cells[block, t][1]
        right[f"{name}, attention head"] = attended(own, more, labels, tests, args.seed)
        rows[name] = {
            "block": block,
            "t": t,
            "grid": [[*k, round(v[0], 4), _mean(v[1])] for k, v in cells.items()],
            "cka_with_lite0": alike,
        }
        print(name, block, t, {k: _mean(v) for k, v in right.items()}, flush=True)
    right["pixels 8 x 8"] = probe(*(adaptive_avg_pool2d(one, 8).flatten(1) for one in (pixels, others)))[1]
    middle = blocks.index("mid_block") + 1
    best = {k: rows["diffusion"][k] for k in ("block", "t")}
    table = {**best, "n_blocks": len(blocks), "middle": middle, "after": middle + 3, "steps": args.noise}
    weights = sum(p.numel() for p in networks["diffusion"].parameters())
    return Report(
        "diffusion_features", "What does a network that takes noise away know of classes?",
        "Mukhopadhyay et al. 2023, arXiv:2307.08702; 2024, arXiv:2311.17921",
        f"{len(labels):,} photographs of CIFAR's ten classes (CIFAKE's REAL) at {args.side} pixels, "
        f"{len(tests):,} to test",
        f"a U-Net of {weights:,} weights, {args.steps:,} steps of {args.batch} without labels (loss "
        f"{losses['diffusion']}); the same as an autoencoder (loss {losses['autoencoder']}); the same before training",
        command("diffusion_features"), machine(), round(time.monotonic() - start, 1), args.seed,
        claims_of(table, right),
        (f"A network of {weights:,} weights trained for minutes on few small pictures; theirs has about 550 million",
         "The pictures it is read on are those it was trained on, without labels, as theirs are of ImageNet",
         "Noise is the same for every picture; theirs is drawn at every pass",
         "No GAN was trained, which is the paper's own comparison; no feedback or fusion of blocks"),
        {"rows": rows, "right": {k: _mean(v) for k, v in right.items()}, "blocks": blocks},
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _large(pixels: Tensor) -> Any:
    """uint8 at the size that the frozen encoder looks at."""
    big = nn.functional.interpolate(pixels[None].float(), (96, 96), mode="bicubic", align_corners=False)[0]
    return big.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def main(arguments: Sequence[str] | None = None) -> Report:
    made_parser = parser(__doc__ or "", "diffusion_features")
    made_parser.add_argument("--train", help="folders REAL and FAKE, of which REAL is read")
    made_parser.add_argument("--test", help="the same")
    made_parser.add_argument("--pictures", type=int, default=2000, help="to learn from; half as many to test")
    made_parser.add_argument("--side", type=int, default=16)
    made_parser.add_argument("--width", type=int, default=32)
    made_parser.add_argument("--steps", type=int, default=1500)
    made_parser.add_argument("--batch", type=int, default=64)
    made_parser.add_argument("--noise", type=int, nargs="+", default=STEPS)
    return deliver(made_parser, run, arguments)


if __name__ == "__main__":
    main()
