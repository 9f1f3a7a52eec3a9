"""What training answers on small fixed data: every objective, way and trained recipe, as numbers."""

from __future__ import annotations

import csv
import importlib
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import seewhy
from registered import small
from seewhy.classifiers import classifiers
from seewhy.descriptions import Descriptions
from seewhy.language.matching import Caption
from seewhy.learning.objectives import Contrastive, objectives
from seewhy.pictures.samples import load_samples
from seewhy.prototypes import prototypes
from tiny import CLASSES, class_folders, noise, picture, tiny_cnn, tiny_tokens
from tiny_transformer import tiny_vit
from tiny_words import opened, opened_vit, tiny_pair

WORDS = Descriptions({c: (f"{c} one", f"{c} two") for c in CLASSES})
RECIPES: dict[str, Any] = {
    "protopnet": tiny_cnn,
    "comet": tiny_cnn,
    "prompt_cam": tiny_vit,
    "perceptual": tiny_cnn,
    "gist": tiny_pair,
    "gpt4image": tiny_pair,
    "coop": opened,
    "cocoop": opened,
    "promptsrc": opened,
    "ogen": opened,
    "maple": opened_vit,
    "promptsrc_towers": opened_vit,
}
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "protopnet at random": ("protopnet", {"start": "random"}),
    "comet 3p": ("comet", {"mode": "3p"}),
    "comet from scratch": ("comet", {"backbone": "scratch", "size": 32}),
    "comet post hoc": ("comet", {"mode": "post_hoc"}),
    "prompt_cam deep": ("prompt_cam", {"variant": "deep"}),
    "perceptual vanilla": ("perceptual", {"form": "vanilla"}),
    "gist image": ("gist", {"train": "image", "lr": 0.02}),
    "gist towers": ("gist", {"train": "towers", "lr": 0.02}),
    "gpt4image from scratch": ("gpt4image", {"backbone": "scratch", "size": 32}),
    "coop chosen": ("coop", {"keep": None, "shots": 2}),
    "ogen per class": ("ogen", {"extrapolation": "per_class", "new_names": ("a b", "c d")}),
}


def number(tensor: torch.Tensor) -> list[float]:
    """A tensor in three numbers that a change anywhere moves."""
    flat = tensor.detach().double().flatten()
    wave = torch.sin(torch.arange(len(flat), dtype=torch.float64) * 0.7 + 1)
    return [float(flat.sum()), float((flat * wave).sum()), float(flat.norm())]


def drawn(*shape: int) -> torch.Tensor:
    seed = zlib.crc32(repr(shape).encode())
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def losses() -> Iterator[tuple[str, Any]]:
    """Every objective on fixed vectors, with its gradient."""
    labels = torch.tensor([0, 1, 1, 2, 0, 1])
    for name in objectives:
        objective: Any = small(objectives, name)
        torch.manual_seed(0)
        x = drawn(6, 5).requires_grad_()
        if isinstance(objective, Contrastive):
            text = drawn(6, 3, 5) if objective.n_texts > 1 else drawn(6, 4)[:, [0, 1, 2, 3, 0]]
            loss = objective(x, text, labels)
            if hasattr(objective, "local"):
                loss = loss + objective.local(x[:, None] + drawn(6, 7, 5), drawn(6, 4, 5))
        elif not hasattr(objective, "whole"):
            loss = objective(torch.stack([x, drawn(6, 5) + 0.1 * drawn(6, 5).roll(1, 0)], 1), labels)
        else:
            boxes = torch.tensor([[[0.0, 0.0, 0.8, 0.9]], [[0.1, 0.2, 1.0, 1.0]]]).expand(2, 6, 4)
            flipped = torch.tensor([[False] * 6, [True] * 6])
            loss = objective(x[:, :, None, None] + drawn(6, 5, 3, 3), drawn(6, 5, 3, 3).flip(0), boxes, flipped)
        yield name, [float(loss.detach()), *number(torch.autograd.grad(loss, x)[0])]


