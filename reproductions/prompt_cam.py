"""Prompt-CAM: does a vision transformer with one prompt per class explain itself, and at what cost?

Examples:
  python reproductions/prompt_cam.py --planted 10
  python reproductions/prompt_cam.py --train grocery/train --test grocery/test --encoder timm:./small_vit \\
      --model "ViT-Tiny, 6 blocks, 128 px, distilled; 0.55 of grocery test by a linear probe" --out prompt_cam.json

Chowdhury et al., CVPR 2025, arXiv:2501.09333. ``--planted`` takes seconds and no pictures: a transformer built by hand
distinguishes patches by their mean colour, and classes share a body and differ in the colour of a part. ``--train`` and
``--test`` (folders with one folder per class) take nine core-minutes for 20 classes at 128 pixels.

Prompts are trained before the last block only (``--variant last``). ``--variant deep`` is the paper's main form; it
needs the whole network in every step.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, Interval, Report, command, lead, machine, mean_of, parser, verdict
from jaxtyping import Float
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from seewhy.attributions import attributions
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.encoders.base import Encoder, EncoderOutput
from seewhy.encoders.find import encoder as find
from seewhy.encoders.timm import encoder_of
from seewhy.heads.head import Target
from seewhy.learning.self_explaining.prompt_cam.network import (
    Flatten,
    PromptCAM,
    PromptHead,
    flattened_scores,
    prompt_head,
    run_last_block,
)
from seewhy.learning.self_explaining.prompt_cam.recipe import PromptCAM as Recipe
from seewhy.metrics.base import shuffled
from seewhy.metrics.removal import Deletion, Insertion
from seewhy.pictures.images import read_picture
from seewhy.pictures.samples import Sample, Samples, load_samples, split
from seewhy.storage.features import FeatureStore
from seewhy.types import Transform

STEPS = 16
COLOURS = {"red": (230, 40, 40), "green": (40, 220, 40), "blue": (40, 40, 230), "none": None}


def main() -> None:
    options = parser(__doc__ or "", "prompt_cam")
    options.add_argument("--planted", type=int, default=10, help="planted pictures a class; 0 leaves them out")
    options.add_argument("--train", type=Path, help="pictures in class folders, to train on and to choose on")
    options.add_argument("--test", type=Path, help="pictures of the same classes, to report on")
    options.add_argument("--encoder", default="timm:vit_small_patch16_224.dino", help="a vision transformer")
    options.add_argument("--model", default="", help="what is known of it: size, training, accuracy")
    options.add_argument("--classes", type=int, default=20, help="classes, evenly spread over the folders")
    options.add_argument("--variant", default="last", choices=("last", "deep", "shallow"))
    options.add_argument("--epochs", type=int, default=60)
    options.add_argument("--optimiser", default="sgd", choices=("sgd", "adamw"))
    options.add_argument("--lr", type=float, help="left out, chosen on a fifth of the training pictures")
    options.add_argument("--n", type=int, default=60, help="test pictures for deletion, insertion, heads and mosaics")
    args = options.parse_args()
    started = time.monotonic()
    claims: list[Claim] = []
    numbers: dict[str, Any] = {}
    data = []
    if args.planted:
        claims += planted_claims(args.planted, args.seed, numbers)
        data.append(f"{4 * args.planted} planted pictures (drawn; four classes that differ in a part)")
    if args.train and args.test:
        claims += picture_claims(args, numbers)
        data.append(f"{args.train.parent.name}: {numbers['n_train']} to train, {numbers['n_test']} to test, "
                    f"{numbers['n_classes']} classes")  # fmt: skip
    report = Report(
        name="prompt_cam",
        title="Does a vision transformer with one prompt a class explain itself, and at what price?",
        paper="Chowdhury et al. 2025, arXiv:2501.09333",
        data="; ".join(data),
        model=args.model or ("a transformer built by hand" if not args.train else short(args.encoder)),
        command=command("prompt_cam", typed(args.encoder, args.model)),
        machine=machine(),
        seconds=round(time.monotonic() - started, 1),
        seed=args.seed,
        claims=tuple(claims),
        differences=(
            "A small transformer on a subset of groceries, where the paper has DINO ViT-B/16 on 13 fine-grained sets.",
            f"Prompts enter as in the form {args.variant!r}; the paper's main results are of the deep form.",
            f"{args.epochs} epochs of {args.optimiser}, rate {'chosen' if args.lr is None else args.lr}, no crops and "
            "no mirroring of stored features; in the paper 100 to 130 of SGD, with both.",
            "Maps are the mean of the heads the class needs most (4, or all where there are fewer); how many enter the "
            "paper's deletion and insertion is in a supplement that was not read.",
            "Rival maps are drawn on the Prompt-CAM itself and on a linear probe; the paper has the latter alone.",
            "The paper's study with people was not repeated.",
        ),
        numbers=numbers,
    )
    report.show()
    if args.out:
        report.write(args.out)


def typed(encoder: str, model: str) -> list[str]:
    """The words of the command without the remark on the network, which the report gives elsewhere."""
    words = [word for word in sys.argv[1:] if word not in ("--model", model)]
    return [word.replace(encoder, short(encoder)) for word in words]


def short(encoder: str) -> str:
    """An encoder's name, of a folder the last part alone."""
    scheme, _, rest = encoder.partition(":")
    return f"{scheme}:{Path(rest).name}" if "/" in rest else encoder


