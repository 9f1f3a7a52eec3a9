"""GPT4Image: does a text about each picture teach a classifier more than its class does?

    python reproductions/gpt4image.py --out gpt4image.json

Ding et al. 2023 (arXiv 2306.00693). Drawn pictures of 32 pixels, with true texts written from what was drawn; a small
ResNet from scratch; texts encoded by MiniLM. Controls: texts of other pictures of the class, texts of any other
pictures, the class alone, and label smoothing.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from claims import JUDGED, Claim, Interval, Report, command, judged, lead, machine, mean_of, parser
from drawn_shapes import CLASSES, anything, draw
from torch import Tensor

from seewhy.encoders.minilm import load_minilm
from seewhy.learning.adaptation.backbone import new_predictor
from seewhy.learning.adaptation.gpt4image import JointTask, projection
from seewhy.learning.objectives.pairs import GPT4Image
from seewhy.storage.output import write_atomic
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised, Task

SIDE, NOISE, N_TEST = 32, 15.0, 480
ARMS = ("classes only", "lam 0", "label smoothing", "class text", "same-class texts", "any texts", "own texts")
WITHOUT_TEXTS = ("classes only", "label smoothing")


def pictures(n: int, seed: int) -> tuple[Tensor, Tensor, list[str]]:
    """Normalised pixels, labels and true texts."""
    rng = np.random.default_rng([seed, n])
    things = [anything(i % len(CLASSES), rng) for i in range(n)]
    pixels = np.stack([draw(thing, rng, SIDE, NOISE) for thing in things])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)
    return x, torch.tensor([t.label for t in things]), [t.text() for t in things]


def texts_of(arm: str, texts: Sequence[str], labels: Tensor, seed: int) -> list[str]:
    """What each picture is said to show."""
    if arm == "class text":
        return [f"a {'filled' if CLASSES[k][1] else 'hollow'} {CLASSES[k][0]}" for k in labels.tolist()]
    if arm not in ("same-class texts", "any texts"):
        return list(texts)
    draw_from, found = random.Random(seed), list(texts)
    groups = (
        [list(range(len(texts)))]
        if arm == "any texts"
        else [(labels == k).nonzero()[:, 0].tolist() for k in range(len(CLASSES))]
    )
    for group in groups:
        turned = group[:]
        draw_from.shuffle(turned)
        # One round trip through the shuffled group: nobody keeps its own.
        for mine, other in zip(turned, turned[1:] + turned[:1], strict=True):
            found[mine] = texts[other]
    return found


def run(arm: str, n: int, seed: int, steps: int, encode: Any) -> dict[str, Any]:
    """One training: which test pictures it gets right, and how its alignment went."""
    begun = time.perf_counter()
    x, labels, texts = pictures(n, seed)
    x_test, y_test, _ = pictures(N_TEST, 1000 + seed)
    vectors = None if arm in WITHOUT_TEXTS else encode(texts_of(arm, texts, labels, seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        predictor = new_predictor(len(CLASSES))
        beside = projection("mlp", predictor.weight.shape[1], 384)

    def flipped(index: list[int], draw: torch.Generator) -> Tensor:
        flip = torch.rand(len(index), generator=draw) < 0.5
        return torch.where(flip[:, None, None, None], x[index], x[index].flip(3))

    smoothing = 0.1 if arm == "label smoothing" else 0.0
    how = Training(steps, 32, lr=2e-3, weight_decay=0.05, schedule="cosine", seed=seed, warmup=10)
    task: Task = Supervised(predictor, smoothing)
    if vectors is not None:
        task = JointTask(predictor, beside, GPT4Image(lam=0.0 if arm == "lam 0" else 0.3), smoothing)
    columns = {"pixels": flipped, "labels": labels} | ({} if vectors is None else {"text": vectors})
    done = train(task, TrainingData(len(x), columns), how)
    with torch.no_grad():
        right = (predictor.eval()(x_test).argmax(1) == y_test).float().tolist()
    first, last = (
        float(np.mean([s.get("recall", 0.0) for s in part])) for part in (done.history[:20], done.history[-20:])
    )
    took = round(time.perf_counter() - begun, 1)
    return {"right": right, "recall": [round(first, 3), round(last, 3)], "seconds": took}


def found_claims(right: dict[str, list[float]], recall: tuple[float, float], n: int, size: int) -> list[Claim]:
    """By the rules that stand beside them."""

    def over(a: str, b: str) -> Interval:
        return lead(right[a], right[b])

    specific, class_level = over("own texts", "same-class texts"), over("same-class texts", "classes only")
    plain, gain = over("any texts", "classes only"), over("own texts", "classes only")
    where = f"{size} training pictures"
    means = ", ".join(f"{arm} {np.mean(right[arm]):.3f}" for arm in right)
    return [
        Claim("Training with texts about the pictures raises accuracy over training by classes alone",
              f"own texts minus classes only; {JUDGED}", f"{gain}; accuracies: {means}", judged(gain), n, where,
              interval=gain),
        Claim("It is the text of that very picture that helps, beyond what the class says",
              f"own texts minus texts of others of the class; {JUDGED}",
              f"{specific}; texts of others of the class minus classes only {class_level}; texts of any others minus "
              f"classes only {plain}; recall of the own text in the batch {recall[0]:.2f} to {recall[1]:.2f}",
              judged(specific), n, where, interval=specific),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Report:
    options: argparse.ArgumentParser = parser(__doc__ or "", "gpt4image")
    options.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    options.add_argument("--sizes", type=int, nargs="+", default=[240], help="training pictures")
    options.add_argument("--steps", type=int, default=250, help="batches of 32")
    given = options.parse_args(arguments)
    part = given.out and given.out.with_suffix(".part.json")
    done: dict[str, Any] = json.loads(part.read_text("utf-8")) if part and part.exists() else {}
    model = load_minilm()
    claims, numbers, seconds = [], {}, 0.0
    for size in given.sizes:
        arms = ARMS if size == given.sizes[0] else ("classes only", "same-class texts", "own texts", "any texts")
        for seed in range(given.seed, given.seed + given.seeds):
            for arm in arms:
                key = f"{size} {seed} {arm} {given.steps}"
                if key not in done:
                    done[key] = run(arm, size, seed, given.steps, model.encode)
                    if part:
                        write_atomic(part, json.dumps(done))
        seeds = range(given.seed, given.seed + given.seeds)
        runs = {arm: [done[f"{size} {seed} {arm} {given.steps}"] for seed in seeds] for arm in arms}
        seconds += sum(one["seconds"] for found in runs.values() for one in found)
        right = {arm: [v for one in found for v in one["right"]] for arm, found in runs.items()}
        recall = tuple(float(np.mean([one["recall"][i] for one in runs["own texts"]])) for i in (0, 1))
        claims += found_claims(right, recall, given.seeds * N_TEST, size)  # type: ignore[arg-type]
        numbers[f"accuracy, {size} pictures"] = {arm: mean_of(v).rounded() for arm, v in right.items()}
        numbers[f"by seed, {size} pictures"] = {
            arm: [round(float(np.mean(one["right"])), 3) for one in found] for arm, found in runs.items()
        }
    report = Report(
        "gpt4image", "Does a text about each picture teach a classifier more than its class does?",
        "Ding et al. 2023, arXiv:2306.00693",
        f"drawn pictures, {SIDE} px, 8 classes (shape, filled or hollow), noise {NOISE:.0f}; {N_TEST} test pictures a "
        "seed; texts from what was drawn", "small ResNet (78,000 weights) from nothing; texts by MiniLM",
        command("gpt4image"), machine(), round(seconds, 1), given.seed, tuple(claims),
        ("Texts are true and written by rule, not by MiniGPT-4", "Drawn pictures and a small network, not ImageNet, "
         "ResNet-50 and DeiT", "AdamW for a few hundred steps, not 120 or 300 epochs",
         "Intervals resample test pictures, not trainings; the figures of each seed are in the file"), numbers,
    )  # fmt: skip
    report.show()
    if given.out:
        report.write(given.out)
    return report


if __name__ == "__main__":
    main()
