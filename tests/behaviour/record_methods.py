"""What attributions, metrics, classifiers, likenesses and verdicts answer on tiny networks and pictures, as numbers."""

from __future__ import annotations

import re
import tempfile
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planting import score_methods
from registered import ENCODERS, MAKE, only_on, pairs, small
from seewhy.attributions import attributions
from seewhy.attributions.grad_cam import GradCAM
from seewhy.classifiers import classifiers
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.saving import load
from seewhy.classifiers.unfitted import Pretrained
from seewhy.descriptions import Descriptions
from seewhy.errors import SeeWhyError
from seewhy.heads.head import Target
from seewhy.language.questions import Difference, Pair
from seewhy.metrics import metrics
from seewhy.metrics.base import Case
from seewhy.metrics.controls import centred_gaussian, uniform_map
from seewhy.pictures.samples import load_samples
from tiny import CLASSES, class_folders, colours, noise, picture, tiny_cnn

OURS = (
    "pretrained", "zero_shot", "described", "discriminative", "follow_up", "linear", "neighbours", "sparse_concepts",
)  # fmt: skip
WORDS = Descriptions({c: (f"{c} one", f"{c} two") for c in CLASSES})
PAIRS = [Pair(("moss", "rust"), (Difference("colour", "moss, green", "rust, brown"),))]


def summary(x: Tensor) -> list[Any]:
    """Shape, sum, length and a few entries of a tensor."""
    flat = x.detach().double().flatten()
    some = flat[torch.linspace(0, len(flat) - 1, min(len(flat), 5)).long()] if len(flat) else flat
    return [list(x.shape), float(flat.sum()), float(flat.norm()), *some.tolist()]


def tried(make: Any) -> Any:
    """What is made, or the sentence with which it is refused."""
    try:
        return make()
    except SeeWhyError as error:
        return str(error)


def maps() -> dict[str, Any]:
    """Every attribution on every encoder that it works on, of a class and of a class's lead."""
    built = {name: make() for name, make in MAKE.items()}
    target, lead = torch.tensor([0, 3]), Target(torch.tensor([0, 3]), torch.tensor([2, 1]))
    ready = [n for n in attributions if not attributions[n].needs_training and not attributions[n].recipe]
    found: dict[str, Any] = {}
    for name, encoder in pairs(attributions, ready, tuple(ENCODERS)):
        model, method = Pretrained().build(built[encoder]), small(attributions, name)
        look = model.encoder.encode(noise(2))
        for kind, goal in (("class", Target(target)), ("lead", lead)):
            found[f"{name} {encoder} {kind}"] = tried(lambda: summary(method(model, look, goal)))  # noqa: B023
    return found


def scores() -> dict[str, Any]:
    """Every metric of three maps."""
    model = Pretrained().build(tiny_cnn())
    methods, pixels = (GradCAM(), centred_gaussian, uniform_map), noise(1)
    look = model.encoder.encode(pixels)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:20, 10:30] = True
    made = [m(model, look, Target(torch.tensor([1])))[None] for m in methods]
    whole = torch.cat([torch.nn.functional.interpolate(m, (32, 32)) for m in made])[:, 0]
    found: dict[str, Any] = {}
    for name in metrics:
        case = Case.of(model, pixels[0], 1, methods=methods, mask=mask)
        found[name] = [
            [s.value, summary(torch.tensor(s.sums)), s.settings] for s in small(metrics, name).measure(case, whole)
        ]
    return found


def make(name: str, encoder: Any, folders: Path, **settings: Any) -> Classifier:
    """A classifier by a recipe's small settings."""
    recipe = small(classifiers, name, **settings)
    fits = hasattr(recipe, "fit")
    function = recipe.fit if fits else recipe.build
    given = {"samples": load_samples(folders), "labels": CLASSES[:3], "descriptions": WORDS, "pairs": PAIRS}
    taken = {"samples", *recipe.takes} if fits else signature(function).parameters
    given = {k: v for k, v in given.items() if k in taken}
    try:
        return function(encoder, **given)
    except SeeWhyError as error:
        if not re.search("descriptions|no text encoder", str(error), re.IGNORECASE):
            raise
        del given["descriptions"]
        return function(encoder, **given)


