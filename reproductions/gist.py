"""GIST: does a picture's own text teach more than any text of its class, or than the class's name?

    python reproductions/gist.py --size 112 --out gist.json
    python reproductions/gist.py --encoder open_clip:ViT-L-14-336/openai --tower-steps 400 --out gist.json

Lewis et al. 2023 (arXiv 2307.11315). Drawn pictures: every class comes in three colours and has a text for each, so the
right text for a picture is known. Two layers behind frozen encoders are trained on stored features, with as many pairs
and steps in every arm. Then the encoders themselves are trained, as the authors do, on names and on matched texts. With
--size 112 a draw takes a minute on one idle core, most of it for the encoders; --tower-steps 0 leaves them out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, Report, command, deliver, lead, machine, mean_of, parser, verdict
from drawn_shapes import CLASSES, COLOURS, Thing, anything, draw
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.classifiers.linear.choosing import c_path
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import Encoded, encode_stream, encode_texts
from seewhy.language.matching import Match
from seewhy.learning.adaptation.backbone import sized
from seewhy.learning.adaptation.gist import Pairs, Turns, grown, tune, tune_towers
from seewhy.learning.contrast import recall
from seewhy.learning.encoders.towers import TunedTowers, trainable
from seewhy.learning.objectives.pairs import GIST
from seewhy.progress import Progress
from seewhy.storage.output import write_atomic
from seewhy.training.augmentation import TrainingPictures
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised

SIDE, NOISE = 112, 60.0
N_TRAIN, N_CHOICE, N_TEST = 9, 6, 24
"""Pictures a class."""
ARMS = ("frozen", "supervised", "name", "random text", "matched text", "true text")
TOWERS = ("name", "matched text")
"""Arms in which the towers are trained too."""
LAYERS, BOTH = "two layers behind frozen towers", "both towers trained, as the authors do"


@dataclass(frozen=True)
class World:
    """One draw.

    Attributes:
        paths: of the pictures.
        things: what they are.
        joint: what the encoder sees of them, in the space of the texts.
        part: which each belongs to: 0 train, 1 choice, 2 test.
    """

    paths: list[Path]
    things: list[Thing]
    joint: Tensor
    part: Tensor

    @property
    def labels(self) -> Tensor:
        return torch.tensor([t.label for t in self.things])

    @property
    def chosen(self) -> list[int]:
        """Positions of the training pictures."""
        return (self.part == 0).nonzero()[:, 0].tolist()


def variants(label: int) -> tuple[str, str, str]:
    """The three colours of a class."""
    names = tuple(COLOURS)
    return names[label % 6], names[(label + 2) % 6], names[(label + 3) % 6]


def text_of(label: int, colour: str) -> str:
    shape, filled = CLASSES[label]
    return f"a {colour} {'filled' if filled else 'hollow'} {shape}"


def world(encoder: Encoder, folder: Path, seed: int) -> World:
    """Drawn, kept as files and looked at."""
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
    return World(paths, things, seen_jointly(encoder, paths), torch.tensor(part))


def seen_jointly(encoder: Encoder, paths: Sequence[Path]) -> Tensor:
    """Pictures in the space of the texts, not of unit length."""
    pooled = torch.cat([s.pooled for s in encode_stream(encoder, paths) if isinstance(s, Encoded)])
    with torch.no_grad():
        return encoder.text.project(pooled)


def probe(features: Tensor, labels: Tensor, part: Tensor) -> list[float]:
    """Which test pictures the linear classifier gets right, C chosen on the pictures for it."""
    fitted, test = part < 2, part == 2
    unit = 1.0 / float(features[part == 0].square().sum(1).mean())
    folds = torch.where(part[fitted] == 0, -1, 0)
    grid = [c * unit for c in (0.1, 1.0, 10.0, 100.0)]
    best = c_path(features[fitted], labels[fitted], len(CLASSES), folds, grid=grid).fit
    logits = features[test] @ best.weight.T + best.bias
    return (logits.argmax(1) == labels[test]).float().tolist()


def sentences(encoder: Encoder, drawn: World, seed: int) -> tuple[dict[str, list[str]], list[float]]:
    """What each picture is said to show in each arm; and whether the training pictures' matched texts are right."""
    labels = drawn.labels.tolist()
    texts = [text_of(k, colour) for k in range(len(CLASSES)) for colour in variants(k)]
    vectors = encode_texts(encoder, texts)
    unit = nn.functional.normalize(drawn.joint, dim=1)
    matched = [Match(1).of(unit[i], vectors[3 * k : 3 * k + 3])[0][0] for i, k in enumerate(labels)]
    true = [variants(t.label).index(t.colour) for t in drawn.things]
    rng = np.random.default_rng([seed, 1])
    said = {
        "name": [f"class {k}" for k in labels],
        "random text": [f"class {k}: {texts[3 * k + int(rng.integers(3))]}" for k in labels],
        "matched text": [f"class {k}: {texts[3 * k + v]}" for k, v in zip(labels, matched, strict=True)],
        "true text": [f"class {k}: {texts[3 * k + v]}" for k, v in zip(labels, true, strict=True)],
    }
    return said, [float(matched[i] == true[i]) for i in drawn.chosen]


