"""PPGN with your own decoder: does a prior make pictures that a second network recognises?

    python reproductions/ppgn.py --out ppgn.json
    python reproductions/ppgn.py --kinds digits --walk 10 --each 3 --out ppgn.json    # two minutes

Nguyen et al. 2017 (arXiv 1612.00005). Tinted digits, and shapes on texture, of 16 pixels. Each world trains its own
small AutoencoderKL of diffusers, a U-Net of its codes, a network whose ten classes guide the ascent, a judge of another
architecture, and both again for colours. One more world of digits is used only to choose weights, noise and step
lengths. Takes a minute or two on one idle core for each world. A stopped run continues: trained networks stay in
--work, and measurements beside the report. ``--only digits-1`` trains one world and ends; several may train at the same
time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
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
from seewhy.generation.generator import Generator, Reader, batched, bytes_of, errors, unit
from seewhy.generation.priors import autoencoder
from seewhy.generation.sampler import PPGN, PixelAscent, noise
from seewhy.pictures.samples import Sample
from seewhy.storage.output import make_folder, write_atomic

CHOOSES = ("digits", 0)
"""The world that is not reported."""
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

    @property
    def real(self) -> Float[Tensor, "n 3 s s"]:
        """What the decoder was trained on, 0…1."""
        return unit(torch.from_numpy(np.stack([item.pixels for item in self.items])))

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


def told(pictures: Float[Tensor, "b 3 h w"], condition: EachItsOwn, judge: Classifier, real: Tensor) -> dict[str, Any]:
    """What two networks see of each picture, how far the nearest real one is, and how far those of a class differ."""
    labels = condition.order[:, 0]
    looked, features = Judge.of(judge, condition, judge.classes).look(pictures)
    verdicts = [float(v.label == judge.classes[c]) for v, c in zip(looked, labels.tolist(), strict=True)]
    spread = [round(diversity(features[labels == c]) or 0.0, 4) for c in labels.unique().tolist()]
    with torch.no_grad():
        own = [round(float(v), 4) for v in condition.value(pictures)]
    return {"own": own, "judged": verdicts, "spread": spread, "nearest": nearest(pictures, real)}


def nearest(pictures: Float[Tensor, "b 3 h w"], real: Float[Tensor, "n 3 h w"]) -> list[float]:
    """Root mean square of pixels to the nearest picture that the decoder was trained on."""
    off = torch.cdist(pictures.clamp(0, 1).flatten(1), real.flatten(1)).amin(1) / pictures[0].numel() ** 0.5
    return [round(float(v), 4) for v in off]


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
            found[key] = told(walk.pictures[-1], condition, judge, one.real)
    first = generator.network(starts)
    for rate in PIXEL_RATES:
        climbing = PixelAscent(how, lr=rate).sample(condition, first)
        found[f"pixels noise 0 eps1 0 lr {rate:.4f}"] = told(climbing.pictures[-1], condition, judge, one.real)
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
        right = float(np.mean(told(walk.pictures[-1], condition, one.models["judge"], one.real)["judged"]))
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


def arms(
    args: argparse.Namespace, one: World, best: dict[str, tuple[float, float, float]], row: dict[str, Any], keep: Any
) -> None:
    """Every way of making pictures in one world, from the same starts, with sheets; those that are there stay."""
    how, found = PPGN(n_steps=args.walk, n_shown=1), row.setdefault("arms", {})
    climbed, judge = one.models["climbed"], one.models["judge"]
    condition, colours = each_of(climbed, args.each), each_of(one.models["colours"], args.each)
    joint = one.ready("joint", NOISES[0])
    starts = noise(joint, len(condition.order), one.seed)
    first = joint.network(starts)

    def shown(name: str, goal: EachItsOwn, by: Classifier, make: Callable[[], Tensor]) -> None:
        if name not in found:
            pictures = make()
            found[name] = told(pictures, goal, by, one.real)
            sheet(pictures, args.each, args.work / f"{one.kind}-{one.seed}-{name.replace(' ', '-')}.png")
            keep()

    def walked(name: str, way: str, goal: EachItsOwn = condition, by: Classifier = judge, **changes: float) -> None:
        size, eps1, rate = best[way]
        sampler, own = replace(how, **{"eps1": eps1, "lr": rate, **changes}), "joint" if way == "none" else way

        def make() -> Tensor:
            codes = starts[: len(goal.order)]
            return sampler.sample(one.ready(own, size), goal, codes, seed=one.seed).pictures[-1]

        shown(name, goal, by, make)

    shown("start", condition, judge, lambda: first)
    walked("none", "none")
    climb = PixelAscent(how, lr=best["pixels"][2])
    shown("pixels", condition, judge, lambda: climb.sample(condition, first).pictures[-1])
    for way in PRIORS:
        walked(way, way)
    for way in PRIORS[:2]:
        walked(f"{way} too strong", way, eps1=STRONG * best[way][1])
    for way in ("none", *PRIORS[:2]):
        walked(f"colours {way}", way, colours, one.models["colour_judge"])
    noisy(args, one, condition, best["score"][0], shown)
    row["facts"] = {prior: one.ready(prior, best[prior][0]).facts for prior in PRIORS}
    ends = replace(how, eps3=1e-17, n_steps=5).sample(joint, of_class(climbed, 0), starts[:1].expand(5, -1)).codes
    row["released noise"] = float((ends - ends[:1]).abs().max())


def noisy(args: argparse.Namespace, one: World, condition: EachItsOwn, size: float, shown: Callable[..., None]) -> None:
    """Walks of one start with noise of several sizes, by the equation as it stands."""
    generator = one.ready("score", size)
    start, unit = generator.codes.mean(0).expand(len(condition.order), -1), float(generator.codes.std(0).mean())
    for eps3 in EPS3:
        raw = replace(RAW, eps3=eps3 * unit, n_steps=args.walk, n_shown=1)
        make = partial(raw.sample, generator, condition, start, seed=one.seed)
        shown(f"eps3 {eps3:g}", condition, one.models["judge"], lambda make=make: make().pictures[-1])


def sheet(pictures: Float[Tensor, "n 3 s s"], each: int, path: Path) -> None:
    """A row for each class, twice as large."""
    grid = bytes_of(pictures).unflatten(0, (-1, each)).permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1).numpy()
    Image.fromarray(grid).resize((2 * grid.shape[1], 2 * grid.shape[0]), 0).save(path)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """World by world, kept beside the report."""
    place = None if args.out is None else args.out.with_suffix(".progress")
    found: dict[str, Any] = json.loads(place.read_text()) if place is not None and place.exists() else {}
    told = [args.seed, args.steps, args.walk, args.each]
    plan = [CHOOSES, *((kind, seed) for seed in range(1, args.worlds + 1) for kind in args.kinds)]
    for kind, seed in plan:
        row = found.setdefault(json.dumps([*told, kind, seed]), {"seconds": 0.0, "cpu": 0.0})
        if "right" in row:
            continue
        one, first = world(args, kind, seed), found[json.dumps([*told, *CHOOSES])]
        clock = [time.perf_counter(), time.process_time()]

        def keep(row: dict[str, Any] = row, clock: list[float] = clock) -> None:
            now = [time.perf_counter(), time.process_time()]
            row["seconds"], row["cpu"] = row["seconds"] + now[0] - clock[0], row["cpu"] + now[1] - clock[1]
            clock[:] = now
            if place is not None:
                write_atomic(place, json.dumps(found))

        if row is first:
            row.update(first_world(args, one))
        else:
            arms(args, one, chosen(first), row, keep)
        row["right"] = one.right
        keep()
    return {f"{kind}-{seed}": found[json.dumps([*told, kind, seed])] for kind, seed in plan}


def run(args: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder) if args.out is None else args.out.with_suffix(".worlds")
        args.work = make_folder(args.work or beside)
        found = measured(args)
    first = found.pop("{}-{}".format(*CHOOSES))
    return report_of(args, first, found, chosen(first), EPS3)


def main(arguments: Sequence[str] | None = None) -> Report | None:
    options = parser(__doc__ or "", "ppgn")
    options.add_argument("--worlds", type=int, default=1, help="of each kind that are reported")
    options.add_argument("--kinds", nargs="+", choices=tuple(kinds.DRAWS), default=list(kinds.DRAWS))
    options.add_argument("--steps", type=float, default=1.0, help="part of the batches that networks are trained on")
    options.add_argument("--walk", type=int, default=40, help="steps of a chain")
    options.add_argument("--each", type=int, default=10, help="chains for each class")
    options.add_argument(
        "--work", type=Path, help="where trained networks and sheets of pictures stay; left out, beside --out"
    )
    options.add_argument("--only", help="train this world, such as digits-1, into --work, and end")
    args = options.parse_args(arguments)
    if args.only:
        kind, _, seed = args.only.partition("-")
        world(args, kind, int(seed))
        return None
    return deliver(options, run, arguments)


if __name__ == "__main__":
    main()
