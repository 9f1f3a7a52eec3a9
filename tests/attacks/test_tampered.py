"""Files of SeeWhy's own that somebody has changed: one sentence each, at once; no traceback, no hang, no memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import subprocess
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from damage import DAMAGES, device, in_time, pipe
from safetensors.torch import load_file, save, save_file

import seewhy
from seewhy.attributions.explainers import FitTTAME, load_explainer
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.errors import SeeWhyError
from seewhy.pictures.samples import load_samples
from seewhy.pictures.sources import list_pictures
from seewhy.prototypes.epic.method import EPICBank
from seewhy.prototypes.epic.training import FitEPIC
from seewhy.retrieval import Entry, Index
from seewhy.retrieval.settings import Settings
from seewhy.retrieval.vectors import sums_of
from seewhy.training.loop import Training
from tiny import class_folders, picture, tiny_cnn

ENCODER = tiny_cnn()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures"), 8)


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's folder with everything that can lie in one, and an index."""
    root = tmp_path_factory.mktemp("whole")
    model = Linear(n_crops=0).fit(ENCODER, load_samples(pictures))
    model.save(root / "model")
    model = seewhy.load(root / "model", encoder=ENCODER)
    samples = load_samples(pictures)
    listed = [(s.image, samples.classes.index(s.label)) for s in samples.items]
    FitEPIC(duplicate=0.99999).fit(model, listed).save(root / "model" / "prototypes")
    FitTTAME().fit(model, [picture("moss", 0)], Training(1, 1)).save(root / "model" / "explainers")
    index = Index.create(root / "index", ENCODER, Settings(whiten=4))
    index.add([Entry(p, Path(p).parent.name) for p in list_pictures([pictures])])
    index.close()
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def open_model(root: Path) -> Classifier:
    return seewhy.load(root / "model", encoder=ENCODER)


def search(root: Path) -> Any:
    index = Index.open(root / "index", ENCODER)
    try:
        return index.search(picture("sky", 9), k=5)
    finally:
        index.close()


def explain(root: Path) -> Any:
    load_explainer(root / "model" / "explainers" / "t_tame.safetensors")


def prototypes(root: Path) -> Any:
    if EPICBank.of(open_model(root)) is None:
        raise SeeWhyError("the prototypes are gone, and a card does without them")


READ: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "card": ("model/seewhy.json", open_model),
    "tensors": ("model/tensors-*.safetensors", open_model),
    "prototypes": ("model/prototypes/epic.safetensors", prototypes),
    "explainer": ("model/explainers/t_tame.safetensors", explain),
    "catalogue": ("index/catalogue.sqlite", search),
    "column": ("index/look-*.f32", search),
    "whitened": ("index/whitened-*.f32", search),
    "whitening": ("index/whitening-*.safetensors", search),
}


def told(do: Callable[[], Any]) -> str:
    """What is said; one line of a sensible length, at once."""
    with in_time(), pytest.raises(SeeWhyError) as caught:
        do()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def one(root: Path, pattern: str) -> Path:
    (found,) = root.glob(pattern)
    return found


def test_whole_they_are_all_read(root: Path) -> None:
    for _, read in READ.values():
        read(root)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", READ)
def test_a_file_that_is_none(root: Path, what: str, damage: str) -> None:
    pattern, read = READ[what]
    path = one(root, pattern)
    DAMAGES[damage](path)
    for companion in ("-wal", "-shm"):
        path.with_name(path.name + companion).unlink(missing_ok=True)
    numbers = ("sparse", "sparse_behind", "noise", "deep", "deep_header", "huge_header")
    if (damage == "sparse_behind" and what == "catalogue") or (damage in numbers and what in ("column", "whitened")):
        with in_time(), suppress(SeeWhyError):  # SQLite knows where it ends, and any bytes are numbers
            read(root)
        return
    message = told(lambda: read(root))
    assert damage in ("gone", "sparse_behind") or path.name in message or str(path.parent) in message
    if damage in ("pipe", "device") and what != "catalogue":
        assert "it is a pipe, socket or device, not a file" in message


