"""CNN features off-the-shelf: what does each part of the baseline add to classification and retrieval?

    python reproductions/cnn_features_off_the_shelf.py --train TRAIN --test TEST --iconic ICONIC --out results.json
    python reproductions/cnn_features_off_the_shelf.py --planted 3 --out planted.json      # two minutes, no pictures

Razavian, Azizpour, Sullivan & Carlsson 2014 (arXiv 1403.6382). A frozen network, a linear SVM, and several augmented
copies of each picture; for retrieval also overlapping sub-patches, PCA whitening and a signed power. Each part is
removed in turn. TRAIN and TEST are folders of class folders. ICONIC is a folder with one picture per class, named after
it. Features are kept in the feature store, so a stopped run continues. Takes half an hour on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from claims import Claim, Report, command, lead, machine, mean_of, parser, verdict
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.classifiers.linear.jitter import paper_twelve
from seewhy.classifiers.linear.solvers import fit_linear
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder as find
from seewhy.encoders.module import from_module
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.heads.normalise import signed_power
from seewhy.pictures.images import read_picture
from seewhy.pictures.samples import load_samples
from seewhy.pictures.sources import list_pictures
from seewhy.retrieval.settings import n_patches, spatial_distance, sub_patches
from seewhy.retrieval.vectors import Whitening
from seewhy.storage.features import FeatureStore

NAME = "cnn_features_off_the_shelf"
N_JITTER = len(paper_twelve())
GRID = (0.1, 1.0, 10.0, 100.0)
VIEWS = [*paper_twelve(), *sub_patches(4)]


@dataclass(frozen=True)
class Set:
    """Pictures after the network: one row a version."""

    names: list[str]
    labels: Tensor
    pooled: Tensor

    @property
    def own(self) -> Tensor:
        """By their own crop."""
        return self.pooled[:, 0]


def main() -> None:
    args = arguments()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        if args.planted:
            planted(Path(temporary), args.planted)
            args.train, args.test, args.iconic = (Path(temporary) / n for n in ("train", "test", "iconic"))
        encoder, store = find(args.encoder), FeatureStore()
        train = look(encoder, folder(args.train, args.per_class), store)
        classes = sorted(set(train[1]))
        sets = {"train": as_set(train, classes)}
        sets["test"] = as_set(look(encoder, folder(args.test, args.queries), store), classes)
        if args.iconic is not None:
            named = [(p, Path(p).stem) for p in list_pictures([args.iconic]) if Path(p).stem in classes]
            sets["iconic"] = as_set(look(encoder, named, store), classes)
        print({name: len(s.names) for name, s in sets.items()}, f"{time.perf_counter() - begun:.0f} s", flush=True)
        right = classification(sets["train"], sets["test"], len(classes), controls(sets, args.seed))
        found = {name: retrieval(sets["train"], s) for name, s in sets.items() if name != "train"}
    report(args, encoder, sets, right, found, time.perf_counter() - begun)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, NAME)
    made.add_argument("--train", type=Path, help="class folders: to train on, and to search in")
    made.add_argument("--test", type=Path, help="class folders: to test on, and to search with")
    made.add_argument("--iconic", type=Path, help="one clean picture a class, to search with")
    made.add_argument("--per-class", type=int, default=6, help="training pictures a class at most")
    made.add_argument("--queries", type=int, default=3, help="test pictures a class at most")
    made.add_argument("--encoder", default="lite0")
    made.add_argument("--planted", type=int, default=0, help="so many drawn pictures a class instead of folders")
    args = made.parse_args()
    if not args.planted and (args.train is None or args.test is None):
        made.error("give --train and --test, or --planted")
    return args


def folder(path: Path, most: int) -> list[tuple[str, str]]:
    """The first ``most`` pictures of each class."""
    taken: dict[str, int] = defaultdict(int)
    found = []
    for sample in load_samples(path).items:
        if taken[sample.label] < most:
            taken[sample.label] += 1
            found.append((sample.image, sample.label))
    return found


def look(
    encoder: Encoder, items: Sequence[tuple[str, str]], store: FeatureStore | None, views: Sequence[Any] = VIEWS
) -> tuple[list[str], list[str], Tensor]:
    """All versions of the pictures that can be read."""
    seen = encode_stream(encoder, [p for p, _ in items], store=store, request=EncodeRequest(views=lambda _index: views))
    good = [(s, label) for s, (_, label) in zip(seen, items, strict=True) if isinstance(s, Encoded)]
    return [s.name for s, _ in good], [label for _, label in good], torch.stack([s.pooled for s, _ in good])


def as_set(found: tuple[list[str], list[str], Tensor], classes: list[str]) -> Set:
    return Set(found[0], torch.tensor([classes.index(label) for label in found[1]]), found[2])


def controls(sets: dict[str, Set], seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Features that owe nothing to training: pixels, and the same network with random weights."""
    torch.manual_seed(seed)
    plain = find("lite0")
    network = timm.create_model("efficientnet_lite0", pretrained=False).eval()
    random = from_module(network, target_layer="bn2", transform=plain.transform, engine="torch")
    found = {}
    pixels, features = [], []
    for name in ("train", "test"):
        names = sets[name].names
        pictures = [read_picture(n, plain.transform).pixels for n in names]
        small = [np.asarray(Image.fromarray(p).resize((32, 32))) for p in pictures]
        pixels.append(torch.from_numpy(np.stack(small)).flatten(1).float() / 255 - 0.5)
        features.append(look(random, [(n, "") for n in names], None, [None])[2][:, 0])
    found["pixels"] = (pixels[0], pixels[1])
    found["random weights"] = (features[0], features[1])
    return found