def colour_encoder() -> Any:
    """Reads the mean colour and knows the words for it, with a last layer that is the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return colours.__wrapped__()


def plain(data: Any, root: str) -> Any:
    """JSON without names of folders and digests of files, which vary from run to run."""
    if isinstance(data, dict):
        return {k: plain(v, root) for k, v in data.items() if k not in ("seewhy", "fingerprint", "seconds", "made")}
    if isinstance(data, list | tuple):
        return [plain(v, root) for v in data]
    return data.replace(root, "") if isinstance(data, str) else data


def fits(folders: Path) -> dict[str, Any]:
    """Every recipe: its figures, what it says of pictures, its card's JSON, and the same after it was saved."""
    found: dict[str, Any] = {}
    kinds = [(n, MAKE[(only_on(classifiers[n]) or ("cnn",))[0]](), {}) for n in OURS]
    kinds += [
        ("linear", colour_encoder(), {"split": "random", "n_crops": 0}),
        ("linear", colour_encoder(), {"solver": "svm"}),
    ]
    kinds += [("neighbours", colour_encoder(), {})]
    for i, (name, encoder, settings) in enumerate(kinds):
        made = make(name, encoder, folders, **settings)
        held = made.held_out
        why = made.explain(picture("moss", 0), seed=1).to_json()
        base = made.encoder if made.network is None else made.network.base
        again = load(made.save(folders.parent / f"model {i}"), encoder=base)
        found[f"{i} {name}"] = plain(
            {
                "classes": made.classes,
                "parameters": made.parameters,
                "measures": made.measures,
                "trained_on": made.trained_on,
                "words": [made.words_accuracy, made.words_accuracy_on],
                "held_out": held
                and [
                    summary(held.pooled),
                    held.labels.tolist(),
                    summary(held.labels if held.logits is None else held.logits),
                ],
                "groups": None if held is None or held.groups is None else held.groups.tolist(),
                "known": made.known and [[Path(n).name for n in made.known.names], summary(made.known.features)],
                "likeness": made.likeness and made.likeness.to_json(),
                "bank": made.bank and summary(made.bank.vectors),
                "noise": summary(made.probabilities(noise(4))),
                "card": why,
                "again": [summary(again.probabilities(noise(4))), again.explain(picture("sky", 1), seed=1).to_json()],
            },
            str(folders),
        )
    return found


def verdicts(root: Path) -> dict[str, Any]:
    """Trust measured on enough pictures, with groups and without, and decisions by it."""
    folders = class_folders(root / "many", 16, CLASSES)
    made = make("linear", colour_encoder(), folders, n_crops=0, n_bank=8).with_trust()
    trust = made.trust
    assert trust is not None
    kinds = [made.predict(picture(c, 50)).to_json() for c in CLASSES] + [
        made.predict(picture("moss", 3)[:, :, ::-1].copy()).to_json()
    ]
    return {
        "unknowns": vars(trust.unknowns),
        "figures": [trust.temperature, trust.sharpness, list(trust.shift), trust.line],
        "tensors": {name: summary(t) for name, t in trust.tensors().items()},
        "decisions": kinds,
        "because": made.explain(picture("moss", 1), because="calibrated", seed=1).to_json()["like"],
        "split": made.measures["split"],
    }


def record() -> dict[str, Any]:
    """All of it."""
    planted = score_methods(["grad_cam", "hires_cam", "eigen_cam", "occlusion", "attention_rollout", "chefer"], n=2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        return {
            "attributions": maps(),
            "metrics": scores(),
            "classifiers": fits(class_folders(root / "data", 5, CLASSES[:3])),
            "trust": plain(verdicts(root), folder),
            "planted": [vars(s) for s in planted],
        }