def one_seed(encoder: Encoder, folder: Path, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """All arms on one draw of the world."""
    begun = time.perf_counter()
    drawn = world(encoder, folder, seed)
    said, agree = sentences(encoder, drawn, seed)
    joint, labels, part, chosen = drawn.joint, drawn.labels, drawn.part, drawn.chosen
    how = Training(args.steps, 64, lr=args.lr, weight_decay=1e-3, seed=seed)
    right = {"frozen": probe(joint, labels, part), "supervised": supervised(joint, labels, part, chosen, how)}
    found: dict[str, Any] = {"right": right, "matched": agree, "recall": {}}
    for arm, texts in said.items():
        distinct = list(dict.fromkeys(texts[i] for i in chosen))
        rows = torch.tensor([[place, distinct.index(texts[i])] for place, i in enumerate(chosen)])
        views = [joint[i : i + 1] for i in chosen]
        pairs = Pairs(views, encode_texts(encoder, distinct), rows, labels[torch.tensor(chosen)])
        turns = Turns(joint.shape[1])
        tune(turns, pairs, GIST(encoder.text.logit_scale), how)
        with torch.no_grad():
            right[arm] = probe(turns.image(joint), labels, part)
        if args.tower_steps and arm in TOWERS:
            right[f"towers, {arm}"], found["recall"][arm] = towers(encoder, drawn, pairs, distinct, seed, args)
    return {**found, "seconds": round(time.perf_counter() - begun, 1)}


def towers(
    encoder: Encoder, drawn: World, pairs: Pairs, texts: Sequence[str], seed: int, args: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Both towers trained on the same pairs: which test pictures are right, and recall of the own text, both ends."""
    tower, made = trainable(encoder), TunedTowers.before(encoder, "towers")
    rate = tower.tuning_lr if args.tower_lr is None else args.tower_lr
    how = Training(args.tower_steps, 20, lr=rate, weight_decay=1e-3, schedule="constant", seed=seed)
    of = [drawn.paths[drawn.chosen[place]] for place in pairs.pairs[:, 0].tolist()]
    read = TrainingPictures(encoder, of, None, Progress())
    lesson = Pairs(read, pairs.vectors, pairs.pairs, pairs.labels, tuple(texts))
    tune_towers(made, tower, lesson, GIST(tower.logit_scale), how)
    after = grown(made, encoder)
    joint, own = seen_jointly(after, drawn.paths), pairs.pairs[:, 1]
    before = recall(drawn.joint[drawn.chosen], pairs.vectors[own])
    found = recall(joint[drawn.chosen], after.encode_text(texts)[own])
    return probe(joint, drawn.labels, drawn.part), [round(before, 3), round(found, 3)]


def supervised(joint: Tensor, labels: Tensor, part: Tensor, chosen: Sequence[int], how: Training) -> list[float]:
    """The same layer on the pictures' side, trained under a linear head by classes alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        layers = nn.ModuleDict({"turn": Turns(joint.shape[1]).image, "head": nn.Linear(joint.shape[1], len(CLASSES))})
    of = torch.tensor(chosen)
    lengths = joint[of].norm(dim=1).mean()

    rows = joint[of] / lengths  # the turn has no bias, so that it may come after
    network = nn.Sequential(layers["turn"], layers["head"])
    train(Supervised(network), TrainingData(len(chosen), {"pixels": rows, "labels": labels[of]}), how)
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
              f"{np.mean(matched):.3f}; less chance {choice}", verdict(choice.low > 0, choice.value > 0), len(matched)),
        Claim("Tuning on matched texts beats tuning on any text of the class and on the class's name",
              "shown: both leads above 0 with their whole intervals; partly: both above 0",
              f"over a random text {over['random text']}; over the name {over['name']}; a random text over the name "
              f"{random_over_name}; the true text over a random one {oracle}; accuracies: {means}",
              verdict(all(over[a].low > 0 for a in ("random text", "name")),
                      all(over[a].value > 0 for a in ("random text", "name"))), n, LAYERS),
        Claim("Tuning on matched texts and then a linear classifier beats the linear classifier alone",
              "shown: lead over frozen features above 0 with its whole interval; partly: above 0",
              f"over frozen {over['frozen']}; over the same layer trained by classes alone {over['supervised']}",
              verdict(over["frozen"].low > 0, over["frozen"].value > 0), n, LAYERS),
    ]  # fmt: skip


