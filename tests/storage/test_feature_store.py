"""The feature store: found again by content, safe between processes, plain about its troubles."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from seewhy.errors import DataError
from seewhy.storage.features import FeatureStore, _map, look_key, text_key
from seewhy.types import Crop

CURE = (
    "It has only data that can be computed again. To continue, free some disk space, or "
    "delete the file, or name another place with --store or SEEWHY_CACHE."
)


def key(i: int) -> bytes:
    return look_key(f"digest {i}", "encoder", None)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "deep" / "features.sqlite")


def test_what_was_put_comes_back(store: FeatureStore) -> None:
    pooled, features = torch.randn(8), torch.randn(8, 3, 5)
    store.put([(key(0), pooled, features), (key(1), pooled * 2, None)])
    found = store.get([key(0), key(1), key(2)], features=True)
    assert set(found) == {key(0)}
    assert torch.equal(found[key(0)][0], pooled)
    torch.testing.assert_close(found[key(0)][1], features, atol=1e-3, rtol=1e-3)
    assert torch.equal(store.get([key(1)])[key(1)][0], pooled * 2)
    assert store.get([key(0)])[key(0)][1] is None
    assert len(store) == 2


def test_a_map_is_added_and_never_taken_away(store: FeatureStore) -> None:
    store.put([(key(0), torch.ones(4), None)])
    store.put([(key(0), torch.ones(4), torch.ones(4, 2, 2))])
    store.put([(key(0), torch.ones(4), None)])
    assert store.get([key(0)], features=True)[key(0)][1].shape == (4, 2, 2)


def test_more_keys_than_one_query_takes(store: FeatureStore) -> None:
    store.put((key(i), torch.tensor([float(i)]), None) for i in range(1200))
    found = store.get([key(i) for i in range(1300)])
    assert [float(found[key(i)][0]) for i in range(1200)] == list(range(1200))
    assert len(found) == 1200


def test_texts(store: FeatureStore) -> None:
    odd = "straße \ud800 🙂"
    store.put_texts([(text_key("a", "tower"), torch.ones(3)), (text_key(odd, "tower"), torch.zeros(3))])
    store.put_texts([(text_key("a", "tower"), torch.ones(3) * 9)])
    found = store.get_texts([text_key("a", "tower"), text_key(odd, "tower"), text_key("a", "other tower")])
    assert [v.tolist() for v in found.values()] in ([[1, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 1]])


def test_every_part_of_a_key_counts() -> None:
    crop = Crop((0, 0, 0.5, 0.5))
    keys = {
        look_key("d", "e", None),
        look_key("x", "e", None),
        look_key("d", "x", None),
        look_key("d", "e", crop),
        look_key("d", "e", Crop((0, 0, 0.5, 0.5), flip=True)),
    }
    assert len(keys) == 5
    assert look_key("d", "e", Crop((0, 0, 0.5, 0.5))) == look_key("d", "e", crop)


def test_it_survives_its_process(store: FeatureStore) -> None:
    store.put([(key(0), torch.ones(4), None)])
    store.close()
    assert len(FeatureStore(store.path)) == 1


def test_threads(store: FeatureStore) -> None:
    def work(part: int) -> None:
        for i in range(20):
            store.put([(key(100 * part + i), torch.ones(4), None)])
            store.get([key(j) for j in range(50)])

    threads = [threading.Thread(target=work, args=(p,)) for p in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == 80


WRITER = """
import sys, torch
from seewhy.storage.features import FeatureStore, _map, look_key
store = FeatureStore(sys.argv[1])
for i in range(60):
    name = f"{sys.argv[2]} {i}" if i % 2 else f"shared {i}"
    store.put([(look_key(name, "encoder", None), torch.full((8,), float(i)), torch.ones(8, 2, 2))])
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "features.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), who]) for who in ("a", "b")]
    assert [w.wait(120) for w in writers] == [0, 0]
    store = FeatureStore(path)
    assert len(store) == 90
    for i in range(60):
        for who in ("a", "b"):
            name = look_key(f"{who} {i}" if i % 2 else f"shared {i}", "encoder", None)
            assert store.get([name])[name][0].tolist() == [float(i)] * 8


def test_a_map_that_16_bits_cannot_hold_is_not_kept(store: FeatureStore) -> None:
    large = torch.full((2, 3, 3), 1e5)
    store.put([(key(0), torch.ones(2), large), (key(1), torch.ones(2), large / 2)])
    assert set(store.get([key(0), key(1)], features=True)) == {key(1)}
    assert set(store.get([key(0), key(1)])) == {key(0), key(1)}
    kept = _map(key(0), torch.full((2, 3, 3), torch.inf))
    store._write("UPDATE looks_2 SET features = ?, shape = ?, features_digest = ? WHERE key = ?", [(*kept, key(0))])
    assert set(store.get([key(0), key(1)], features=True)) == {key(1)}


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG" * 300)
    with pytest.raises(DataError) as caught:
        FeatureStore(path)
    assert str(caught.value) == (
        f"{path} exists and is not a feature store of SeeWhy. Choose another name; the file was not changed."
    )
    assert path.read_bytes() == b"\x89PNG" * 300


@pytest.mark.parametrize("damage", [b"not a database at all" * 50, b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes) -> None:
    path = tmp_path / "features.sqlite"
    path.write_bytes(damage)
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    with pytest.raises(DataError) as caught:
        FeatureStore()
    assert str(caught.value) == (
        f"The feature store {path} cannot be used: it is damaged, or not a feature store. {CURE}"
    )


def test_damage_in_the_middle_is_named_and_the_run_goes_on(
    store: FeatureStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.put((key(i), torch.randn(500), None) for i in range(300))
    store.close()
    data = bytearray(store.path.read_bytes())
    data[8192:] = b"\xaa" * (len(data) - 8192)
    store.path.write_bytes(data)
    damaged = FeatureStore(store.path)
    assert damaged.get([key(i) for i in range(300)]) == {}
    damaged.put([(key(0), torch.ones(4), None)])
    assert damaged.get_texts([key(0)]) == {}
    assert caplog.messages == [
        f"The feature store {store.path} cannot be used any more: database disk image is malformed. The run continues "
        "without it. Before the next run, "
        f"{CURE.partition('To continue, ')[2]}"
    ]


def test_a_full_disk_is_named_once_and_loses_nothing(store: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    store.put([(key(0), torch.ones(4), None)])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    for _ in range(2):
        store.put((key(i), torch.ones(4000), None) for i in range(1, 20))
    assert set(store.get([key(i) for i in range(20)])) == {key(0)}
    assert len(caplog.messages) == 1
    assert f"{store.path} cannot be used any more: database or disk is full. The run continues" in caplog.text


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "features.sqlite"
    with pytest.raises(DataError) as caught:
        FeatureStore(path)
    assert str(caught.value).startswith(f"The feature store {path} cannot be used: File exists. It has only")
    assert str(caught.value).endswith(CURE)


def test_left_out_it_lies_in_the_cache(own_cache: Path) -> None:
    assert FeatureStore().path == own_cache / "features.sqlite"