def table(root: Path, rows: list[dict[str, str]]) -> str:
    """A table of pictures, each drawn of what its name says."""
    for row in rows:
        name = row["image"].removesuffix(".png")
        Image.fromarray(picture(name[:-1], int(name[-1]))).save(root / row["image"])
    with open(root / "table.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(root / "table.csv")


def reports(root: Path) -> str:
    return table(
        root,
        [
            {
                "image": f"{label}{i}.png",
                "long": f"There is {label} number {i}. Nothing else of {label}.",
                "short": f"some {label} {i}",
                "kind": label,
            }
            for label in CLASSES
            for i in range(3)
        ],
    )


def taught(done: Any) -> dict[str, Any]:
    """What a training gave: its steps, what was tried, and what the encoder makes of noise."""
    encoder, provenance = done.encoder, done.adaptation.provenance
    return {
        "loss": [step["loss"] for step in done.done.history],
        "last": done.done.history[-1],
        "tried": [(one.keep, one.gain, one.named) for one in done.tried],
        "counts": [len(done.train), len(done.held), provenance["keep"], provenance["loss"]],
        "pooled": number(encoder.encode(noise(2)).pooled),
        "text": number(encoder.encode_text(["some moss", "rust"])) if encoder.has_text else [],
        "facts": done.adaptation.trained.facts(),
        "digest": encoder.fingerprint,
        "provenance": sorted(provenance),
    }


def adapted(root: Path) -> Iterator[tuple[str, Any]]:
    items = reports(root)
    columns: dict[str, Any] = {"text": ["long", "short"], "label": "kind"}
    given: dict[str, Any] = {**columns, "keep": 1.0, "epochs": 2, "batch_size": 6, "lr": 1e-2}
    for name in objectives:
        if issubclass(objectives[name], Contrastive) and objectives[name].plain_pairs:
            for form in ("heads", "towers"):
                more = {**given, "train": form, "objective": name}
                yield f"adapt {name} {form}", taught(seewhy.adapt(items, tiny_pair(), **more, width=8))
    for form in ("heads", "image", "text"):
        more = {**given, "train": form, "keep": None, "micro_batch": 2}
        yield f"adapt clip {form} chosen", taught(seewhy.adapt(items, tiny_pair(), **more, width=8))
    samples = load_samples(class_folders(root / "folders", 4))
    quick: dict[str, Any] = {"epochs": 2, "batch_size": 6, "lr": 3e-3, "projection_width": 8, "augmentation": "crops"}
    for name in objectives:
        if hasattr(objectives[name], "slow_views") and not hasattr(objectives[name], "whole"):
            yield f"pretrain {name}", taught(seewhy.pretrain(samples, tiny_cnn(), objective=name, **quick))
    for name, more in (("pixpro", {}), ("pixpro", {"pyramid": True}), ("simclr", {"keep_head": True})):
        on = seewhy.encoder("new:resnet/16", engine="torch") if "pyramid" in more else tiny_cnn()
        if "pyramid" in more:
            done = seewhy.pretrain(samples, on, objective=name, **{**quick, **more, "epochs": 1})
            yield f"pretrain {name} {sorted(more)}", [step["loss"] for step in done.done.history]
        else:
            done = seewhy.pretrain(samples, on, objective=name, **quick, **more)
            yield f"pretrain {name} {sorted(more)}", taught(done)
    towers: dict[str, Any] = {**columns, "epochs": 2, "batch_size": 6, "lr": 1e-2}
    yield "pretrain clip", taught(seewhy.pretrain(items, tiny_pair(), objective="clip", **towers))


def from_columns(root: Path) -> Iterator[tuple[str, Any]]:
    rows = [
        {"image": f"{label}{i}.png", "kind": label, "title": f"some {label} {i}"}
        for label in CLASSES[:2]
        for i in range(6)
    ]
    rows[0]["title"], rows[-1]["kind"] = "", ""
    pairs = table(root, rows)
    given: dict[str, Any] = {"epochs": 2, "lr": 0.02}
    for name, more in (
        ("focallens", {"instructions": {"kind": ["the kind", "what?"]}}),
        ("prefix", {"label": "kind", "text": "title"}),
    ):
        for keep in (0.5, None):
            done = seewhy.adapt(pairs, opened(), objective=name, keep=keep, **given, **more)
            right = {measure: float(j.right(j.after)[:, 0].mean()) for measure, j in done.judged.items()}
            yield f"{name} {keep}", {**taught(done), "judged": right}


def explained(made: Any, folders: Path) -> list[float]:
    why = made.explain(str(min(folders.rglob("*.png"))))
    return number(torch.as_tensor(why.where.heat).float())


def recipes(root: Path) -> Iterator[tuple[str, Any]]:
    folders = class_folders(root / "classes", 4)
    samples = load_samples(folders)
    captions = [Caption(str(p), "", (f"a picture called {p.stem}",)) for p in sorted(folders.rglob("*.png"))]
    every = [(name, name, {}) for name in RECIPES] + [(told, name, more) for told, (name, more) in MORE.items()]
    for told, name, more in every:
        recipe, on = small(classifiers, name, **more), RECIPES[name]()
        given: dict[str, Any] = {"captions": captions} if name in ("gist", "gpt4image") else {}
        if told == "gist":
            given = {"descriptions": WORDS}
        made = recipe.fit(on, samples, **given)
        made.save(root / told)
        again = seewhy.load(root / told, encoder=on)
        measures = {k: v for k, v in made.measures.items() if "second" not in k and k != "prompt"}
        network = made.network
        yield (
            told,
            {
                "probabilities": number(made.probabilities(noise(3))),
                "again": float((made.probabilities(noise(3)) - again.probabilities(noise(3))).abs().max()),
                "measures": measures,
                "trained_on": made.trained_on,
                "parameters": made.parameters,
                "facts": {k: v for k, v in network.facts().items() if k != "names"},
                "tensors": {n: number(t.float()) for n, t in sorted(network.tensors().items())},
                "digest": made.encoder.fingerprint,
                "held out": None if made.held_out is None else number(made.held_out.pooled),
                "where": network.where,
                "map": explained(made, folders) if name in ("protopnet", "comet", "prompt_cam") else [],
            },
        )


def fitted(root: Path) -> Iterator[tuple[str, Any]]:
    samples = load_samples(class_folders(root / "six", 8))
    made = small(classifiers, "linear").fit(tiny_cnn(), samples)
    pictures = [(s.image, samples.classes.index(s.label)) for s in samples.items]
    module, _, fit = prototypes["epic"].fitted_by.rpartition(".")
    bank = getattr(importlib.import_module(module), fit)(n_kept=2).fit(made, pictures)
    yield (
        "epic",
        {
            "measures": {k: v for k, v in bank.measures.items() if k != "failures"},
            "matrix": number(bank.matrix),
            "purity": number(bank.purity),
            "owner": bank.owner.tolist(),
            "boxes": number(bank.boxes),
        },
    )
    try:
        from seewhy.attributions.explainers import FitTTAME
        from seewhy.training.loop import Training
    except ImportError:
        from seewhy.attributions.explainers import FitTTAME
        from seewhy.training.loop import Training
    for variant in ("t_tame", "l_cam"):
        for on in (tiny_cnn, tiny_tokens):
            model = small(classifiers, "linear").fit(on(), samples)
            names = [s.image for s in samples.items][:6]
            explainer = FitTTAME(variant=variant).fit(model, names, Training(3, 4, lr=0.02))
            told = {k: v for k, v in explainer.trained.items() if k != "seconds_per_step"}
            tensors = {n: number(t.float()) for n, t in explainer.mechanism.state_dict().items()}
            yield f"{variant} {on.__name__}", {"trained": told, "tensors": tensors, "layers": list(explainer.layers)}


def record() -> dict[str, Any]:
    """The record: what was done → its numbers."""
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    for part in (adapted, from_columns, recipes, fitted):
        with tempfile.TemporaryDirectory() as folder:
            found |= dict(part(Path(folder)))
    return found | {f"loss {name}": value for name, value in losses()}