def classification(
    train: Set, test: Set, n_classes: int, untrained: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, list[float]]:
    """Right or wrong on each test picture, for the whole and for each ingredient removed."""

    def rung(
        x: Tensor, z: Tensor, *, l2: bool = True, power: float = 1.0, combine: Callable[[Tensor], Tensor] | None = None
    ) -> list[float]:
        def feature(v: Tensor) -> Tensor:
            v = normalize(v, dim=-1) if l2 else v
            v = signed_power(v, power)
            return normalize(v, dim=-1) if l2 and power != 1 else v

        scores = svm(feature(x), train.labels, feature(z), n_classes)
        scores = scores[:, 0] if combine is None else combine(scores)
        return (scores.argmax(1) == test.labels).float().tolist()

    def total(scores: Tensor) -> Tensor:
        return scores.sum(1)

    own, asked = train.pooled[:, :1], test.pooled[:, :1]
    many, views = train.pooled[:, :N_JITTER], test.pooled[:, :N_JITTER]
    found = {name: rung(x[:, None], z[:, None]) for name, (x, z) in untrained.items()}
    found["frozen + SVM, without L2"] = rung(own, asked, l2=False)
    found["frozen + L2 + SVM"] = rung(own, asked)
    found["whole: L2, power 2, versions trained and summed"] = rung(many, views, power=2, combine=total)
    found["whole without L2"] = rung(many, views, power=2, l2=False, combine=total)
    found["whole without power"] = rung(many, views, combine=total)
    found["whole with square root"] = rung(many, views, power=0.5, combine=total)
    found["whole without versions in training"] = rung(own, views, power=2, combine=total)
    found["whole without versions at test"] = rung(many, asked, power=2)
    found["whole with maximum for sum"] = rung(many, views, power=2, combine=lambda s: s.amax(1))
    for name, values in found.items():
        print(f"{name:50} {mean_of(values)}", flush=True)
    return found


def svm(x: Tensor, y: Tensor, z: Tensor, n_classes: int) -> Tensor:
    """Scores ``(picture, version, class)``; C is chosen on every fifth training picture, with all its versions."""
    held = torch.arange(len(x)) % 5 == 0
    unit = 1 / max(float(x.square().sum(-1).mean()), 1e-12) / x.shape[1]

    def fitted(rows: Tensor, labels: Tensor, c: float) -> Callable[[Tensor], Tensor]:
        made = fit_linear(
            rows.flatten(0, 1), labels.repeat_interleave(x.shape[1]), n_classes, c * unit, solver="svm", tol=1e-4
        )
        return lambda v: v @ made.weight.T + made.bias

    def right(c: float) -> float:
        scores = fitted(x[~held], y[~held], c)(x[held])[:, 0]
        return float((scores.argmax(1) == y[held]).float().mean())

    return fitted(x, y, max(GRID, key=right))(z)


