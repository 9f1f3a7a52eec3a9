"""One flipped bit in any file that SeeWhy writes and later answers from: it is told, or the answer is the same."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import flipped
from typer.testing import CliRunner

import seewhy
from schemas import check
from seewhy.attributions.explainers import FitTTAME, load_explainer
from seewhy.classifiers.linear.recipe import Linear
from seewhy.cli import app
from seewhy.encoders.stream import EncodeRequest, encode_stream, encode_texts
from seewhy.errors import SeeWhyError
from seewhy.pictures.samples import load_samples
from seewhy.pictures.sources import list_pictures
from seewhy.prototypes.epic.method import EPICBank
from seewhy.prototypes.epic.training import FitEPIC
from seewhy.retrieval import Entry, Index, Query, vectors
from seewhy.retrieval.settings import Settings
from seewhy.storage.features import FeatureStore
from seewhy.training.loop import Training
from tiny import CLASSES, class_folders, picture, tiny_cnn

ENCODER = tiny_cnn()
N_BITS = 40
"""That are flipped in each file, one at a time."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with all that can lie in its folder, three indexes, and a feature store."""
    root = tmp_path_factory.mktemp("whole")
    pictures = class_folders(root / "pictures", 8)
    Linear(n_crops=0).fit(ENCODER, load_samples(pictures)).save(root / "model")
    model = seewhy.load(root / "model", encoder=ENCODER)
    samples = load_samples(pictures)
    listed = [(s.image, samples.classes.index(s.label)) for s in samples.items]
    FitEPIC(duplicate=0.99999).fit(model, listed).save(root / "model" / "prototypes")
    FitTTAME().fit(model, [picture("moss", 0)], Training(1, 1)).save(root / "model" / "explainers")
    entries = [Entry(p, Path(p).parent.name) for p in list_pictures([pictures])]
    for name, settings in (("plain", Settings(thumbnail=24)), ("white", Settings(whiten=4, parts="spatial", levels=2))):
        index = Index.create(root / name, ENCODER, settings)
        index.add(entries)
        index.close()
    store = FeatureStore(root / "features.sqlite")
    list(encode_stream(ENCODER, [e.source for e in entries], store=store, request=FULL))
    encode_texts(ENCODER, list(CLASSES), store)
    store.close()
    index = Index.create(root / "large", width=8)
    index.add_vectors(torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)), [str(i) for i in range(3000)])
    index.close()
    return root


FULL = EncodeRequest(features=lambda _index: True)


def searched(folder: Path) -> Any:
    """Everything that an index answers."""
    index = Index.open(folder, ENCODER)
    try:
        shown = [
            index.search(picture("sky", 9), k=6, collapse=None),
            index.search(picture("sky", 9), k=3, labels=["moss", "sky"], levels=2),
        ]
        shown += [index.search(Query(text="moss"), k=5)]
        hits = [(hit.to_json(), hit.thumbnail) for results in shown for hit in results.hits]
        facts = [{k: v for k, v in one.data.items() if k != "version"} for one in shown]
        about = {k: v for k, v in index.describe().items() if k != "version"}
        return facts, hits, index.labels(), index.names(), index.vectors().tolist(), about
    finally:
        index.close()


def nearest(folder: Path) -> Any:
    index = Index.open(folder)
    try:
        asked = torch.linspace(-1, 1, 8)
        names, found = index.nearest(asked, 10)
        # Every name is read as well: those of the nearest are so few that most draws would miss all that is checked.
        return names, found.scores.tolist(), len(index), index.names()
    finally:
        index.close()


def decided(folder: Path) -> Any:
    model = seewhy.load(folder, encoder=ENCODER)
    bank = EPICBank.of(model)
    rows = [model.predict(picture(label, 11)).to_json() for label in CLASSES]
    kept = None if bank is None else [np.asarray(t).tolist() for t in (bank.pooled, bank.owner, bank.boxes)]
    return rows, kept, model.measures, [p.to_json() if hasattr(p, "to_json") else str(p) for p in bank.pictures]


