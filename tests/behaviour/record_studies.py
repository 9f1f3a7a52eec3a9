"""What studies, checks, audits and drift answer on small data: their JSON, with floats as they are."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def record() -> dict[str, Any]:
    """Each verb's document."""
    import torch

    from tiny import colours

    torch.manual_seed(0)
    colours()  # has weights that nobody sets
    with tempfile.TemporaryDirectory() as place:
        parts = {name: make(Path(place) / name) for name, make in PARTS.items()}
        return {name: _without(place, data) for name, data in parts.items()}


def _without(place: str, data: Any) -> Any:
    """Without where the data lay, and without what every change of the code changes."""
    if isinstance(data, dict):
        return {str(k): _without(place, v) for k, v in data.items() if k not in ("model", "digest", "paper")}
    if isinstance(data, list | tuple):
        return [_without(place, v) for v in data]
    if isinstance(data, str):
        return data.replace(place, "")
    return data if isinstance(data, int | float | bool | None) else repr(data)


def _scaling(folder: Path) -> Any:
    from seewhy.classifiers.linear.recipe import Linear
    from seewhy.studies.scaling import ScalingStudy
    from tiny import colours, tiny_cnn

    study = ScalingStudy(
        target=0.99, n_sizes=4, n_seeds=2, n_draws=40, recipe=Linear(n_crops=0, split="random"), held_out=0.3,
        noise=(0.4,), n_classes=(2,),
    )  # fmt: skip
    found = study.run({"colours": colours(), "tiny": tiny_cnn()}, _drawn(20, wrong=5), folder)
    again = study.run({"colours": colours(), "tiny": tiny_cnn()}, _drawn(20, wrong=5), folder)
    return {"data": found.data, "again": again.data == found.data, "keys": _keys(folder)}


def _keys(folder: Path) -> list[str]:
    return (folder / "progress.jsonl").read_text("utf-8").splitlines()


def _drawn(n: int, labels: tuple[str, ...] = ("moss", "rust", "sky"), start: int = 0, wrong: int = 0) -> Any:
    from seewhy.pictures.samples import Sample, gathered
    from tiny import picture

    items = []
    for k, label in enumerate(labels):
        for i in range(start, start + n):
            shown = labels[(k + 1) % len(labels)] if wrong and i % wrong == 0 else label
            items.append(Sample(f"{label} {i}", label, pixels=picture(shown, i, 16)))
    return gathered(items)


def _transfer(folder: Path) -> Any:
    from seewhy.classifiers.linear.recipe import Linear
    from seewhy.studies.transfer import TransferStudy
    from tiny import colours, tiny_cnn

    recipe = Linear(n_crops=0, split="random")
    study = TransferStudy(shots=(1, 2, 40), parts=(0.01, 0.5), n_seeds=2, n_corrupted=4, recipe=recipe, held_out=0.3)
    found = study.run({"colours": colours(), "tiny": tiny_cnn()}, _drawn(14), folder)
    again = study.run({"colours": colours(), "tiny": tiny_cnn()}, _drawn(14), folder)
    return {"data": found.data, "again": again.data == found.data, "keys": _keys(folder)}


def _base_to_new(folder: Path) -> Any:
    from seewhy.pictures.samples import load_samples
    from seewhy.studies.base_to_new import BaseToNewStudy
    from tiny import CLASSES, class_folders
    from tiny_words import opened

    settings = (("epochs", 3), ("batch_size", 4), ("lr", 0.3))
    study = BaseToNewStudy(("coop",), (1, 2), 2, settings=settings)
    samples = load_samples(class_folders(folder / "photos", 6, CLASSES))
    found = study.run(opened(), samples, folder)
    return {"data": found.data, "n": len(_keys(folder))}