def tower_claims(right: dict[str, list[float]], recalls: dict[str, list[list[float]]], seeds: int) -> list[Claim]:
    """The same of the towers, where they were trained."""
    n = seeds * N_TEST * len(CLASSES)
    tuned = right["towers, matched text"]
    over = {arm: lead(tuned, right[arm]) for arm in ("towers, name", "frozen", "matched text")}
    first, last = np.mean(recalls["matched text"], 0)
    name_over_frozen = lead(right["towers, name"], right["frozen"])
    return [
        Claim("Tuning on matched texts beats tuning on the class's name",
              "shown: lead above 0 with its whole interval; partly: above 0",
              f"{over['towers, name']}; accuracies {np.mean(tuned):.3f} and {np.mean(right['towers, name']):.3f}; "
              f"part of the training pictures that find their own text {first:.2f} before and {last:.2f} after",
              verdict(over["towers, name"].low > 0, over["towers, name"].value > 0), n, BOTH),
        Claim("Tuning on matched texts and then a linear classifier beats the linear classifier alone",
              "shown: lead over frozen features above 0 with its whole interval; partly: above 0",
              f"over frozen {over['frozen']}; names over frozen {name_over_frozen}; over two layers behind frozen "
              f"towers {over['matched text']}", verdict(over["frozen"].low > 0, over["frozen"].value > 0), n, BOTH,
              interval=over["frozen"]),
    ]  # fmt: skip


def run(args: argparse.Namespace) -> Report:
    part = args.out and args.out.with_suffix(".part.json")
    done: dict[str, Any] = json.loads(part.read_text("utf-8")) if part and part.exists() else {}
    encoder = sized(seewhy.encoder(args.encoder, engine="torch"), args.size)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seed, args.seed + args.seeds):
            settings = (args.encoder, args.size, seed, args.steps, args.lr, args.tower_steps, args.tower_lr)
            key = " ".join(map(str, settings))
            if key not in done:
                done[key] = one_seed(encoder, Path(folder), seed, args)
                if part:
                    write_atomic(part, json.dumps(done))
            runs.append(done[key])
    right = {arm: [v for one in runs for v in one["right"][arm]] for arm in runs[0]["right"]}
    matched = [v for one in runs for v in one["matched"]]
    recalls = {arm: [one["recall"][arm] for one in runs] for arm in runs[0]["recall"]}
    trained = tower_claims(right, recalls, args.seeds) if args.tower_steps else []
    numbers = {
        "accuracy": {arm: mean_of(values).rounded() for arm, values in right.items()},
        "by seed": {arm: [round(float(np.mean(one["right"][arm])), 3) for one in runs] for arm in right},
        "matched rightly, by seed": [round(float(np.mean(one["matched"])), 3) for one in runs],
        "recall of the own text before and after the towers' training, by seed": recalls,
    }
    rate = trainable(encoder).tuning_lr if args.tower_lr is None else args.tower_lr
    towers_too = f"towers: {args.tower_steps} steps of 20 pairs at a rate of {rate:g}"
    side = encoder.transform.input_size[0]
    return Report(
        "gist", "Does the text that fits a picture teach more than any text of its class?",
        "Lewis et al. 2023, arXiv:2307.11315",
        f"drawn pictures, 8 classes of three colours each, noise {NOISE:.0f}; {N_TRAIN} training, {N_CHOICE} "
        f"choosing and {N_TEST} test pictures a class, {args.seeds} draws",
        f"{args.encoder} at {side} px; layers: {args.steps} steps of 64 pairs"
        + (f"; {towers_too}" if args.tower_steps else ""),
        command("gist"), machine(), round(sum(one["seconds"] for one in runs), 1), args.seed,
        (*found_claims(right, matched, args.seeds), *trained),
        ("Not CLIP ViT-L/14 at 336 px, whose weights were not at hand, and minutes of training, not days",
         "Texts by rule, one matched text a picture, not four by a language model",
         "Drawn pictures, not birds, flowers, aircraft and skin",
         "Towers see crops, half of them mirrored, as the authors' do; frozen features and layers the picture itself",
         "Intervals resample test pictures, not draws; the figures of each draw are in the file"),
        numbers,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    options: argparse.ArgumentParser = parser(__doc__ or "", "gist")
    options.add_argument("--encoder", default="lite0", help="with words")
    options.add_argument("--size", type=int, help="side in pixels; left out, the encoder's own")
    options.add_argument("--seeds", type=int, default=5, help="draws of the world")
    options.add_argument("--steps", type=int, default=200, help="batches of 64 pairs, for the layers")
    options.add_argument("--lr", type=float, default=2e-3, help="of the two layers")
    options.add_argument("--tower-steps", type=int, default=24, help="batches of 20 pairs, for the towers; 0: none")
    options.add_argument("--tower-lr", type=float, help="of the towers; left out, the encoder's own")
    return deliver(options, run, arguments)


if __name__ == "__main__":
    main()