# Planted: a shared body and a part that decides


def colour_encoder() -> Encoder:
    """A transformer whose tokens are the mean colours of patches; its last block compares them and hands them on."""
    network = VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=4)
    constant = torch.tensor([0.0, 0.0, 0.0, 1.0, -1.0, 1.0, -1.0, 0.0]).repeat(2)
    eye = torch.eye(16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1)
        for channel in range(3):
            network.patch_embed.proj.weight[[channel, 8 + channel], channel] = 1 / 64
        network.pos_embed.add_(constant)
        last: Any = network.blocks[-1].attn
        last.qkv.weight.copy_(torch.cat([1.5 * eye, 1.5 * eye, 4 * eye]))
        last.proj.weight.copy_(eye)
    transform = Transform((32, 32), (32, 32), "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    network.eval().requires_grad_(False)
    return encoder_of(network, "colour reader", engine="torch", transform=transform, classes=list(COLOURS))


def planted(label: str, seed: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Grey noise with a yellow body of two cells in every class, and a part of the class's colour in a cell."""
    rng = np.random.default_rng([list(COLOURS).index(label), seed])
    pixels = rng.normal(128, 12, (32, 32, 3))
    cells = [divmod(int(c), 4) for c in rng.permutation(16)[:3]]
    for i, (row, column) in enumerate(cells):
        colour = COLOURS[label] if i == 0 else (220, 200, 40)
        if colour is not None:
            pixels[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = colour
    return pixels.clip(0, 255).astype(np.uint8), cells[0]


def planted_claims(n: int, seed: int, numbers: dict[str, Any]) -> list[Claim]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for label in COLOURS:
            (Path(folder) / label).mkdir()
            for i in range(20):
                Image.fromarray(planted(label, i)[0]).save(Path(folder) / label / f"{i}.png")
        recipe = Recipe(epochs=40, optimiser="adamw", lr=0.1, dropout=0.0, n_bank=4, seed=seed)
        model = recipe.fit(colour_encoder(), load_samples(folder))
    true, wrong, token, right = [], [], [], []
    coloured = [label for label, colour in COLOURS.items() if colour is not None]
    for label in coloured:
        for i in range(n):
            pixels, cell = planted(label, 1000 + i)
            look = model.encoder.encode(model.encoder.pixels([pixels]))
            maps = {k: part_of_one(PromptCAM()(model, look, target(model, k))[0]) for k in coloured}
            right.append(model.classes[int(model.head(look.pooled).argmax())] == label)
            true.append(float(maps[label][cell]))
            wrong.append(float(np.mean([maps[k][cell] for k in coloured if k != label])))
            token.append(float(part_of_one(class_token_map(model, look))[cell]))
    more, chance = lead(true, wrong, seed), 1 / 16
    numbers["planted"] = {
        "accuracy": round(float(np.mean(right)), 3),
        "energy in the part": {"true prompt": mean_of(true).rounded(), "wrong prompts": mean_of(wrong).rounded(),
                               "class token": mean_of(token).rounded(), "chance": round(chance, 4)},
    }  # fmt: skip
    over_token = lead(true, token, seed)
    return [
        Claim(
            claim="The prompts of classes that differ in one part look at that part",
            rule="energy of the true class's prompt in the part above that of wrong classes' prompts and of the class "
            "token, both intervals above 0; partly: above the wrong prompts' alone",
            measured=f"true prompt {mean_of(true)}, wrong prompts {mean_of(wrong)}, class token {mean_of(token)}, "
            f"chance {chance:.3f}; {np.mean(right):.2f} decided rightly",
            verdict=verdict(more.low > 0 and over_token.low > 0, partly=more.low > 0),
            n=len(true),
            section="planted",
        )
    ]


# Pictures


def picture_claims(args: argparse.Namespace, numbers: dict[str, Any]) -> list[Claim]:
    encoder = find(args.encoder)
    train, test = (
        some_classes(load_samples(args.train), args.classes),
        some_classes(load_samples(args.test), args.classes),
    )
    held = split([s.label for s in train.items], [s.image for s in train.items], 0.2, args.seed)
    fit_on = Samples(tuple(s for s, h in zip(train.items, held, strict=True) if not h), train.classes)
    choose_on = Samples(tuple(s for s, h in zip(train.items, held, strict=True) if h), train.classes)
    store = FeatureStore()
    numbers |= {
        "n_train": len(fit_on),
        "n_choose": len(choose_on),
        "n_test": len(test),
        "n_classes": len(train.classes),
    }
    models: dict[str, Classifier] = {
        "linear probe": Linear(n_crops=0, power=1.0, l2=False, n_bank=1, seed=args.seed).fit(
            encoder, fit_on, validation=choose_on, store=store
        )
    }
    for name, shared in (("shared head", True), ("head per class", False)):
        recipe = Recipe(args.variant, shared=shared, epochs=args.epochs, optimiser=args.optimiser, lr=args.lr,
                        n_bank=1, seed=args.seed)  # fmt: skip
        models[name] = recipe.fit(encoder, fit_on, validation=choose_on, store=store)
        kept = ("lr", "held_out_accuracy", "held_out_accuracy_by_lr", "training_accuracy", "seconds_per_step")
        numbers[name] = {k: models[name].measures[k] for k in kept}
    right = {name: rightness(model, test, store) for name, model in models.items()}
    numbers["test accuracy"] = {name: mean_of(values, args.seed).rounded() for name, values in right.items()}
    chosen = random.Random(args.seed).sample(test.items, min(args.n, len(test)))
    return [
        accuracy_claim(right, args.seed),
        *faithfulness_claims(models, chosen, args.seed, numbers),
        mosaic_claim(models["shared head"], chosen, args.seed, numbers),
        heads_claim(models["shared head"], chosen, args.seed, numbers),
        head_claim(models, right, chosen, args.seed, numbers),
    ]


def some_classes(samples: Samples, n: int) -> Samples:
    """``n`` classes, evenly spread."""
    places = np.linspace(0, len(samples.classes) - 1, min(n, len(samples.classes))).round().astype(int)
    classes = tuple(samples.classes[i] for i in places)
    return Samples(tuple(s for s in samples.items if s.label in classes), classes)


def rightness(model: Classifier, test: Samples, store: FeatureStore) -> list[float]:
    found = model.predict_all([s.image for s in test.items], store=store)
    return [float(getattr(p, "label", "") == s.label) for p, s in zip(found, test.items, strict=True)]


def accuracy_claim(right: dict[str, list[float]], seed: int) -> Claim:
    loss = lead(right["shared head"], right["linear probe"], seed)
    return Claim(
        claim="Little accuracy is lost against a linear probe on the same network (0.4 to 5.4 points in the paper)",
        rule="the interval of Prompt-CAM less linear probe lies above −0.054; partly: its mean does",
        measured=f"Prompt-CAM {mean_of(right['shared head'])}, linear probe {mean_of(right['linear probe'])}, "
        f"difference {loss}",
        verdict=verdict(loss.low > -0.054, partly=loss.value > -0.054),
        n=len(right["linear probe"]),
        section="accuracy",
    )


def target(model: Classifier, label: str) -> Target:
    return Target(torch.tensor([model.index_of(label)]))


def part_of_one(heat: Tensor) -> Tensor:
    """A map divided by its sum."""
    return heat.clamp(min=0) / heat.clamp(min=0).sum().clamp(min=1e-12)


def class_token_map(model: Classifier, look: EncoderOutput) -> Tensor:
    """What the class token attends to in the last block, the mean over heads: the same for every class."""
    weights = run_last_block(prompt_head(model), look.features)[1][0].mean(0)
    grid = model.encoder.layout.to_grid(look.features).shape[2:]
    return weights[len(model.classes), -grid[0] * grid[1] :].unflatten(0, tuple(grid))


def look_at(model: Classifier, picture: str | np.ndarray) -> EncoderOutput:
    view = read_picture(picture, model.encoder.transform).pixels
    return model.encoder.encode(model.encoder.pixels([view]))


def maps_of(name: str, model: Classifier, look: EncoderOutput, seed: int) -> Tensor:
    predicted = Target(model.head(look.pooled).argmax(1))
    if name == "class token":
        return class_token_map(model, look)
    if name == "random map":
        return shuffled(maps_of("grad_cam", model, look, seed), 1, seed)[0]
    if name == "prompt_cam, all heads":
        return PromptCAM(n_heads=10**6)(model, look, predicted)[0]
    return attributions[name]()(model, look, predicted)[0]


def faithfulness_claims(
    models: dict[str, Classifier], chosen: Sequence[Sample], seed: int, numbers: dict[str, Any]
) -> list[Claim]:
    names = {
        "shared head": ("prompt_cam", "grad_cam", "attention_rollout", "class token", "random map"),
        "linear probe": ("grad_cam", "attention_rollout", "random map"),
    }
    areas: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for which, methods in names.items():
        model = models[which]
        for i, sample in enumerate(chosen):
            look = look_at(model, sample.image)
            label = int(model.head(look.pooled).argmax())
            assert look.pixels is not None
            heats = torch.stack([resized(maps_of(m, model, look, seed + i)) for m in methods])
            deleted = Deletion(n_steps=STEPS)(model.probabilities, look.pixels[0], heats, label)
            inserted = Insertion(n_steps=STEPS)(model.probabilities, look.pixels[0], heats, label)
            for m, d, n in zip(methods, deleted, inserted, strict=True):
                areas.setdefault((which, m), ([], []))[0].append(d.value)
                areas[which, m][1].append(n.value)
    numbers["deletion and insertion"] = {
        f"{m} on {which}": {"deletion": mean_of(d).rounded(), "insertion": mean_of(n).rounded()}
        for (which, m), (d, n) in areas.items()
    }
    mine = areas["shared head", "prompt_cam"]
    found = []
    for which, rivals in (
        ("shared head", ("grad_cam", "attention_rollout", "class token")),
        ("linear probe", ("grad_cam", "attention_rollout")),
    ):
        lower = {m: lead(areas[which, m][0], mine[0], seed) for m in (*rivals, "random map")}
        higher = {m: lead(mine[1], areas[which, m][1], seed) for m in (*rivals, "random map")}
        kinds = [all(v.low > 0 for v in side.values()) for side in (lower, higher)]
        text = "; ".join(f"{m}: deletion lower by {lower[m]}, insertion higher by {higher[m]}" for m in lower)
        place = "the same Prompt-CAM" if which == "shared head" else "a linear probe (as in the paper)"
        found.append(
            Claim(
                claim=f"Its own maps have lower deletion and higher insertion than other maps on {place}",
                rule="both leads above 0 with their intervals for every rival and the random map; partly: one of them",
                measured=text,
                verdict=verdict(all(kinds), partly=any(kinds)),
                n=len(chosen),
                section="faithfulness",
            )
        )
    return found


def resized(heat: Tensor, side: int = 16) -> Tensor:
    """Maps of one size, so that they go through the curves together; cells stay whole."""
    return nn.functional.interpolate(heat[None, None], size=(side, side), mode="nearest-exact")[0, 0]


def mosaic_claim(model: Classifier, chosen: Sequence[Sample], seed: int, numbers: dict[str, Any]) -> Claim:
    """Four pictures of four classes; the quadrant of a class is known."""
    rng = random.Random(seed)
    size = model.encoder.transform.input_size[0] // 2
    true, wrong, token = [], [], []
    for sample in chosen:
        others = rng.sample([s for s in chosen if s.label != sample.label], 3)
        place = rng.randrange(4)
        parts = [*others[:place], sample, *others[place:]]
        tiles = [np.asarray(Image.open(s.image).convert("RGB").resize((size, size))) for s in parts]
        whole = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
        look = look_at(model, np.asarray(Image.fromarray(whole).resize(model.encoder.transform.input_size[::-1])))
        absent = rng.choice([c for c in model.classes if c not in {s.label for s in parts}])
        maps = [PromptCAM()(model, look, target(model, c))[0] for c in (sample.label, absent)]
        for into, heat in zip((true, wrong, token), (*maps, class_token_map(model, look)), strict=True):
            into.append(quadrant_share(heat, place))
    numbers["mosaics"] = {
        name: mean_of(v, seed).rounded()
        for name, v in (("true prompt", true), ("absent class's prompt", wrong), ("class token", token))
    }
    more, over_token = lead(true, wrong, seed), lead(true, token, seed)
    return Claim(
        claim="The prompt of a class looks at what shows the class, more than the prompt of another class",
        rule="energy in the class's quadrant of a mosaic above that of an absent class's prompt and of the class "
        "token, both intervals above 0; partly: above the absent class's alone",
        measured=f"true prompt {mean_of(true)}, absent class's prompt {mean_of(wrong)}, class token {mean_of(token)}, "
        "chance 0.250",
        verdict=verdict(more.low > 0 and over_token.low > 0, partly=more.low > 0),
        n=len(true),
        section="place",
    )


def quadrant_share(heat: Tensor, place: int) -> float:
    height, width = heat.shape[0] // 2, heat.shape[1] // 2
    row, column = divmod(place, 2)
    share = part_of_one(heat)[row * height : (row + 1) * height, column * width : (column + 1) * width]
    return float(share.sum())


def curve_of_order(
    head: PromptHead, tokens: Float[Tensor, "1 t d"], label: int, order: list[int], how: tuple[int, Flatten]
) -> list[float]:
    """Probability of a class as heads are flattened in a given order: what the greedy one is compared with."""
    flat = torch.zeros(len(order) + 1, len(order), dtype=torch.bool)
    for step, one in enumerate(order):
        flat[step + 1 :, one] = True
    index = torch.full((len(flat),), label)
    found = flattened_scores(head, tokens.expand(len(flat), -1, -1), index, flat, *how).softmax(1)[:, label]
    return [float(p) for p in found]


def heads_claim(model: Classifier, chosen: Sequence[Sample], seed: int, numbers: dict[str, Any]) -> Claim:
    rng = random.Random(seed)
    greedy, by_chance, curves = [], [], []
    for sample in chosen:
        look = look_at(model, sample.image)
        predicted = int(model.head(look.pooled).argmax())
        found = PromptCAM().ranking(model, look, torch.tensor([predicted]))[0]
        n = len(found.order)
        n_patches = model.encoder.layout.to_grid(look.features)[0, 0].numel()
        order = rng.sample(range(n), n)
        other = curve_of_order(prompt_head(model), look.features, predicted, order, (n_patches, "keys"))
        greedy.append(float(np.mean(found.probability[1:-1])))
        by_chance.append(float(np.mean(other[1:-1])))
        curves.append((found.probability, other))
    numbers["probability as heads are flattened"] = {
        "greedy": [round(float(v), 4) for v in np.mean([c[0] for c in curves], 0)],
        "random": [round(float(v), 4) for v in np.mean([c[1] for c in curves], 0)],
    }
    more = lead(greedy, by_chance, seed)
    return Claim(
        claim="Flattening the least needed heads by the greedy order keeps the class, so the rest are its traits",
        rule="mean probability over the inner steps above that of a random order, interval above 0",
        measured=f"greedy {mean_of(greedy)}, random {mean_of(by_chance)}, difference {more}",
        verdict=verdict(more.low > 0, partly=more.value > 0),
        n=len(greedy),
        section="heads",
    )


def head_claim(
    models: dict[str, Classifier],
    right: dict[str, list[float]],
    chosen: Sequence[Sample],
    seed: int,
    numbers: dict[str, Any],
) -> Claim:
    likeness = {name: [alike(models[name], s) for s in chosen] for name in ("shared head", "head per class")}
    numbers["correlation of maps of two classes"] = {k: mean_of(v, seed).rounded() for k, v in likeness.items()}
    gain = lead(right["head per class"], right["shared head"], seed)
    less: Interval = lead(likeness["head per class"], likeness["shared head"], seed)
    return Claim(
        claim="A head per class keeps or raises accuracy and makes maps less class-specific, the case for a shared one",
        rule="accuracy not below (interval reaches 0 or more) and maps of two classes more alike, interval above 0; "
        "partly: one of the two",
        measured=f"accuracy gained {gain}; correlation of two classes' maps {mean_of(likeness['head per class'])}, "
        f"shared {mean_of(likeness['shared head'])}, difference {less}",
        verdict=verdict(gain.high >= 0 and less.low > 0, partly=gain.high >= 0 or less.low > 0),
        n=len(chosen),
        section="design",
    )


def alike(model: Classifier, sample: Sample) -> float:
    """Correlation of the true class's map with the mean map of all other classes."""
    look = look_at(model, sample.image)
    n = len(model.classes)
    several = EncoderOutput(look.features.expand(n, -1, -1), look.pooled.expand(n, -1))
    maps = PromptCAM(n_heads=10**6)(model, several, Target(torch.arange(n))).flatten(1)
    true = model.index_of(sample.label)
    rest = maps[[k for k in range(n) if k != true]].mean(0)
    value = float(torch.corrcoef(torch.stack([maps[true], rest]))[0, 1])
    return value if value == value else 0.0


if __name__ == "__main__":
    main()
