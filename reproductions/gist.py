"""GIST: does the text that fits a picture teach more than any text of its class, or than the class's name?

    python reproductions/gist.py --out gist.json
    python reproductions/gist.py --encoder open_clip:ViT-L-14-336/openai --out gist.json

Lewis et al. 2023 (arXiv 2307.11315). Drawn pictures: every class comes in three colours and has a text for each, so
which text is right for a picture is known. Towers stay frozen, two linear layers are trained on kept features, with
as many pairs and steps in every arm. Half a minute a draw on one idle core, most of it for looking at the pictures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, Report, command, lead, machine, mean_of, parser, verdict
from drawn_shapes import CLASSES, COLOURS, Thing, anything, draw
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import seewhy
from seewhy.classifiers.gist import Pairs, tune
from seewhy.classifiers.gist_network import Turns
from seewhy.classifiers.solvers import c_path
from seewhy.descriptions.matching import Match
from seewhy.encoders.base import Encoder
from seewhy.features import Seen, encode_texts, see
from seewhy.files import write_atomic
from seewhy.objectives.gist import GIST
from seewhy.training import Training, train

SIDE, NOISE = 112, 60.0
N_TRAIN, N_CHOICE, N_TEST = 9, 6, 24
"""Pictures a class."""
ARMS = ("frozen", "supervised", "name", "random text", "matched text", "true text")


def variants(label: int) -> tuple[str, str, str]:
    """The three colours of a class."""
    names = tuple(COLOURS)
    return names[label % 6], names[(label + 2) % 6], names[(label + 3) % 6]


def text_of(label: int, colour: str) -> str:
    shape, filled = CLASSES[label]
    return f"a {colour} {'filled' if filled else 'hollow'} {shape}"


def world(encoder: Encoder, folder: Path, seed: int) -> tuple[Tensor, list[Thing], Tensor]:
    """Pooled features of all pictures, what they are, and which part each belongs to: 0 train, 1 choice, 2 test."""
    rng = np.random.default_rng(seed)
    things, part, paths = [], [], []
    for number, n in enumerate((N_TRAIN, N_CHOICE, N_TEST)):
        for i in range(n * len(CLASSES)):
            label = i % len(CLASSES)
            # Every variant equally often.
            thing = anything(label, rng, (variants(label)[i // len(CLASSES) % 3],))
            paths.append(folder / f"{seed}_{number}_{i}.png")
            Image.fromarray(draw(thing, rng, SIDE, NOISE)).save(paths[-1])
            things.append(thing)
            part.append(number)
    seen = [s.pooled for s in see(encoder, paths) if isinstance(s, Seen)]
    return torch.cat(seen), things, torch.tensor(part)


def probe(features: Tensor, labels: Tensor, part: Tensor) -> list[float]:
    """Which test pictures the linear classifier gets right, C chosen on the pictures for it."""
    fitted, test = part < 2, part == 2
    unit = 1.0 / float(features[part == 0].square().sum(1).mean())
    folds = torch.where(part[fitted] == 0, -1, 0)
    grid = [c * unit for c in (0.1, 1.0, 10.0, 100.0)]
    best = c_path(features[fitted], labels[fitted], len(CLASSES), folds, grid=grid).fit
    logits = features[test] @ best.weight.T + best.bias
    return (logits.argmax(1) == labels[test]).float().tolist()


def one_seed(encoder: Encoder, folder: Path, seed: int, steps: int, lr: float) -> dict[str, Any]:
    """All arms on one draw of the world."""
    begun = time.perf_counter()
    pooled, things, part = world(encoder, folder, seed)
    labels = torch.tensor([t.label for t in things])
    with torch.no_grad():
        joint = encoder.text.project(pooled)
    texts = [text_of(k, colour) for k in range(len(CLASSES)) for colour in variants(k)]
    vectors = encode_texts(encoder, texts)
    unit = nn.functional.normalize(joint, dim=1)
    matched = [Match(1).of(unit[i], vectors[3 * k : 3 * k + 3])[0][0] for i, k in enumerate(labels.tolist())]
    true = [variants(t.label).index(t.colour) for t in things]
    rng = np.random.default_rng([seed, 1])
    said: dict[str, list[str]] = {
        "name": [f"class {k}" for k in labels.tolist()],
        "random text": [f"class {k}: {texts[3 * k + int(rng.integers(3))]}" for k in labels.tolist()],
        "matched text": [f"class {k}: {texts[3 * k + v]}" for k, v in zip(labels.tolist(), matched, strict=True)],
        "true text": [f"class {k}: {texts[3 * k + v]}" for k, v in zip(labels.tolist(), true, strict=True)],
    }
    chosen = (part == 0).nonzero()[:, 0].tolist()
    how = Training(steps, 64, lr=lr, weight_decay=1e-3, seed=seed)
    right = {"frozen": probe(joint, labels, part), "supervised": supervised(joint, labels, part, chosen, how)}
    for arm, sentences in said.items():
        distinct = list(dict.fromkeys(sentences[i] for i in chosen))
        rows = [[place, distinct.index(sentences[i])] for place, i in enumerate(chosen)]
        views = [joint[i : i + 1] for i in chosen]
        pairs = Pairs(views, encode_texts(encoder, distinct), torch.tensor(rows), labels[torch.tensor(chosen)])
        turns = Turns(joint.shape[1])
        tune(turns, pairs, GIST(encoder.text.logit_scale), how)
        with torch.no_grad():
            right[arm] = probe(turns.image(joint), labels, part)
    agree = [float(matched[i] == true[i]) for i in chosen]
    return {"right": right, "matched": agree, "seconds": round(time.perf_counter() - begun, 1)}


def supervised(joint: Tensor, labels: Tensor, part: Tensor, chosen: Sequence[int], how: Training) -> list[float]:
    """The same layer on the pictures' side, trained under a linear head by classes alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        layers = nn.ModuleDict({"turn": Turns(joint.shape[1]).image, "head": nn.Linear(joint.shape[1], len(CLASSES))})
    of = torch.tensor(chosen)
    lengths = joint[of].norm(dim=1).mean()

    def loss(index: Sequence[int]) -> dict[str, Tensor]:
        own = of[list(index)]
        return {"loss": cross_entropy(layers["head"](layers["turn"](joint[own]) / lengths), labels[own])}

    train(layers, loss, len(chosen), how)
    with torch.no_grad():
        return probe(layers["turn"](joint), labels, part)


