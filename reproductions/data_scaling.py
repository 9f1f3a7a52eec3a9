"""Data scaling: does every doubling bring as much, and do noise, classes and capacity change that?

    python reproductions/data_scaling.py --planted                        # seconds, and no pictures needed
    python reproductions/data_scaling.py --train grocery/train --test grocery/test --store seen.sqlite --out found.json

Sun, Shrivastava, Singh & Gupta 2017 (arXiv 1707.02968) pre-train on up to 300 million pictures. Here the encoder is
frozen, and the linear classifier of `seewhy fit` learns from more and more pictures (`seewhy study scaling`). The rules
were written before the run. All intervals are at 95 %, over subsets and test pictures together. Takes about ten minutes
on two busy cores; a stopped run continues from the files beside --out.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from claims import JUDGED, Claim, Interval, Report, Verdict, command, deliver, judged, machine, parser, verdict

from seewhy.classifiers.linear.recipe import Linear
from seewhy.encoders.find import encoder
from seewhy.pictures.samples import Sample, Samples, gathered, load_samples
from seewhy.storage.features import FeatureStore
from seewhy.studies.scaling import ScalingStudy

NOISE = (0.2, 0.4)
ENCODERS = ("lite0", "lite2")
NEAR = 1.1
"""Times the error of the best saturating form, up to which the straight line counts as not beaten: partly."""


def planted(n: int, seed: int) -> Samples:
    """Coloured noise in six classes that overlap."""
    rng = np.random.default_rng(seed)
    items = []
    for k in range(6):
        colour = 90 + 25 * np.array([k % 2, (k // 2) % 2, k // 4])
        for i in range(n):
            pixels = colour + rng.normal(0, 28, 3) + rng.normal(0, 20, (32, 32, 3))
            items.append(Sample(f"{k} {i} {seed}", f"class {k}", pixels=pixels.clip(0, 255).astype(np.uint8)))
    return gathered(items)


def interval(summary: dict[str, Any]) -> Interval:
    return Interval(summary["value"], *summary["interval_95"])


def straightness(line: float | None, floors: list[float | None]) -> tuple[str, Verdict]:
    """What was measured of the straight line and of the forms with a floor, and the verdict."""
    known = [off for off in floors if off is not None]
    if line is None or not known:
        return "too few sizes to hold any out", "too small to tell"
    bent = min(known)
    said = f"straight {line:.3f}, best with a floor {bent:.3f}"
    return said, verdict(line <= bent, line <= NEAR * bent)


def claims_of(data: dict[str, Any], n_classes: int) -> tuple[Claim, ...]:
    """The paper's claims on a study's numbers; arms in the order: base, larger encoder, noise, classes."""
    base, larger, *noisy, fewer = data["arms"]
    n = data["n_test"]
    low, high = data["tested_range"]
    off = {f["name"]: f["held_out_error"] for f in base["forms"]}
    line, *floors = (off[name] for name in sorted(off, key=lambda name: name != "log-linear"))
    slope = interval(base["slope"])
    found = [
        Claim("Accuracy grows with the logarithm of the number of pictures", f"slope a doubling; {JUDGED}",
              f"{slope}, from {low} to {high} pictures", judged(slope), n, interval=slope),
        Claim("It goes on as a straight line: no plateau within what was tested",
              "relative error at larger sizes that were not fitted on; shown: the straight line's is not above that of "
              f"either form with a floor; partly: up to {NEAR} times it",
              *straightness(line, floors), n),
    ]  # fmt: skip
    for arm in noisy:
        slope, worth = interval(arm["slope"]), arm["against"]["worth"]
        told = "below what the clean ones reach at the least size" if worth is None else str(interval(worth))
        rule = f"slope a doubling with {arm['noise']:.0%} of labels wrong; {JUDGED}"
        said = f"{slope}; a picture of such a set is worth {told} clean ones"
        found.append(Claim("Wrong labels slow it and do not end it", rule, said, judged(slope), n, "noise"))
    less = interval(fewer["against"]["slope"])
    found.append(
        Claim("The number of classes changes little", f"slope with {n_classes} classes less slope with all; shown: 0 "
              "within the interval; not shown: outside", f"{less}", verdict(less.low <= 0 <= less.high), n, "classes")
    )  # fmt: skip
    more = interval(larger["against"]["slope"])
    gap = interval(larger["against"]["accuracy"])
    found.append(
        Claim("A larger encoder makes more of the same pictures",
              f"slope of {larger['encoder']} less slope of {base['encoder']}; {JUDGED}",
              f"{more}; at all pictures {gap} more are right", judged(more), n, "capacity")
    )  # fmt: skip
    return tuple(found)


def run(args: Namespace) -> Report:
    start = time.monotonic()
    if args.planted:
        train, test, about = planted(24, 1), planted(30, 2), "coloured noise in six overlapping classes"
    else:
        train, test = load_samples(args.train), load_samples(args.test)
        about = f"{Path(args.train).parent.name}: {len(train)} pictures of {len(train.classes)} classes"
        about += f", {len(test)} to test"
    few = max(2, len(train.classes) // 4)
    recipe = Linear(n_crops=0)
    study = ScalingStudy(
        n_sizes=args.sizes, n_seeds=args.seeds, noise=NOISE, n_classes=(few,), recipe=recipe, seed=args.seed
    )
    folder = None if args.out is None else args.out.parent / f"{args.out.stem}.cells"
    found = study.run({name: encoder(name) for name in ENCODERS}, train, folder, test=test,
                      store=FeatureStore(args.store) if args.store else None)  # fmt: skip
    kept = ("name", "slope", "floor", "form", "forms", "against")
    return Report(
        "data_scaling", "Does every doubling of the pictures bring as much?",
        "Sun et al. 2017, arXiv:1707.02968; M4 of Alabdulmohsin et al. 2022, arXiv:2209.06640", about,
        f"{' and '.join(ENCODERS)}, frozen; {found.data['classifier']}; {args.sizes} sizes, {args.seeds} nested "
        "subsets each",
        command("data_scaling"), machine(), round(time.monotonic() - start, 1), args.seed,
        claims_of(found.data, few),
        ("A linear layer on a frozen encoder learns from a thousand pictures; in the paper networks do, from millions",
         "One family of small networks, the larger one of larger input too: depth alone is not varied",
         "Fewer classes are other pictures too, fewer in all; the paper keeps the pictures and drops labels",
         "Wrong labels are drawn evenly over the other classes; those of the paper are whatever the web has",
         "Accuracy of the task itself, not of detection or segmentation after transfer",
         "What the encoders saw was in the store, not in the time, where --store was given"),
        {"arms": [{k: arm[k] for k in kept} | {"points": [[p["n"], p["accuracy"]] for p in arm["points"]]}
                  for arm in found.data["arms"]]},
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    made = parser(__doc__ or "", "data_scaling")
    made.add_argument("--train", help="a folder with one folder per class")
    made.add_argument("--test", help="the same classes")
    made.add_argument("--planted", action="store_true", help="drawn pictures instead")
    made.add_argument("--sizes", type=int, default=7)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--store", help="where looks are kept")
    return deliver(made, run, arguments)


if __name__ == "__main__":
    main()
