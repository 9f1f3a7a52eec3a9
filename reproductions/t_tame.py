"""T-TAME: is a map from one forward pass as faithful as those of perturbation methods? And is it on another measure?

    python reproductions/t_tame.py --pictures TRAIN --test TEST --out t_tame.json   # class folders: a linear classifier
    python reproductions/t_tame.py --pictures PHOTOS --out t_tame.json              # loose pictures: the embedded one

Ntrougkas, Gkalelis & Mezaris 2024 (arXiv 2403.04523). Average drop and increase read what T-TAME was trained for, the
class under a soft mask, so the claim counts only where ROAD, which it was not trained for, agrees.
Ten to twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewhy.attributions import attributions
from seewhy.attributions.t_tame import TTAME
from seewhy.attributions.t_tame_mechanism import masked
from seewhy.attributions.t_tame_training import FitTTAME
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.head import Target
from seewhy.classifiers.linear import Linear
from seewhy.classifiers.pretrained import Pretrained
from seewhy.data import load_samples
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.images import read_picture
from seewhy.listener import Listener
from seewhy.listing import list_pictures
from seewhy.metrics.average_drop import AverageDrop
from seewhy.metrics.base import Case
from seewhy.metrics.road import ROAD

KEEP = (1.0, 0.5, 0.15)
CONTROLS = ("random", "centred Gaussian")
Method = Callable[[Classifier, Any, Target], Tensor]


def main() -> None:
    args = arguments()
    torch.set_flush_denormal(True)  # a network of shuffled weights is full of them, and slow
    encoder = find("lite0") if args.size is None else smaller(find("lite0"), args.size)
    classifier, train, test = data(args, encoder)
    fitted, training = {}, {}
    for variant in args.variants.split(","):
        fit = FitTTAME(variant=variant)
        how = fit.training(args.steps, args.batch_size, seed=args.seed)
        begun = time.perf_counter()
        fitted[variant] = fit.fit(classifier, train, how, listener=Told())
        training[variant] = {**fitted[variant].trained, "seconds": round(time.perf_counter() - begun)}
        print(json.dumps(training[variant]), flush=True)
    methods = maps_of(fitted, args)
    rows, cost, checks = measure(classifier, test, methods, fitted, trained_classes(classifier, train))
    report = {"training": training, "n_train": len(train), "n_test": len(test), "methods": rows, "seconds": cost}
    report |= {"checks": checks, "verdicts": verdicts(rows, cost, checks)}
    show(report)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--test", type=Path, help="class folders to measure on; left out, the last of the pictures")
    parser.add_argument("--n-test", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--variants", default="t_tame,l_cam")
    parser.add_argument("--n-masks", type=int, default=500, help="of RISE")
    parser.add_argument("--n-channels", type=int, default=128, help="masks of Score-CAM; 0 takes every channel")
    parser.add_argument("--size", type=int, help="side of all pictures in pixels; left out, 224")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def smaller(encoder: Encoder, size: int) -> Encoder:
    """The same network on smaller pictures, from the classifier's fit to the last measure."""
    own = encoder.transform
    assert isinstance(own.resize, int)
    return Encoder(
        name=f"{encoder.name} at {size} px",
        transform=replace(own, input_size=(size, size), resize=round(own.resize * size / own.input_size[0])),
        trunk=lambda: encoder.trunk,
        head=encoder.head,
        layout=encoder.layout,
        fingerprint=f"{encoder.fingerprint} {size}",
        classifier=encoder.classifier,
        classes=encoder.classes,
    )


class Told(Listener):
    """Says every twentieth step when it was done."""

    def track(self, items: Iterable[Any], what: str, total: int | None = None) -> Iterator[Any]:
        begun = time.perf_counter()
        for i, item in enumerate(items):
            if i % 20 == 0:
                print(f"{what} {i} of {total}, {time.perf_counter() - begun:.0f} s", flush=True)
            yield item


def data(args: argparse.Namespace, encoder: Encoder) -> tuple[Classifier, list[str], list[str]]:
    """A classifier, pictures to train the explainer on, and others to measure on."""
    draw = random.Random(args.seed)
    if args.test is not None:
        samples = load_samples(args.pictures)
        classifier = Linear(n_crops=2, seed=args.seed).fit(encoder, samples)
        test = list(list_pictures([args.test]))
        draw.shuffle(test)
        return classifier, [s.image for s in samples.items], test[: args.n_test]
    pictures = list(list_pictures([args.pictures]))
    draw.shuffle(pictures)
    return Pretrained().build(encoder), pictures[: -args.n_test], pictures[-args.n_test :]


