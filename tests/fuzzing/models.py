"""Folders of models, indexes, stores and runs, and how each is read."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from readers import COLOURS, Target, _masked, _photo, _scratch, classifier, colours, encoder, sealed

import seewhy
from seewhy.errors import SeeWhyError
from seewhy.scale.job import _digest
from tiny import class_folders, picture


def _model(folder: Path) -> None:
    classifier().save(folder / "m")


def _use_model(folder: Path) -> None:
    seewhy.load(folder / "m", encoder=encoder()).explain(picture("moss", 1), measure=False).to_json()


def _with_prototypes(folder: Path) -> None:
    from seewhy.attributions.explainers import FitTTAME
    from seewhy.prototypes.epic.training import FitEPIC
    from seewhy.training.loop import Training

    _model(folder)
    model = seewhy.load(folder / "m", encoder=encoder())
    listed = [(str(p), model.classes.index(p.parent.name)) for p in sorted(_photos().rglob("*.png"))]
    FitEPIC(duplicate=0.99999).fit(model, listed).save(folder / "m" / "prototypes")
    FitTTAME().fit(model, [picture("moss", 0)], Training(1, 1)).save(folder / "m" / "explainers")


def _use_prototypes(folder: Path) -> None:
    from seewhy.prototypes.epic.method import EPICBank

    if (bank := EPICBank.of(seewhy.load(folder / "m", encoder=encoder()))) is None:
        raise SeeWhyError("none")
    json.dumps(repr(bank))


def _use_explainer(folder: Path) -> None:
    from seewhy.attributions.explainers import load_explainer

    load_explainer(folder / "m" / "explainers" / "t_tame.safetensors")


@cache
def _segmenter() -> Any:
    from seewhy.dense.linear import Linear
    from seewhy.pictures.pixel_classes import load_masks

    place = Path(_scratch())
    _masked(place)
    return Linear().fit(colours(), load_masks(place))


@cache
def _detector() -> Any:
    from seewhy.dense.detection.fit import fit_detector
    from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord

    place, rng, rows = Path(_scratch()), np.random.default_rng(0), []
    for i in range(12):
        pixels, boxes = rng.integers(90, 150, (64, 64, 3), np.uint8), []
        for half, (label, colour) in enumerate(COLOURS.items()):
            left, top, side = 32 * half + i % 8, 3 * i, 18
            pixels[top : top + side, left : left + side] = colour
            boxes.append(BoxRecord((left, top, left + side, top + side), label))
        Image.fromarray(pixels).save(place / f"{i}.png")
        rows.append(BoxedPicture(str(place / f"{i}.png"), (64, 64), tuple(boxes)))
    return fit_detector(BoxData(tuple(rows), tuple(COLOURS)), colours(), method="linear", n_shapes=3, parts=2, rounds=1)


def _save_segmenter(folder: Path) -> None:
    from seewhy.dense.saving import save_segmenter

    save_segmenter(_segmenter(), folder / "s")


def _use_segmenter(folder: Path) -> None:
    from seewhy.dense.saving import load_segmenter

    load_segmenter(folder / "s", encoder=colours()).segment(np.asarray(_photo(32))).to_json()


def _save_detector(folder: Path) -> None:
    from seewhy.dense.saving import save_detector

    save_detector(_detector(), folder / "d")


def _use_detector(folder: Path) -> None:
    from seewhy.dense.saving import load_detector

    for found in load_detector(folder / "d", encoder=colours()).detect_all([np.asarray(_photo(64))]):
        json.dumps(repr(found))


def _save_generator(folder: Path) -> None:
    from seewhy.generation.generator import Generator, GeneratorNetwork, Reader

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = GeneratorNetwork(8, 16, 4, 16).eval().requires_grad_(False)
        facts = {"side": 16, "width": 4, "hidden": 16, "reads": 16}
        Generator(network, Reader(encoder(), 16), (-1.0, 1.0), torch.randn(8, 8), facts).save(folder / "g")


def _use_generator(folder: Path) -> None:
    from seewhy.generation.generator import load_generator

    made = load_generator(folder / "g", encoder())
    made.network(made.codes[:1])


def _run(folder: Path) -> None:
    from seewhy.scale.inputs import find_input
    from seewhy.scale.run import run
    from simulated_work import Simulated

    for i in range(4):
        (folder / "p").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(folder / "p" / f"{i}.png")
    run(Simulated(), find_input(folder / "p", per_shard=2), folder / "r")


def _status(folder: Path) -> None:
    from seewhy.scale.reading import status

    found = status(folder / "r")
    json.dumps(found.to_json())
    list(found.lines())


def _index(folder: Path) -> None:
    from seewhy.retrieval import Entry, Index
    from seewhy.retrieval.settings import Settings

    index = Index.create(folder / "i", encoder(), Settings(whiten=4))
    index.add([Entry(str(p), p.parent.name) for p in sorted(_photos().rglob("*.png"))])
    index.close()


@cache
def _photos() -> Path:
    return class_folders(Path(_scratch()) / "p", 4)


def _search(folder: Path) -> None:
    from seewhy.retrieval import Index

    index = Index.open(folder / "i", encoder())
    try:
        index.search(picture("sky", 9), k=5)
        index.add([str(p) for p in sorted(_photos().rglob("*.png"))[:2]])
    finally:
        index.close()


def _indexed_run(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from seewhy.retrieval import Index
    from seewhy.retrieval.settings import Settings

    _run(folder)
    index = Index.create(folder / "i", encoder(), Settings())
    index.close()
    path = folder / "r" / "_manifest.json"
    facts = json.loads(path.read_bytes())
    facts["model"] |= {"space": "features", "fingerprint": encoder().fingerprint}
    del facts["sha256"]  # a run of an earlier version has none
    facts["digest"] = _digest(facts)
    for shard in sorted((folder / "r").glob("*.parquet")):
        table = pq.read_table(shard)
        wide = pa.array([[float(i)] * 8 for i in range(len(table))], pa.list_(pa.float32(), 8))
        pq.write_table(table.set_column(table.column_names.index("embedding"), "embedding", wide), shard)
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    path.write_bytes(text.encode())


def _add_run(folder: Path) -> None:
    from seewhy.progress import Progress
    from seewhy.retrieval import Index
    from seewhy.scale.reading import add_run

    index = Index.open(folder / "i", encoder())
    try:
        add_run(index, folder / "r", Progress())
    finally:
        index.close()


def _resume_run(folder: Path) -> None:
    from seewhy.scale.inputs import find_input
    from seewhy.scale.run import run
    from simulated_work import Simulated

    run(Simulated(), find_input(folder / "p", per_shard=2), folder / "r")


def _store(folder: Path) -> None:
    _encoded(folder)


@cache
def _truth() -> torch.Tensor:
    return torch.cat([one.pooled for one in _looks(None)])  # type: ignore[union-attr]


def _looks(store: Any) -> list[Any]:
    from seewhy.encoders.stream import encode_stream

    return list(encode_stream(encoder(), sorted(map(str, _photos().rglob("*.png")))[:3], store=store))


def _encoded(folder: Path) -> None:
    from seewhy.storage.features import FeatureStore

    store = FeatureStore(folder / "f.sqlite")
    try:
        found = torch.cat([one.pooled for one in _looks(store)])
        store.report()
    finally:
        store.close()
    if not torch.allclose(found, _truth(), atol=1e-6):  # looked at again, alone, it differs by rounding
        raise AssertionError("the store changed a number")


def _annotations(folder: Path) -> None:
    from seewhy.language.annotation.desk import export
    from seewhy.language.annotation.records import Picture
    from seewhy.language.annotation.rounds import StopRule
    from seewhy.language.annotation.store import AnnotationStore

    store = AnnotationStore(folder / "a.sqlite")
    store.add_pictures([Picture("0" * 64, "a.png", "0" * 64, 40, 40)])
    key = store.pictures()[0].key
    store.seed(key, "caption", "ann", {"text": "a red square"})
    export(store, folder / "a.jsonl", StopRule())
    store.close()


def _use_annotations(folder: Path) -> None:
    from seewhy.language.annotation.desk import records
    from seewhy.language.annotation.rounds import StopRule
    from seewhy.language.annotation.store import AnnotationStore

    store = AnnotationStore(folder / "a.sqlite")
    try:
        json.dumps([store.histories().__repr__(), store.judgements().__repr__()])
        list(records(store, StopRule()))
    finally:
        store.close()


def _texts(folder: Path) -> None:
    (folder / "d.json").write_text(json.dumps({"cat": ["a cat", "whiskers"], "dog": []}))
    (folder / "c.jsonl").write_text(
        json.dumps({"image": "a.png", "texts": ["a", "b"], "scores": [0.5, 0.2], "model": "m"}) + "\n"
    )
    pair = {"classes": ["a", "b"], "differences": [{"attribute": "size", "first": "big", "second": "small"}]}
    (folder / "p.json").write_text(json.dumps([pair]))


def _use_texts(name: str, folder: Path) -> None:
    from seewhy.descriptions import Descriptions
    from seewhy.language.matching import read_captions
    from seewhy.language.questions import read_pairs

    read: dict[str, Any] = {"d.json": Descriptions.read, "c.jsonl": read_captions, "p.json": read_pairs}
    read[name](folder / name)


def _trained(folder: Path) -> None:
    from test_loop import DATA, Line

    from seewhy.training.loop import Training, train

    train(
        Line(),
        DATA,
        Training(4, 8, lr=0.05, checkpoint_every=2),
        checkpoint=(folder / "k.safetensors", "a map"),
    )


def _weights(folder: Path) -> None:
    import timm
    from safetensors.torch import save_file

    made = timm.create_model("test_vit", num_classes=3)
    said = {"architecture": "test_vit", "classes": ["a", "b", "c"]}
    transform = {
        "input_size": [160, 160],
        "resize": [160, 160],
        "interpolation": "bilinear",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    save_file(made.state_dict(), folder / "w.safetensors", {"architecture": "test_vit"})
    (folder / "w.safetensors.json").write_text(json.dumps({**said, "transform": transform}))


def _use_weights(folder: Path) -> None:
    from seewhy.encoders.weights import load

    load(str(folder / "w.safetensors"))


def models() -> list[Target]:
    card = "m/seewhy.json"
    both = ("m/seewhy.json", "m/tensors-*")
    return [
        Target("classifier", _model, _use_model, both, True, partial(sealed, card)),
        Target("prototypes", _with_prototypes, _use_prototypes, ("m/prototypes/epic.*",), True),
        Target("explainer", _with_prototypes, _use_explainer, ("m/explainers/*",), True),
        Target("segmenter", _save_segmenter, _use_segmenter, ("s/*",), True, partial(sealed, "s/segmenter.json")),
        Target("detector", _save_detector, _use_detector, ("d/*",), True, partial(sealed, "d/detector.json")),
        Target("generator", _save_generator, _use_generator, ("g/*",), True),
        Target("weights file", _weights, _use_weights, ("w*",), True),
        Target("index", _index, _search, ("i/*",), True),
        Target("store", _store, _encoded, ("f.sqlite",), True),
        Target("run status", _run, _status, ("r/*",), True),
        Target("run resume", _run, _resume_run, ("r/*",), True),
        Target("run indexed", _indexed_run, _add_run, ("r/*",), True),
        Target("annotations", _annotations, _use_annotations, ("a.sqlite",), True),
        Target("checkpoint", _trained, _trained, ("k.safetensors",), True),
        *(Target(f"texts {n}", _texts, partial(_use_texts, n), (n,), True) for n in ("d.json", "c.jsonl", "p.json")),
    ]
