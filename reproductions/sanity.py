"""Sanity checks of Adebayo et al. 2018 (arXiv 1810.03292): maps must change when the network or the class does."""

from __future__ import annotations

from collections import defaultdict

import torch
from claims import Claim, lead, mean_of, table, verdict
from localisation import Columns, Found, Maps
from torch import Tensor

from seewhy.classifiers.base import Classifier
from seewhy.metrics.base import Case
from seewhy.metrics.randomised import EfficientModelRandomisation, ModelRandomisation, RandomLogit


def sanity(methods: Maps, model: Classifier, photos: list[tuple[Tensor, int]]) -> Found:
    """What becomes of the maps when the network forgets, or when another class is asked for."""
    named = {name: method for name, method in methods.items() if name != "uniform"}  # which has no rank to compare
    judges = {
        "forgetting": ModelRandomisation(),
        "forgetting, weights shuffled": ModelRandomisation(reset="shuffle"),
        "entropy": EfficientModelRandomisation(),
        "another class": RandomLogit(),
    }
    found: dict[str, Columns] = {j: defaultdict(list) for j in judges}
    curves: dict[str, list[list[float]]] = defaultdict(list)
    for pixels, index in photos:
        case = Case.of(model, pixels, index, methods=list(named.values()))
        maps = case.explain(pixels[None])[:, 0]
        for label, judge in judges.items():
            for name, score in zip(named, judge.measure(case, maps), strict=True):
                found[label][name].append(score.value)
                if "curve" in score.parts:
                    curves[f"{label}: {name}"].append(score.parts["curve"])
    steps = {k: torch.tensor(v).mean(0).tolist() for k, v in curves.items()}
    numbers = {
        **{j: table(c) for j, c in found.items()},
        "curves": {k: [round(x, 3) for x in v] for k, v in steps.items()},
    }
    return sanity_claims(found, len(photos)), numbers


def sanity_claims(found: dict[str, Columns], n: int) -> list[Claim]:
    cam, guided, edges = (mean_of(found["forgetting"][m]) for m in ("grad_cam", "guided_backprop", "edges"))
    worse = lead(found["forgetting"]["guided_backprop"], found["forgetting"]["grad_cam"])
    rise = [mean_of(found["entropy"][m]) for m in ("grad_cam", "guided_backprop")]
    more = lead(found["entropy"]["grad_cam"], found["entropy"]["guided_backprop"])
    other = [mean_of(found["another class"][m]) for m in ("grad_cam", "guided_backprop", "edges")]
    less = lead(found["another class"]["guided_backprop"], found["another class"]["grad_cam"])
    steps = "rank correlation with the maps of a network that forgets from the output downwards, mean of 5 steps"
    return [
        Claim(
            "Grad-CAM passes model randomisation",
            f"{steps}: interval below 0.5; partly: below 0.8",
            f"{cam}; control edges {edges}",
            verdict(cam.high < 0.5, cam.high < 0.8),
            n,
            "sanity",
        ),
        Claim(
            "Guided Backprop fails model randomisation",
            "the same: interval above 0.5; partly: above Grad-CAM's, in pairs",
            f"{guided}; more than Grad-CAM by {worse}",
            verdict(guided.low > 0.5, worse.low > 0),
            n,
            "sanity",
        ),
        Claim(
            "Efficient randomisation: Grad-CAM's map gets more disordered than Guided Backprop's",
            "rise of the entropy of the map's values when all layers have forgotten: above Guided Backprop's in pairs, "
            "and above 0; partly: one of the two",
            f"Grad-CAM {rise[0]}; Guided Backprop {rise[1]}; difference {more}",
            verdict(more.low > 0 and rise[0].low > 0, more.low > 0 or rise[0].low > 0),
            n,
            "sanity",
        ),
        Claim(
            "Random logit: another class gives another Grad-CAM map, but much the same of Guided Backprop",
            "structural similarity of the two maps: Guided Backprop's above Grad-CAM's in pairs, and above 0.5, and "
            "Grad-CAM's below 0.5; partly: the first of these",
            f"Grad-CAM {other[0]}; Guided Backprop {other[1]}; control edges {other[2]}",
            verdict(less.low > 0 and other[1].low > 0.5 and other[0].high < 0.5, less.low > 0),
            n,
            "sanity",
        ),
    ]