def retrieval(references: Set, queries: Set) -> dict[str, list[float]]:
    """Average precision of each query, for the whole and for each ingredient removed."""
    parts = slice(N_JITTER, None)
    n_query = n_patches(3)
    white = Whitening.fit(normalize(references.own, dim=1), 256, 0.1, 1.0)
    squared = Whitening(white.mean, white.matrix, 2.0)
    bare = Whitening.fit(normalize(references.own, dim=1), 256, 1e-6, 2.0)

    def plain(v: Tensor) -> Tensor:
        return normalize(v, dim=-1)

    def whole(made: Callable[[Tensor], Tensor]) -> list[float]:
        return precision(made(references.own) @ made(queries.own).T, references.labels, queries.labels)

    def by_parts(made: Callable[[Tensor], Tensor], of: slice, asked: slice) -> list[float]:
        known = made(references.pooled[:, of])
        near = [-spatial_distance(made(q[asked]), known) for q in queries.pooled]
        return precision(torch.stack(near, 1), references.labels, queries.labels)

    asked = slice(N_JITTER, N_JITTER + n_query)
    jitter = slice(0, N_JITTER)
    found = {
        "global, L2": whole(plain),
        "global, whitened": whole(white),
        "global, whitened, power 2": whole(squared),
        "global, whitened without a floor, power 2": whole(bare),
        "whole: spatial 4 and 3, whitened, power 2": by_parts(squared, parts, asked),
        "whole without power": by_parts(white, parts, asked),
        "whole without whitening": by_parts(plain, parts, asked),
        "whole with 2 levels": by_parts(squared, slice(N_JITTER, N_JITTER + 5), slice(N_JITTER, N_JITTER + 5)),
        "whole with jitter for spatial": by_parts(squared, jitter, jitter),
        "jitter, whitened": by_parts(white, jitter, jitter),
        "jitter, L2": by_parts(plain, jitter, jitter),
    }
    for name, values in found.items():
        print(f"{name:50} {mean_of(values)}", flush=True)
    return found


def precision(scores: Tensor, known: Tensor, asked: Tensor) -> list[float]:
    """Average precision of each query (column) over all references (rows); queries without a reference are left out."""
    order = scores.argsort(0, descending=True)
    relevant = (known[order] == asked).double()
    at = relevant.cumsum(0) / torch.arange(1, len(known) + 1, dtype=torch.double)[:, None]
    n = relevant.sum(0)
    return ((at * relevant).sum(0) / n.clamp(min=1))[n > 0].tolist()


def report(
    args: argparse.Namespace,
    encoder: Encoder,
    sets: dict[str, Set],
    right: dict[str, list[float]],
    found: dict[str, dict[str, list[float]]],
    seconds: float,
) -> None:
    n = {name: len(s.names) for name, s in sets.items()}
    what = "drawn pictures" if args.planted else "grocery photographs"
    done = Report(
        name=NAME,
        title="What does each ingredient of the off-the-shelf baseline add?",
        paper="Razavian et al. 2014, arXiv:1403.6382",
        data=f"{what}: {n['train']} to train on and to search in, {n['test']} to test and to search with"
        + (f", {n['iconic']} clean product pictures to search with" if "iconic" in n else ""),
        model=f"{encoder.name}, frozen; {mean_of(right['frozen + L2 + SVM'])} right with a linear SVM",
        command=command(NAME),
        machine=machine(),
        seconds=round(seconds, 1),
        seed=args.seed,
        claims=(*claims_of_classes(right), *(c for name, f in found.items() for c in claims_of_search(name, f))),
        differences=(
            "EfficientNet-Lite0's pooled features instead of a layer of OverFeat.",
            "12 of the paper's 16 versions: it gives no angle for its rotations.",
            "One SVM a class against the rest; the paper votes one against one.",
            "Whitening keeps 256 components with a floor of a tenth of the largest variance; the paper keeps 500.",
            "Overlapping parts have the side 2 / (level + 1), which the paper does not state.",
        ),
        numbers={
            "accuracy": {k: mean_of(v).rounded() for k, v in right.items()},
            **{f"average precision, {s}": {k: mean_of(v).rounded() for k, v in f.items()} for s, f in found.items()},
        },
    )
    done.show()
    if args.out:
        done.write(args.out)