def _background(folder: Path) -> Any:
    from backgrounds import Known, planted
    from planting import reader
    from seewhy.studies.background import BackgroundStudy

    samples, masks = planted(12, 0, "around")
    found = BackgroundStudy(n_draws=200).run(reader("cnn", False), samples, Known(masks), folder)
    return {"data": found.data, "keys": _keys(folder)}


def _interpretability(folder: Path) -> Any:
    from seewhy.pictures.samples import load_samples
    from seewhy.studies.interpretability import InterpretabilityStudy
    from tiny import class_folders, colours, tiny_cnn

    try:
        from seewhy.studies.concepts import HeadTraining
    except ImportError:
        from seewhy.studies.interpretability import HeadTraining
    training = HeadTraining(n_epochs=3, least_steps=6)
    study = InterpretabilityStudy(n_concepts=8, n_random=2, n_draws=100, training=training)
    samples = load_samples(class_folders(folder / "photos", 6))
    encoders = [colours(), tiny_cnn(), tiny_cnn(1, name="other"), tiny_cnn(2, name="third"), tiny_cnn(3, name="last")]
    words = ("green", "brown", "blue", "pale")
    found = study.run(encoders, samples, folder, concepts=words, judge=colours())
    again = study.run(encoders, samples, folder, concepts=words, judge=colours())
    return {"data": found.data, "again": again.data == found.data, "n": len(_keys(folder))}


def _faithfulness(folder: Path) -> Any:
    import numpy as np
    from PIL import Image

    from seewhy.classifiers.unfitted import Pretrained
    from seewhy.studies.faithfulness import FaithfulnessStudy
    from tiny import colour_reader

    rng = np.random.default_rng(0)
    (folder / "masks").mkdir(parents=True)
    for i in range(12):
        canvas, mask = np.full((32, 32, 3), 128, np.uint8), np.zeros((32, 32), np.uint8)
        row, column = rng.integers(0, 22, 2)
        canvas[row : row + 10, column : column + 10] = (255, 128, 0) if i % 2 else (0, 128, 255)
        mask[row : row + 10, column : column + 10] = 255
        Image.fromarray(canvas).save(folder / f"{i:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i:02}.png")
    names = [str(p) for p in sorted(folder.glob("*.png"))]
    methods, metrics = "grad_cam,hires_cam,occlusion:4", "deletion,deletion_black,sparsity,pixel_ap,random_logit:3"
    study = FaithfulnessStudy.of(methods, metrics, masks=folder / "masks")
    model = Pretrained().build(colour_reader())
    found = study.run(model, names, folder / "out")
    again = study.run(model, names, folder / "out")
    return {"data": found.data, "again": again.data == found.data, "n": len(_keys(folder / "out"))}