def found_claims(right: dict[str, list[float]], matched: list[float], seeds: int) -> list[Claim]:
    """By the rules that stand beside them."""
    n = seeds * N_TEST * len(CLASSES)
    over = {arm: lead(right["matched text"], right[arm]) for arm in ("random text", "name", "frozen", "supervised")}
    means = ", ".join(f"{arm} {np.mean(right[arm]):.3f}" for arm in ARMS)
    random_over_name, oracle = lead(right["random text"], right["name"]), lead(right["true text"], right["random text"])
    choice = mean_of([m - 1 / 3 for m in matched])
    return [
        Claim("A picture's matched text is the right one for it",
              "shown: right more often than the chance of 1/3, with its whole interval; partly: more often",
              f"{np.mean(matched):.3f}; less chance {choice}", verdict(choice.above, choice.value > 0), len(matched)),
        Claim("Tuning on matched texts beats tuning on any text of the class and on the class's name",
              "shown: both leads above 0 with their whole intervals; partly: both above 0",
              f"over a random text {over['random text']}; over the name {over['name']}; a random text over the name "
              f"{random_over_name}; the true text over a random one {oracle}; accuracies: {means}",
              verdict(all(over[a].above for a in ("random text", "name")),
                      all(over[a].value > 0 for a in ("random text", "name"))), n),
        Claim("Tuning on matched texts and then a linear classifier beats the linear classifier alone",
              "shown: lead over frozen features above 0 with its whole interval; partly: above 0",
              f"over frozen {over['frozen']}; over the same layer trained by classes alone {over['supervised']}",
              verdict(over["frozen"].above, over["frozen"].value > 0), n),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    options: argparse.ArgumentParser = parser(__doc__ or "", "gist")
    options.add_argument("--encoder", default="lite0", help="with words")
    options.add_argument("--seeds", type=int, default=5, help="draws of the world")
    options.add_argument("--steps", type=int, default=200, help="batches of 64 pairs")
    options.add_argument("--lr", type=float, default=2e-3, help="of the two layers")
    given = options.parse_args(arguments)
    part = given.out and given.out.with_suffix(".part.json")
    done: dict[str, Any] = json.loads(part.read_text("utf-8")) if part and part.exists() else {}
    encoder = seewhy.encoder(given.encoder)
    seeds = range(given.seed, given.seed + given.seeds)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            key = f"{given.encoder} {seed} {given.steps} {given.lr:g}"
            if key not in done:
                done[key] = one_seed(encoder, Path(folder), seed, given.steps, given.lr)
                if part:
                    write_atomic(part, json.dumps(done))
    runs = [done[f"{given.encoder} {seed} {given.steps} {given.lr:g}"] for seed in seeds]
    right = {arm: [v for run in runs for v in run["right"][arm]] for arm in ARMS}
    matched = [v for run in runs for v in run["matched"]]
    numbers = {
        "accuracy": {arm: mean_of(right[arm]).rounded() for arm in ARMS},
        "by seed": {arm: [round(float(np.mean(run["right"][arm])), 3) for run in runs] for arm in ARMS},
        "matched rightly, by seed": [round(float(np.mean(run["matched"])), 3) for run in runs],
    }
    report = Report(
        "gist", "Does the text that fits a picture teach more than any text of its class?",
        "Lewis et al. 2023, arXiv:2307.11315",
        f"drawn pictures, 8 classes of three colours each, noise {NOISE:.0f}; {N_TRAIN} training, {N_CHOICE} "
        f"choosing and {N_TEST} test pictures a class, {given.seeds} draws", f"{given.encoder}, both towers frozen",
        command("gist"), machine(), round(sum(run["seconds"] for run in runs), 1), given.seed,
        tuple(found_claims(right, matched, given.seeds)),
        ("Two linear layers on kept features, not all weights of CLIP ViT-L/14", "Texts by rule, one matched text a "
         "picture, not four by a language model", "Drawn pictures, not birds, flowers, aircraft and skin; CLIP's "
         "weights were not at hand", "Intervals resample test pictures, not draws; the "
         "figures of each draw are in the file"),
        numbers,
    )  # fmt: skip
    report.show()
    if given.out:
        report.write(given.out)
    return report


if __name__ == "__main__":
    main()
