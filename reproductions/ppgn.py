"""PPGN over a decoder that was brought: does a prior make pictures that a second network recognises?

    python reproductions/ppgn.py --work worlds/ --out ppgn.json
    python reproductions/ppgn.py --kinds digits --worlds 1 --walk 10 --each 3 --out ppgn.json    # two minutes

Nguyen et al. 2017 (arXiv 1612.00005). Tinted digits, and shapes on texture, of 16 pixels. In each world anew: a small
AutoencoderKL of diffusers, a U-Net of its codes, a network whose ten classes are climbed, a judge of another
architecture, and both again for colours. The first world of a kind only chooses weights, noise and lengths of steps. A
minute or two of one idle core for each world. Stopped, it goes on: what was trained stays in --work, and what was
measured beside the report. ``--only digits-1`` trains one world and ends, so that several may train side by side.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import ppgn_worlds as kinds
import small_diffusion
import torch
from claims import Report, deliver, parser
from jaxtyping import Float, Int
from PIL import Image
from ppgn_report import report_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from seewhy.classifiers.base import Classifier
from seewhy.encoders.base import Encoder
from seewhy.generation.conditions import Condition, Judge, diversity, of_class
from seewhy.generation.decoders import Bring, CodesOf, Decoder, load_decoder
from seewhy.generation.generator import Generator, Reader, batched, bytes_of, errors
from seewhy.generation.priors import autoencoder
from seewhy.generation.sampler import PPGN, Chains, PixelAscent, noise
from seewhy.pictures.samples import Sample
from seewhy.storage.output import make_folder, write_atomic

PRIORS = ("autoencoder", "score", "joint")
EPS1, RATES = (0.3, 1.0, 3.0), (1 / 30, 1 / 10)
"""Weights of the prior, and first steps as parts of the codes' range, of which the first world chooses."""
NOISES = (0.5, 1.0)
"""That a prior takes out, in spreads of the codes; the first world chooses."""
PIXEL_RATES = (1 / 60, 1 / 30, 1 / 10)
EPS3 = (0.0, 0.1, 0.3, 1.0)
"""Of noise, in spreads of the codes, where steps stand as the equation has them."""
RAW = PPGN(eps1=0.1, eps2=0.3, normalise=False)
STRONG = 10
"""Times the prior's weight that was chosen."""
VAE, UNET, CLASSIFIER, PRIOR = 500, 400, 200, 600
"""Batches in which each is trained."""
LADDER = (5, 20, 60, 150)
"""Batches of decoders that were hardly trained: what comes of them says which are refused."""


@dataclass(frozen=True, eq=False)
class World:
    """Networks, pictures and the decoder, all made anew."""

    kind: str
    models: dict[str, Classifier]
    right: dict[str, float]
    items: list[Sample]
    folder: Path
    seed: int
    scale: float

    @cache  # noqa: B019
    def ready(self, prior: str, noise: float) -> Generator:
        """The decoder's folder, measured and with a prior, as the product makes it."""
        how = Bring(prior, noise, max(1, round(PRIOR * self.scale)), most=len(self.items))  # type: ignore[arg-type]
        return how.ready(load_decoder(self.folder), self.items, seed=self.seed)


def world(args: argparse.Namespace, kind: str, seed: int) -> World:
    """Trained, or as an earlier run left it."""
    folder = args.work / f"{kind}-{seed}-{args.seed}-{args.steps:g}"
    drawn = kinds.DRAWS[kind](1000 * args.seed + seed)
    n, networks = len(drawn[0]) - kinds.N_TEST[kind], kinds.networks(kind, seed)
    weights = folder / "classifiers.safetensors"

    def steps(of: int) -> int:
        return max(1, round(of * args.steps))

    if not weights.exists():
        pixels = kinds.scaled(drawn[0][:n])
        vae = small_diffusion.autoencoder(pixels, steps(VAE), seed)
        codes = small_diffusion.latents(vae, pixels) * vae.config.scaling_factor
        small_diffusion.save(make_folder(folder), vae, small_diffusion.diffusion(codes, steps(UNET), seed))
        kinds.trained(networks, kind, drawn, steps(CLASSIFIER), seed)
        save_file({f"{k}.{w}": t for k, net in networks.items() for w, t in net.state_dict().items()}, weights)
    found = load_file(weights)
    for name, network in networks.items():
        own = f"{name}."
        network.load_state_dict({k.removeprefix(own): t for k, t in found.items() if k.startswith(own)})
    models, right = kinds.classifiers(networks, kind, drawn)
    items = [Sample(f"{kind} {i}", pixels=array) for i, array in enumerate(drawn[0][:n])]
    return World(kind, models, right, items, folder, seed, args.steps)