WRONG: list[Any] = [None, True, -1, 10**30, 1.5, "", "../../x", [], {}, [[[]]], {"a": {"b": None}}, "\x1b[31m\n"]


@pytest.mark.parametrize("value", WRONG, ids=lambda v: repr(v)[:20])
def test_a_card_with_one_value_of_another_kind(root: Path, value: Any) -> None:
    """Refused, or as good as before: never an error that is none of ours."""
    path = root / "model" / "seewhy.json"
    card = json.loads(path.read_text("utf-8"))
    for key in card:
        path.write_text(json.dumps(card | {key: value}), "utf-8")
        with in_time(), suppress(SeeWhyError):
            open_model(root).explain(picture("moss", 1), measure=False).to_json()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 2, "format": 2}', "its key 'format' occurs twice"),
        ('{"format": NaN}', "it has the number NaN, which JSON does not allow"),
        ('{"format": -Infinity}', "it has the number -Infinity, which JSON does not allow"),
        ('{"format": 1e999}', "its number 1e999 is too large"),
        (f'{{"format": {"9" * 5000}}}', "its number 999999999999… is too large"),
        ("\xff", "it is not text in UTF-8"),
        ('{"format": 2', "it is not valid JSON:"),
    ],
)
def test_a_card_that_is_no_strict_json(root: Path, text: str, said: str) -> None:
    (root / "model" / "seewhy.json").write_bytes(text.encode("latin-1"))
    assert said in told(lambda: open_model(root))


def changed_tensors(path: Path, change: Callable[[torch.Tensor], torch.Tensor], only: str = "") -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = file.metadata()
    tensors = {k: change(t).contiguous() if only in k else t for k, t in load_file(path).items()}
    save_file(tensors, path, about)


CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "not finite": lambda t: torch.full_like(t, torch.nan) if t.is_floating_point() else t,
    "without a row": lambda t: t[1:] if t.ndim else t[None].repeat(2),
    "flat": lambda t: t.flatten() if t.ndim > 1 else t[None, None],
    "of bytes": lambda t: torch.zeros(t.shape, dtype=torch.uint8),
    "holds whole numbers": lambda t: torch.full(t.shape, 2**40),
    "none": lambda t: t[:0] if t.ndim else t[None][:0],
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("what", ["tensors", "prototypes", "explainer", "whitening"])
def test_tensors_of_another_shape_or_kind(root: Path, what: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shapes are checked in tests alone
    pattern, read = READ[what]
    path = one(root, pattern)
    changed_tensors(path, CHANGES[how])
    if what == "tensors":  # as whoever changes them would, with a card that says so
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        card = json.loads((path.parent / "seewhy.json").read_text("utf-8"))
        (path.parent / "seewhy.json").write_text(json.dumps(card | {"tensors": digest}), "utf-8")
        path.rename(path.with_name(f"tensors-{digest[:16]}.safetensors"))
    told(lambda: read(root))


def test_one_tensor_of_another_kind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are as they were, and the card says the new digest, as whoever changes it would."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    card, first = json.loads((root / "model" / "seewhy.json").read_text("utf-8")), one(root, READ["tensors"][0])
    whole = load_file(first)
    for name, tensor in whole.items():
        data = save({**whole, name: (tensor.long() if tensor.dtype == torch.uint8 else CHANGES["of bytes"](tensor))})
        digest = hashlib.sha256(data).hexdigest()
        (root / "model" / f"tensors-{digest[:16]}.safetensors").write_bytes(data)
        (root / "model" / "seewhy.json").write_text(json.dumps(card | {"tensors": digest}), "utf-8")
        message = told(lambda: open_model(root))
        checked = name.startswith(("head.", "words.", "held_out.", "bank.", "trust.", "known."))
        assert f"{name.partition('.')[2]} is torch." in message or not checked


META: dict[str, list[Any]] = {
    "n_rows": [-1, 2**60, 2**40, "5", None, 1.5, [3]],
    "version": ["x", -1],
    "columns": [
        {"../../look": [8, 1]}, {"look": [8, 1], "/etc/x": [1, 1]}, {"look": [0, 1]}, {"look": [2**40, 1]},
        {"look": [9, 1]}, {"look": "8"}, {"look": [8, -1]}, {"look": [8, 1], "words": [8, 7]}, [], {},
    ],
    "whitening": [
        {"file": "../whitening-00000000.safetensors", "n": 3}, {"file": "/dev/zero", "n": 3}, {"file": 5, "n": 3},
        {"n": 3}, "x", {"file": "whitening-00000000.safetensors", "n": 3},
    ],
    "settings": [{"parts": 5}, {"whiten": "x"}, {"x": 1}, None, [], {"parts": "spatial"}, {"thumbnail": -1}],
    "encoder": [None, {}, {"encoder": 5, "fingerprint": "x"}, {"encoder": "tiny"}, []],
    "format": ["1", None, 2, True],
}  # fmt: skip


@pytest.mark.parametrize("key", META)
def test_an_index_that_says_what_none_says(root: Path, key: str) -> None:
    for i, value in enumerate(META[key]):
        path = Path(shutil.copytree(root / "index", root / f"{i}" / "index")) / "catalogue.sqlite"
        with sqlite3.connect(path) as db:
            text = json.dumps(value)
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, text, zlib.crc32(text.encode())))
        db.close()
        told(lambda i=i: search(root / f"{i}"))  # type: ignore[misc]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER evil AFTER UPDATE ON meta BEGIN DELETE FROM items; END",
        "CREATE VIEW evil AS SELECT * FROM items",
        "CREATE VIRTUAL TABLE evil USING fts5(x)",
        "UPDATE items SET row = 999",
        "UPDATE items SET row = -5 WHERE id = 1",
        "UPDATE items SET label = x'ff00'",
        "UPDATE items SET name = x'05'",
        "UPDATE thumbnails SET jpeg = 'text'",
        "UPDATE meta SET value = x'ff'",
        "DROP TABLE items",
        "DELETE FROM meta",
    ],
)
def test_a_database_with_something_else_in_it(root: Path, statement: str) -> None:
    with sqlite3.connect(root / "index" / "catalogue.sqlite") as db:
        db.execute("PRAGMA ignore_check_constraints=ON")
        try:
            db.execute(statement)
        except sqlite3.IntegrityError:  # rows are unique: one is enough
            db.execute(statement + " WHERE id = 1")
    db.close()
    told(lambda: search(root))


def test_numbers_that_are_none_are_told(root: Path) -> None:
    path = one(root, "index/whitened-*.f32")
    rows = np.fromfile(path, "<f4")
    rows[5] = np.nan
    rows.tofile(path)
    assert "is damaged: row 2 does not match its checksum" in told(lambda: search(root))
    sums_of(rows.reshape(-1, 4)).tofile(path.with_suffix(".crc"))
    assert "has NaN or infinity" in told(lambda: search(root))


@pytest.mark.parametrize("name", ["seewhy.json", "tensors"])
@pytest.mark.parametrize("put", [pipe, device])
def test_the_command_says_it_in_one_line(
    root: Path, command: list[str], name: str, put: Callable[[Path], None]
) -> None:
    put(one(root, f"model/{name}*"))
    path = root / "model" / "seewhy.json"
    if name != "seewhy.json":
        from seewhy.encoders.embedded import fingerprint_of

        card = json.loads(path.read_text("utf-8"))
        card["encoder"] = {"encoder": "lite0", "fingerprint": fingerprint_of("lite0")}
        path.write_text(json.dumps(card), "utf-8")
    words = [*command, "predict", "x.png", "-m", str(root / "model"), "--store", "none"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "it is a pipe, socket or device, not a file" in done.stderr