def claims_of_classes(right: dict[str, list[float]]) -> Iterator[Claim]:
    base, full = right["frozen + L2 + SVM"], right["whole: L2, power 2, versions trained and summed"]
    for control in ("random weights", "pixels"):
        gain = lead(base, right[control])
        yield claim("classification", f"Frozen features and a linear SVM beat {control}", base, right[control], gain)
    yield claim("classification", "L2 normalisation helps", base, right["frozen + SVM, without L2"])
    yield claim("classification", "Versions, power and sum (CNNaug-SVM) beat the plain CNN-SVM", full, base)
    for name, text in (
        ("whole without versions in training", "Versions in training help"),
        ("whole without versions at test", "Summing over versions at test helps"),
        ("whole with maximum for sum", "The sum over versions beats the maximum"),
        ("whole without power", "The signed power of 2 helps"),
        ("whole with square root", "The signed power of 2 beats the square root"),
    ):
        yield claim("classification", text, full, right[name])


def claims_of_search(queries: str, found: dict[str, list[float]]) -> Iterator[Claim]:
    where = f"retrieval, {queries} pictures as queries"
    full = found["whole: spatial 4 and 3, whitened, power 2"]
    for name, text in (
        ("global, L2", "All together (CNNaug with spatial search) beat the plain feature"),
        ("global, whitened, power 2", "Spatial search helps"),
        ("whole with 2 levels", "More levels of spatial search help"),
        ("whole without whitening", "Whitening and power help under spatial search"),
        ("whole without power", "The signed power of 2 helps under spatial search"),
    ):
        yield claim(where, text, full, found[name])
    yield claim(where, "Whitening alone helps", found["global, whitened"], found["global, L2"])
    yield claim(where, "Jitter instead of spatial search helps", found["jitter, L2"], found["global, L2"])
    yield claim(
        where,
        "Not in the paper: whitening needs a floor under its variances",
        found["global, whitened, power 2"],
        found["global, whitened without a floor, power 2"],
    )


def claim(section: str, text: str, ours: list[float], other: list[float], gain: Any = None) -> Claim:
    gain = gain or lead(ours, other)
    return Claim(
        claim=text,
        rule="interval of the difference above 0; partly: the difference is above 0",
        measured=f"{mean_of(ours)} against {mean_of(other)}; difference {gain}",
        verdict=verdict(gain.low > 0, partly=gain.value > 0),
        n=len(ours),
        section=section,
        interval=gain,
    )


def planted(root: Path, n: int, n_classes: int = 5) -> None:
    """Textures pasted at random places and scales on clutter; ``iconic`` shows each alone."""
    rng = np.random.default_rng(0)
    tiles = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(n_classes)]
    for split, many in (("train", n), ("test", n)):
        for k, tile in enumerate(tiles):
            for i in range(many):
                clutter = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((224, 224), 3)
                side = int(rng.integers(80, 150))
                place = tuple(int(v) for v in rng.integers(0, 224 - side, 2))
                clutter.paste(Image.fromarray(tile).resize((side, side), 0), place)
                save(clutter, root / split / f"class{k}" / f"{split}{i}.png")
    for k, tile in enumerate(tiles):
        save(Image.fromarray(tile).resize((224, 224), 0), root / "iconic" / f"class{k}.png")


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


if __name__ == "__main__":
    main()