def maps_of(fitted: dict[str, Any], args: argparse.Namespace) -> dict[str, Method]:
    def noise(_model: Classifier, look: Any, _target: Target) -> Tensor:
        return torch.rand(len(look), 7, 7, generator=torch.Generator().manual_seed(args.seed))

    def gaussian(_model: Classifier, look: Any, _target: Target) -> Tensor:
        line = torch.linspace(-2, 2, 28).square()
        return (-(line[:, None] + line) / 2).exp().expand(len(look), 28, 28)

    return {
        **{name: TTAME(explainer=one) for name, one in fitted.items()},
        "grad_cam": attributions["grad_cam"](),
        "grad_cam_plus_plus": attributions["grad_cam_plus_plus"](),
        "score_cam": attributions["score_cam"](n_masks=args.n_channels),
        "rise": attributions["rise"](n_masks=args.n_masks),
        "random": noise,
        "centred Gaussian": gaussian,
    }


def trained_classes(classifier: Classifier, train: list[str]) -> set[str]:
    return {p.label for p in classifier.predict_all(train)}  # type: ignore[union-attr]


def measure(
    classifier: Classifier, test: list[str], methods: dict[str, Method], fitted: dict[str, Any], known: set[str]
) -> tuple[dict[str, Any], dict[str, float], dict[str, Any]]:
    """Every method on every picture; and whether T-TAME depends on class and network at all."""
    table: dict[str, dict[str, list[float]]] = {name: {} for name in methods}
    cost = dict.fromkeys(methods, 0.0)
    other = shuffled_network(classifier)
    seen, wrong, broken, level = [], [], [], {"map": [], "uniform": []}
    road = ROAD(fractions=(0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9))
    for number, name in enumerate(test):
        pixels = classifier.encoder.pixels([read_picture(name, classifier.encoder.transform).pixels])
        look = classifier.encoder.look(pixels)
        chances = classifier.head.probabilities(look.pooled)[0]
        best, second = chances.topk(2).indices.tolist()
        seen.append(classifier.classes[best] in known)
        maps = []
        for method, call in methods.items():
            begun = time.perf_counter()
            maps.append(call(classifier, look, Target(torch.tensor([best])))[0])
            cost[method] += time.perf_counter() - begun
        case = Case.of(classifier, pixels[0], best)
        sized = torch.stack(
            [
                torch.nn.functional.interpolate(m[None, None].relu(), pixels.shape[2:], mode="bilinear")[0, 0]
                for m in maps
            ]
        )
        for keep in KEEP:
            for method, score in zip(methods, AverageDrop(keep, "raw").measure(case, sized), strict=True):
                table[method].setdefault(f"AD({keep:.0%})", []).append(score.value)
                rises = score.parts["masked"] > score.parts["whole"]  # average increase, from the same two passes
                table[method].setdefault(f"IC({keep:.0%})", []).append(100.0 * rises)
        for method, score in zip(methods, road.measure(case, sized), strict=True):
            table[method].setdefault("ROAD", []).append(score.value)
        first = TTAME(explainer=next(iter(fitted.values())))
        wrong.append(correlation(maps[0], first(classifier, look, Target(torch.tensor([second])))[0]))
        broken.append(correlation(maps[0], first(other, other.encoder.look(pixels), Target(torch.tensor([best])))[0]))
        mean = sized[0] / sized[0].max().clamp(min=1e-9)
        flat = masked(pixels, torch.full((1, 2, 2), float(mean.mean())), "black", *transform(classifier))
        level["uniform"].append(100 * max(0.0, float(1 - classifier.probabilities(flat)[0, best] / chances[best])))
        level["map"].append(float(mean.mean()))
        if number % 10 == 0:
            print(f"{number + 1} of {len(test)}", {m: round(s / (number + 1), 2) for m, s in cost.items()}, flush=True)
    rows = {m: {k: summary(v) for k, v in row.items()} for m, row in table.items()}
    for method, row in table.items():
        for flag, word in ((True, "class trained on"), (False, "class not trained on")):
            values = [v for v, s in zip(row["AD(100%)"], seen, strict=True) if s is flag]
            if values and len(values) < len(seen):
                rows[method][f"AD(100%), {word} (n={len(values)})"] = summary(values)
    checks = {
        "correlation with the map of the second class": summary(wrong),
        "correlation with the map on a network of shuffled weights": summary(broken),
        "mean of the map": summary(level["map"]),
        "AD(100%) of a uniform mask of the same mean": summary(level["uniform"]),
    }
    return rows, {m: round(s / len(test), 4) for m, s in cost.items()}, checks