def _check(folder: Path) -> Any:
    import numpy as np
    from PIL import Image

    from seewhy.pictures.samples import load_samples
    from seewhy.studies.inspection.check import Check, rows_of
    from tiny import COLOURS, tiny_cnn

    def scene(seed: int) -> Any:
        draw = np.random.default_rng(seed)
        return np.kron(draw.integers(30, 220, (16, 16, 1)), np.ones((4, 4, 3), int)).astype(np.uint8)

    def tinted(seed: int, label: str) -> Any:
        return (0.3 * scene(seed) + 0.7 * np.array(COLOURS[label])).clip(0, 255).astype(np.uint8)

    for k, label in enumerate(("moss", "rust", "sky")):
        (folder / label).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(tinted(100 * k + i, label)).save(folder / label / f"{i}.png")
    Image.fromarray(tinted(950, "rust")).save(folder / "moss" / "wrong.png")
    Image.fromarray(tinted(100, "rust")[:, ::-1]).resize((60, 60)).save(folder / "rust" / "mirrored.jpg", quality=80)
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(folder / "sky" / "blank.png")
    (folder / "moss" / "twice.png").write_bytes((folder / "sky" / "3.png").read_bytes())
    (folder / "rust" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    samples = load_samples(folder)
    found: dict[str, Any] = {}
    for by in ("odds", "confident", "neighbours"):
        done = Check(by).run(tiny_cnn(), samples, known=("moss", "rust"))
        found[by] = {"data": done.data, "rows": rows_of(done.data["findings"])}
    half = type(samples)(samples.items[::2], samples.classes)
    found["against"] = Check().run(tiny_cnn(), half, against=samples).data
    return found


def _audit(folder: Path) -> Any:
    from dataclasses import replace

    from backgrounds import Known, planted
    from planting import CLASSES, plant, reader
    from seewhy.classifiers.linear.recipe import Linear
    from seewhy.descriptions import Descriptions
    from seewhy.pictures.samples import Sample, gathered
    from seewhy.studies.auditing import audit
    from seewhy.studies.auditing.contract import Contract
    from tiny import HUES, colours, picture

    shown = [plant("copies", seed) for seed in range(48)]
    items = [Sample(f"p{i}", CLASSES[p.target], group="ab"[i % 2], pixels=p.pixels) for i, p in enumerate(shown)]
    items = [replace(s, label=CLASSES[(CLASSES.index(s.label) + 1) % 3]) if i < 9 else s for i, s in enumerate(items)]
    plain = audit(reader("cnn", True), gathered(items), group="site", n_explained=12)
    labels = ("moss", "rust", "sky")
    train = gathered([Sample(f"fit {c} {i}", c, pixels=picture(c, i)) for c in labels for i in range(12)])
    words = Descriptions({c: (f"a {HUES[c]} thing",) for c in labels})
    model = Linear(n_crops=0).fit(colours(), train, descriptions=words)
    tested = gathered([Sample(f"{c} {i}", c, pixels=picture(c, 50 + i)) for c in labels for i in range(8)])
    fitted = audit(model, tested, n_explained=12, train=train)
    samples, masks = planted(12, 0, "around")
    around = audit(reader("cnn", False), samples, masks=Known(masks), n_explained=12)
    return {
        "plain": plain.data, "junit": plain.to_junit(), "fitted": fitted.data, "around": around.data,
        "toml": Contract.preset().to_toml(),
    }  # fmt: skip


def _drift(folder: Path) -> Any:
    from seewhy.classifiers.linear.recipe import Linear
    from seewhy.pictures.samples import Sample, gathered
    from seewhy.studies.auditing.drift import DriftTest
    from tiny import colours, picture

    labels = ("moss", "rust", "sky")
    train = gathered([Sample(f"fit {c} {i}", c, pixels=picture(c, i)) for c in labels for i in range(12)])
    model = Linear(n_crops=0).fit(colours(), train)
    same = [Sample(f"{c} {i}", pixels=picture(c, 50 + i)) for c in labels for i in range(8)]
    other = [Sample(f"sand {i}", pixels=picture("sand", i)) for i in range(12)]
    return {"same": DriftTest().run(model, same).data, "other": DriftTest().run(model, other).data}


def _adapted(folder: Path) -> Any:
    from seewhy.learning.adaptation.word_prompts import CoOp
    from seewhy.pictures.samples import load_samples
    from seewhy.studies.forgetting import AdaptingData, adapt_names
    from tiny import CLASSES, class_folders
    from tiny_words import opened

    samples = load_samples(class_folders(folder / "photos", 8, CLASSES))
    made = adapt_names(CoOp(epochs=3, batch_size=4, lr=0.3), opened(), AdaptingData(samples, base_to_new=True))
    return made.measures["forgetting"]


PARTS = {
    "scaling": _scaling, "transfer": _transfer, "base-to-new": _base_to_new, "background": _background,
    "interpretability": _interpretability, "faithfulness": _faithfulness, "check": _check, "audit": _audit,
    "drift": _drift, "adapted": _adapted,
}  # fmt: skip


if __name__ == "__main__":
    import json

    print(json.dumps(record(), indent=1, ensure_ascii=False, sort_keys=True))