class EachItsOwn(Condition):
    """Chains of several classes side by side: of every picture the score of its own class comes first."""

    kind = "class"
    measure = "probability"
    index = 0

    def __init__(self, model: Classifier, labels: Int[Tensor, " b"]) -> None:
        self.model = model
        others = torch.arange(len(model.classes)).expand(len(labels), -1)
        self.order = torch.where(others == 0, labels[:, None], torch.where(others == labels[:, None], 0, others))

    @property
    def encoder(self) -> Encoder:
        return self.model.encoder

    @property
    def asked(self) -> str:
        return "its own class"

    def scores(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return self.model.head(Reader(self.encoder)(pictures)).gather(1, self.order)

    def value(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.scores(pictures).softmax(1)[:, 0]


def each_of(model: Classifier, each: int) -> EachItsOwn:
    return EachItsOwn(model, torch.arange(len(model.classes)).repeat_interleave(each))


def told(chains: Chains, condition: EachItsOwn, judge: Classifier, at: int = -1) -> dict[str, Any]:
    """What two networks see on pictures of walks; of each chain, and of each class how far its pictures differ."""
    labels = condition.order[:, 0]
    looked, features = Judge.of(judge, condition, judge.classes).look(chains.pictures[at])
    verdicts = [float(v.label == judge.classes[c]) for v, c in zip(looked, labels.tolist(), strict=True)]
    spread = [round(diversity(features[labels == c]) or 0.0, 4) for c in labels.unique().tolist()]
    return {"own": [round(float(v), 4) for v in chains.values[at]], "judged": verdicts, "spread": spread}


def first_world(args: argparse.Namespace, one: World) -> dict[str, Any]:
    """Every weight, noise and length in small, and what comes of decoders that were hardly trained."""
    climbed, judge, found = one.models["climbed"], one.models["judge"], {}
    condition, how = each_of(climbed, max(1, args.each // 3)), PPGN(n_steps=args.walk, n_shown=1)
    plan = [("joint", NOISES[0]), *((p, n) for p in PRIORS[:2] for n in NOISES)]
    for prior, size in plan:
        generator = one.ready(prior, size)
        starts = noise(generator, len(condition.order), one.seed)
        for eps1, rate in [(0.0, r) for r in RATES] * (prior == "joint") + [(e, r) for e in EPS1 for r in RATES]:
            walk = replace(how, eps1=eps1, lr=rate).sample(generator, condition, starts, seed=one.seed)
            key = f"{prior if eps1 else 'none'} noise {size:g} eps1 {eps1:g} lr {rate:.4f}"
            found[key] = told(walk, condition, judge)
    first = generator.network(starts)
    for rate in PIXEL_RATES:
        found[f"pixels noise 0 eps1 0 lr {rate:.4f}"] = told(
            PixelAscent(how, lr=rate).sample(condition, first), condition, judge
        )
    return {"arms": found, "ladder": ladder(args, one, condition)}


def ladder(args: argparse.Namespace, one: World, condition: EachItsOwn) -> list[dict[str, Any]]:
    """How far decoders of few steps are off, as parts of the mean picture's error, and how often the judge is right."""
    arrays, rows = np.stack([item.pixels for item in one.items]), []
    pixels = kinds.scaled(arrays)
    for steps in LADDER:
        vae = small_diffusion.autoencoder(pixels, max(1, round(steps * args.steps)), 7)
        scale = vae.config.scaling_factor

        def decode(codes: Tensor, vae: Any = vae, scale: float = scale) -> Tensor:
            made: Tensor = vae.decode(codes / scale).sample / 2 + 0.5
            return made

        def encode(pictures: Tensor, vae: Any = vae, scale: float = scale) -> Tensor:
            found: Tensor = vae.encode(2 * pictures - 1).latent_dist.mode() * scale
            return found

        decoder = Decoder(decode, (4, 4, 4), encode)
        codes = batched(CodesOf(decoder), pixels / 2 + 0.5)
        held, own = codes[::10], codes[torch.arange(len(codes)) % 10 != 0]
        facts = errors(batched(decoder, held), pixels[::10] / 2 + 0.5, torch.from_numpy(arrays))
        network = autoencoder(own, NOISES[0], max(1, round(PRIOR * args.steps)))
        low, high = (float(own.flatten().quantile(q)) for q in (0.001, 0.999))
        generator = Generator(decoder, CodesOf(decoder), (low, high), own, {"side": kinds.SIDE}, network)
        starts = noise(generator, len(condition.order), 0)
        walk = PPGN(eps1=1.0, n_steps=args.walk, n_shown=1).sample(generator, condition, starts)
        right = float(np.mean(told(walk, condition, one.models["judge"])["judged"]))
        rows.append({"steps": steps, "share": facts["held_out_error"] / facts["mean_picture_error"], "judged": right})
    return rows


def chosen(first: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Of each way its noise, weight and length, by the judge's right answers in the first world."""
    best: dict[str, tuple[float, tuple[float, float, float]]] = {}
    for key, row in first["arms"].items():
        way, _, size, _, eps1, _, rate = key.split()
        right = float(np.mean(row["judged"]))
        if way not in best or right > best[way][0]:
            best[way] = right, (float(size), float(eps1), float(rate))
    return {way: settings for way, (_, settings) in best.items()}


def arms(args: argparse.Namespace, one: World, best: dict[str, tuple[float, float, float]]) -> dict[str, Any]:
    """Every way of making pictures in one world, from the same starts, with sheets of what was made."""
    how, found, sheets = PPGN(n_steps=args.walk, n_shown=1), {}, {}
    climbed, judge = one.models["climbed"], one.models["judge"]
    condition, colours = each_of(climbed, args.each), each_of(one.models["colours"], args.each)
    starts = noise(one.ready("joint", NOISES[0]), len(condition.order), one.seed)

    def walked(name: str, sampler: PPGN, generator: Generator, goal: EachItsOwn, by: Classifier) -> Chains:
        walk = sampler.sample(generator, goal, starts[: len(goal.order)], seed=one.seed)
        found[name], sheets[name] = told(walk, goal, by), walk.pictures[-1]
        return walk

    for way in ("none", *PRIORS):
        size, eps1, rate = best[way]
        generator, own = one.ready("joint" if way == "none" else way, size), replace(how, eps1=eps1, lr=rate)
        walk = walked(way, own, generator, condition, judge)
        walked(f"colours {way}", own, generator, colours, one.models["colour_judge"])
        if way == "none":
            found["start"], first = told(walk, condition, judge, 0), walk.pictures[0]
        if way in PRIORS[:2]:
            walked(f"{way} too strong", replace(own, eps1=STRONG * eps1), generator, condition, judge)
    pixel = PixelAscent(how, lr=best["pixels"][2]).sample(condition, first)
    found["pixels"], sheets["pixels"] = told(pixel, condition, judge), pixel.pictures[-1]
    generator = one.ready("score", best["score"][0])
    starts = generator.codes.mean(0).expand(len(starts), -1)
    unit = float(generator.codes.std(0).mean())
    for eps3 in EPS3:
        raw = replace(RAW, eps3=eps3 * unit, n_steps=args.walk, n_shown=1)
        walked(f"eps3 {eps3:g}", raw, generator, condition, judge)
    ends = replace(how, eps3=1e-17).sample(generator, of_class(climbed, 0), starts[: args.each]).codes
    facts = {prior: one.ready(prior, best[prior][0]).facts for prior in PRIORS}
    for name, pictures in sheets.items():
        sheet(pictures, args.each, args.work / f"{one.kind}-{one.seed}-{name.replace(' ', '-')}.png")
    return {"arms": found, "released noise": float((ends - ends[:1]).abs().max()), "facts": facts}


def sheet(pictures: Float[Tensor, "n 3 s s"], each: int, path: Path) -> None:
    """A row for each class, twice as large."""
    grid = bytes_of(pictures).unflatten(0, (-1, each)).permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1).numpy()
    Image.fromarray(grid).resize((2 * grid.shape[1], 2 * grid.shape[0]), 0).save(path)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """World by world, kept beside the report."""
    place = None if args.out is None else args.out.with_suffix(".progress")
    found: dict[str, Any] = json.loads(place.read_text()) if place is not None and place.exists() else {}
    told = [args.seed, args.steps, args.walk, args.each]
    for seed in range(args.worlds + 1):
        for kind in args.kinds:
            key = json.dumps([*told, kind, seed])
            if key in found:
                continue
            begun, cpu = time.perf_counter(), time.process_time()
            one = world(args, kind, seed)
            first = None if seed == 0 else found[json.dumps([*told, kind, 0])]
            row = first_world(args, one) if first is None else arms(args, one, chosen(first))
            spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
            found[key] = {"right": one.right, **row, **spent}
            if place is not None:
                write_atomic(place, json.dumps(found))
    return {f"{kind}-{s}": found[json.dumps([*told, kind, s])] for kind in args.kinds for s in range(args.worlds + 1)}


def run(args: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        args.work = make_folder(args.work or Path(folder))
        found = measured(args)
    best = {kind: chosen(found[f"{kind}-0"]) for kind in args.kinds}
    return report_of(args, found, best, EPS3)


def main(arguments: Sequence[str] | None = None) -> Report | None:
    options = parser(__doc__ or "", "ppgn")
    options.add_argument("--worlds", type=int, default=2, help="of each kind that are reported")
    options.add_argument("--kinds", nargs="+", choices=tuple(kinds.DRAWS), default=list(kinds.DRAWS))
    options.add_argument("--steps", type=float, default=1.0, help="part of the batches that networks are trained on")
    options.add_argument("--walk", type=int, default=40, help="steps of a chain")
    options.add_argument("--each", type=int, default=10, help="chains for each class")
    options.add_argument("--work", type=Path, help="where trained networks and sheets of pictures stay")
    options.add_argument("--only", help="train this world, such as digits-1, into --work, and end")
    args = options.parse_args(arguments)
    if args.only:
        kind, _, seed = args.only.partition("-")
        world(args, kind, int(seed))
        return None
    return deliver(options, run, arguments)


if __name__ == "__main__":
    main()