def looked(path: Path) -> Any:
    """Looks, which the store makes again where it cannot give them."""
    store = FeatureStore(path)
    try:
        names = list_pictures([path.parent / "pictures"])
        seen = list(encode_stream(ENCODER, names, store=store, request=FULL))
        return [one.pooled.round(decimals=5).tolist() for one in seen], encode_texts(
            ENCODER, list(CLASSES), store
        ).tolist()
    finally:
        store.close()


def explained(path: Path) -> Any:
    return [t.tolist() for t in load_explainer(path).mechanism.state_dict().values()]


ANSWERS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "index: catalogue": ("plain", "catalogue.sqlite", searched),
    "index: vectors": ("plain", "look-*.f32", searched),
    "index: sums": ("plain", "look-*.crc", searched),
    "index: words": ("plain", "words-*.f32", searched),
    "whitened index: catalogue": ("white", "catalogue.sqlite", searched),
    "whitened index: whitened": ("white", "whitened-*.f32", searched),
    "whitened index: whitening": ("white", "whitening-*.safetensors", searched),
    "whitened index: parts": ("white", "parts-*.f32", searched),
    "large index: catalogue": ("large", "catalogue.sqlite", nearest),
    "large index: vectors": ("large", "look-*.f32", nearest),
    "classifier: card": ("model", "seewhy.json", decided),
    "classifier: tensors": ("model", "tensors-*.safetensors", decided),
    "classifier: prototypes": ("model", "prototypes/epic.safetensors", decided),
    "explainer": ("model/explainers/t_tame.safetensors", "", explained),
    "features": ("features.sqlite", "", looked),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_flipped_bit_is_told_or_changes_nothing(what: str, whole: Path, tmp_path: Path) -> None:
    place, pattern, answer = ANSWERS[what]
    expected, told = answer(whole / place), 0
    draw = random.Random(what)
    for number in range(N_BITS):
        copy = tmp_path / str(number) / Path(place).name
        copy.parent.mkdir()
        if (whole / "pictures").exists() and what == "features":
            (copy.parent / "pictures").symlink_to(whole / "pictures")
        (shutil.copytree if (whole / place).is_dir() else shutil.copy)(whole / place, copy)
        (path,) = copy.glob(pattern) if pattern else [copy]
        data = path.read_bytes()
        at, bit = draw.randrange(len(data)), draw.randrange(8)
        path.write_bytes(flipped(data, at, bit))
        try:
            same = answer(copy) == expected
        except SeeWhyError:
            told += 1
        else:
            assert same, f"bit {bit} of byte {at} of {len(data)} changed an answer, and nobody was told"
        shutil.rmtree(copy.parent)
    assert told or what == "features", "nothing of this file is read"


@pytest.mark.parametrize(
    ("place", "pattern", "named"),
    [
        ("plain", "look-*.f32", "look-000001.f32"),
        ("plain", "look-*.crc", "look-000001.f32"),
        ("white", "whitening-*.safetensors", "whitening-"),
        ("plain", "catalogue.sqlite", "catalogue.sqlite"),
    ],
)
def test_verify_names_the_file_and_ends_with_2(
    place: str, pattern: str, named: str, whole: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(whole / place, tmp_path / "copy"))
    assert CliRunner().invoke(app, ["index", "--verify", str(copy)]).exit_code == 0
    (path,) = copy.glob(pattern)
    data = path.read_bytes()
    at = data.index(b"moss_3") if pattern == "catalogue.sqlite" else len(data) // 2
    path.write_bytes(flipped(data, at, 3))
    done = CliRunner().invoke(app, ["index", "--verify", str(copy), "--json"])
    told = json.loads(done.stdout)
    check("verify", [told])
    assert (done.exit_code, len(told["damaged"])) == (2, 1)
    assert told["damaged"][0]["file"].startswith(named)


def test_a_row_is_checked_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n: list[int] = []
    real = vectors.Rows.check
    monkeypatch.setattr(vectors.Rows, "check", lambda self, rows: (n.append(len(rows)), real(self, rows))[1])
    index = Index.open(whole / "large")
    for _ in range(3):
        index.nearest(torch.ones(8), 10)
    index.nearest(torch.zeros(8) + 2, 10)
    assert sum(n) == 3000
    index.close()