def transform(classifier: Classifier) -> tuple[Any, Any]:
    return classifier.encoder.transform.mean, classifier.encoder.transform.std


def summary(values: list[float]) -> list[float]:
    """Mean and its standard error."""
    numbers = torch.tensor(values)
    return [round(float(numbers.mean()), 4), round(float(numbers.std() / len(values) ** 0.5), 4)]


def correlation(a: Tensor, b: Tensor) -> float:
    value = float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
    return value if value == value else 0.0


def shuffled_network(classifier: Classifier) -> Classifier:
    """The same classifier on a trunk whose every convolution has its weights in random order."""
    from copy import deepcopy

    old = classifier.encoder
    trunk = deepcopy(old.trunk)
    generator = torch.Generator().manual_seed(0)
    for parameter in trunk.parameters():
        if parameter.ndim > 1:
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.data = parameter.data.flatten()[order].reshape(parameter.shape)
    encoder = Encoder(
        name="shuffled",
        transform=old.transform,
        trunk=lambda: trunk,
        head=old.head,
        layout=old.layout,
        fingerprint="shuffled",
        engine="torch",
    )
    return replace(classifier, encoder=encoder)


def verdicts(rows: dict[str, Any], cost: dict[str, float], checks: dict[str, Any]) -> list[dict[str, str]]:
    """The paper's claims, and whether they show here; a difference within two standard errors is none.

    What a control does as well does not show.
    """
    found = []
    for claim, key, sign in (
        ("AD(100%) as low as perturbation's", "AD(100%)", -1),
        ("IC(100%) as high as perturbation's", "IC(100%)", 1),
        ("AD(15%) as low as perturbation's", "AD(15%)", -1),
        ("ROAD as high as perturbation's", "ROAD", 1),
        ("ROAD higher than Grad-CAM's", "ROAD", 1),
    ):
        rivals = ["grad_cam"] if "Grad-CAM" in claim else ["score_cam", "rise"]
        mine = rows["t_tame"][key]
        best = max(rivals, key=lambda r: sign * rows[r][key][0])
        lead = sign * (mine[0] - rows[best][key][0])
        error = (mine[1] ** 2 + rows[best][key][1] ** 2) ** 0.5
        better, level = lead > 2 * error, abs(lead) <= 2 * error
        shows = better or (level and "as " in claim)
        controls = {c: rows[c][key][0] for c in CONTROLS}
        if key == "AD(100%)":
            controls["uniform mask"] = checks["AD(100%) of a uniform mask of the same mean"][0]
        control = max(controls, key=lambda c: sign * controls[c])
        beaten = sign * mine[0] <= sign * controls[control]
        text = f"{mine[0]:.3f} ± {mine[1]:.3f}, {best} {rows[best][key][0]:.3f} ± {rows[best][key][1]:.3f}"
        text += f"; control {control} {controls[control]:.3f}"
        why = ": no better than a control" if beaten else ""
        found.append(
            {"claim": claim, "measured": text, "verdict": "shows" if shows and not why else f"does not show{why}"}
        )
    ratio = {m: cost[m] / cost["t_tame"] for m in ("score_cam", "rise")}
    text = f"{cost['t_tame'] * 1000:.0f} ms a map; " + ", ".join(f"{m} {r:.0f} times that" for m, r in ratio.items())
    verdict = "shows" if min(ratio.values()) > 5 else "does not show"
    return [*found, {"claim": "a small part of perturbation's cost", "measured": text, "verdict": verdict}]


def show(report: dict[str, Any]) -> None:
    keys = [f"{short}({keep:.0%})" for short in ("AD", "IC") for keep in KEEP] + ["ROAD"]
    print(f"{'method':<20}" + "".join(f"{k:>16}" for k in keys) + f"{'ms a map':>10}")
    for method, row in report["methods"].items():
        cells = "".join(f"{row[k][0]:>9.3f} ±{row[k][1]:5.3f}" for k in keys)
        print(f"{method:<20}{cells}{report['seconds'][method] * 1000:>10.1f}")
        print("".join(f"{'':<20}{k}: {v[0]:.1f} ± {v[1]:.1f}\n" for k, v in row.items() if k not in keys), end="")
    for check, value in report["checks"].items():
        print(f"{check}: {value[0]:.3f} ± {value[1]:.3f}")
    for line in report["verdicts"]:
        print(f"claim: {line['claim']}\n  measured: {line['measured']}\n  verdict: {line['verdict']}")


if __name__ == "__main__":
    main()
