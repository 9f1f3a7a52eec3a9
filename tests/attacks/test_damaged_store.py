"""A feature store that rots or is tampered with: no number of another picture is used, and the person hears of it."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream, encode_texts
from seewhy.errors import DataError
from seewhy.storage.features import FeatureStore, look_key, text_key
from tiny import CLASSES, class_folders, tiny_cnn

FULL = EncodeRequest(features=lambda _index: True)


@pytest.fixture
def encoder() -> Encoder:
    return tiny_cnn()


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    folders = class_folders(tmp_path / "data", 12, CLASSES)
    return sorted(str(p) for p in folders.rglob("*.png"))


@pytest.fixture
def path(tmp_path: Path, encoder: Encoder, names: list[str]) -> Path:
    """A store that knows all the pictures."""
    store = FeatureStore(tmp_path / "features.sqlite")
    list(encode_stream(encoder, names, store=store, request=FULL))
    encode_texts(encoder, list(CLASSES), store)
    store.close()
    return store.path


def changed(path: Path, query: str, rows: list[tuple]) -> None:
    with sqlite3.connect(path) as db:
        db.executemany(query, rows)
    db.close()


def same(found: list, expected: list) -> bool:
    assert all(isinstance(s, Encoded) for s in found)
    pairs = list(zip(found, expected, strict=True))
    return all(torch.allclose(a.pooled, b.pooled, atol=1e-6) for a, b in pairs) and all(
        torch.allclose(a.features, b.features, atol=1e-3) for a, b in pairs
    )


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bytes_change_no_number(
    seed: int, path: Path, encoder: Encoder, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(path.read_bytes())
    draw = random.Random(seed)
    for _ in range(200):  # behind the header and the schema, whose damage ends before anything is read
        data[draw.randrange(3 * 4096, len(data))] ^= draw.randrange(1, 256)
    path.write_bytes(data)
    found = list(encode_stream(encoder, names, store=FeatureStore(path), request=FULL))
    assert same(found, list(encode_stream(encoder, names, request=FULL)))
    assert caplog.messages, "damage of this size must be said"


@pytest.mark.parametrize("column", ["pooled", "features", "shape", "pooled_digest", "features_digest"])
def test_every_column_is_guarded_and_made_again_once(
    column: str, path: Path, encoder: Encoder, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    changed(
        path,
        f"UPDATE looks_2 SET {column} = zeroblob(length({column})) WHERE key IN (SELECT key FROM looks_2 LIMIT 3)",
        [()],
    )
    store, expected = FeatureStore(path), list(encode_stream(encoder, names, request=FULL))
    assert same(list(encode_stream(encoder, names, store=store, request=FULL)), expected)
    assert caplog.messages == [f"3 kept looks were damaged and computed again (in {path})."]
    caplog.clear()
    n_run = len(encoder.engine.batches) if hasattr(encoder.engine, "batches") else 0
    assert same(list(encode_stream(encoder, names, store=store, request=FULL)), expected)
    assert caplog.messages == []
    assert n_run == (len(encoder.engine.batches) if hasattr(encoder.engine, "batches") else 0)


def test_rows_under_each_others_keys_are_noticed(
    path: Path, encoder: Encoder, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(path) as db:
        (one, *a), (two, *b) = db.execute("SELECT * FROM looks_2 LIMIT 2").fetchall()
        db.execute("DELETE FROM looks_2 WHERE key IN (?, ?)", (one, two))
        db.executemany("INSERT INTO looks_2 VALUES (?, ?, ?, ?, ?, ?)", [(one, *b), (two, *a)])
    db.close()
    assert same(
        list(encode_stream(encoder, names, store=FeatureStore(path), request=FULL)),
        list(encode_stream(encoder, names, request=FULL)),
    )
    assert caplog.messages == [f"2 kept looks were damaged and computed again (in {path})."]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_made_again(
    value: float, path: Path, encoder: Encoder, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Even where their digest is right, as of a store that something else filled."""
    store = FeatureStore(path)
    digest = next(iter(encode_stream(encoder, names[:1], store=store))).digest
    key = look_key(digest, f"{encoder.fingerprint}:{encoder.engine.precision}", None)
    assert store.get([key])
    store._forget("looks_2", [key])
    store.report()
    store.put([(key, torch.full((8,), value), None)])
    caplog.clear()
    assert same(
        list(encode_stream(encoder, names, store=store, request=FULL)),
        list(encode_stream(encoder, names, request=FULL)),
    )
    assert caplog.messages == [f"1 kept look was damaged and computed again (in {path})."]


def test_sentences_too(path: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    changed(
        path,
        "UPDATE texts_2 SET vector = zeroblob(length(vector)) WHERE key = ?",
        [(text_key(c, encoder.text.fingerprint),) for c in CLASSES[:2]],
    )
    found = encode_texts(encoder, list(CLASSES), FeatureStore(path))
    assert torch.allclose(found, encoder.encode_text(list(CLASSES)))
    assert caplog.messages == [f"2 kept sentences were damaged and computed again (in {path})."]


def test_a_text_where_bytes_belong_and_a_missing_row(path: Path, encoder: Encoder, names: list[str]) -> None:
    changed(
        path, "UPDATE looks_2 SET pooled = CAST(pooled AS TEXT) WHERE key IN (SELECT key FROM looks_2 LIMIT 2)", [()]
    )
    changed(path, "DELETE FROM looks_2 WHERE key IN (SELECT key FROM looks_2 LIMIT 4 OFFSET 5)", [()])
    assert same(
        list(encode_stream(encoder, names, store=FeatureStore(path), request=FULL)),
        list(encode_stream(encoder, names, request=FULL)),
    )


def earlier(path: Path, texts: str) -> None:
    """A store as earlier versions made it; with this second table."""
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS looks (\n    key BLOB PRIMARY KEY, pooled BLOB NOT NULL, features BLOB, "
            "shape TEXT\n) WITHOUT ROWID"
        )
        db.execute(texts)
        db.execute("INSERT INTO looks VALUES (?, ?, NULL, NULL)", (b"k", bytes(16)))
    db.close()


def tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as db:
        found = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    db.close()
    return found


def test_a_strangers_table_stays(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    earlier(path, "CREATE TABLE texts (key BLOB PRIMARY KEY, vector BLOB NOT NULL, mine TEXT) WITHOUT ROWID")
    with contextlib.suppress(DataError):  # it may be refused as a whole
        FeatureStore(path)
    assert "texts" in tables(path)
