"""An index finds what NumPy finds, sees every change at once, and keeps what it says it keeps."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from seewhy.encoders.base import Encoder
from seewhy.errors import DataError, ImageError, InputError, ModelError
from seewhy.pictures.sources import list_pictures
from seewhy.progress import Progress
from seewhy.report.paging import framed
from seewhy.retrieval import Entry, Index, Query
from seewhy.retrieval.settings import Settings
from seewhy.retrieval.vectors import Column, exact_top
from seewhy.retrieval.writing import Change
from tiny import CLASSES, class_folders, picture, tiny_cnn

PLAIN = Settings(words=False)


def vectors(n: int, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def entries(folder: Path) -> list[Entry]:
    return [Entry(p, Path(p).parent.name) for p in list_pictures([folder])]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_cnn()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "pictures", 4)


@pytest.fixture
def index(tmp_path: Path, folders: Path, encoder: Encoder) -> Index:
    made = Index.create(tmp_path / "index", encoder)
    assert made.add(entries(folders)) == Change(added=12)
    return made


def test_exact_top_is_that_of_numpy() -> None:
    matrix = vectors(40_000).numpy()  # three blocks
    queries = vectors(5, seed=1)
    every = queries.numpy() @ matrix.T
    for some in (np.arange(40_000), np.arange(0, 40_000, 7), np.arange(3)):
        for query, products in zip(queries, every, strict=True):
            found = exact_top(matrix, query, 10, some)
            expected = some[np.argsort(-products[some])[:10]]
            assert found.rows.tolist() == expected.tolist()
            np.testing.assert_allclose(found.scores.numpy(), products[expected], rtol=1e-5)


def test_a_search_in_some_rows_reads_no_others(tmp_path: Path) -> None:
    column = Column(tmp_path, "look", 4, 1)
    column.append(0, vectors(9)[:, :4])
    data = bytearray(column.path.read_bytes())
    data[0] ^= 1
    column.path.write_bytes(data)
    rows = column.rows(9)
    assert set(exact_top(rows, torch.ones(4), 2, np.array([3, 5, 8])).rows.tolist()) <= {3, 5, 8}
    with pytest.raises(DataError, match="row 1 does not match its checksum"):
        exact_top(rows, torch.ones(4), 2, np.arange(9))


def test_vectors_made_elsewhere(tmp_path: Path) -> None:
    known = vectors(500)
    index = Index.create(tmp_path / "index", width=16, fingerprint="elsewhere")
    index.add_vectors(known[:300], [str(i) for i in range(300)], ["even" if i % 2 == 0 else "odd" for i in range(300)])
    index.add_vectors(known[300:], [str(i) for i in range(300, 500)], ["late"] * 200)
    query = vectors(1, seed=9)[0]
    order = (normalize(known, dim=1) @ normalize(query, dim=0)).argsort(descending=True)
    names, _ = index.nearest(query, 10)
    assert names == [str(i) for i in order[:10].tolist()]
    names, _ = index.nearest(query, 10, labels=["odd", "late"])
    assert names == [str(i) for i in order.tolist() if i >= 300 or i % 2][:10]
    index.add_vectors(-known[order[:1]], [str(int(order[0]))])
    assert index.nearest(query, 1)[0] == [str(int(order[1]))], "a name that is there gets its new vector"
    assert len(index) == 500
    with pytest.raises(ModelError, match="has precomputed vectors"):
        index.search("a.png")


def test_a_picture_finds_its_own_kind_and_never_itself(index: Index, folders: Path) -> None:
    own = folders / "moss" / "moss_0.png"
    found = index.search(own, k=3, collapse=None)
    assert str(own) not in [h.image for h in found.hits]
    assert {h.label for h in found.hits} == {"moss"}
    cosines = [h.cosine for h in found.hits]
    assert cosines == sorted(cosines, reverse=True)
    names, known = index.names(), index.vectors()
    query = known[names.index(str(own))]
    best = max((float(v @ query), n) for n, v in zip(names, known, strict=True) if n != str(own))
    assert (found.hits[0].cosine, found.hits[0].image) == (pytest.approx(best[0], abs=1e-6), best[1])
    assert found.data["hits"][0] == found.hits[0].to_json()


def test_near_duplicates_are_listed_under_the_one_they_resemble(index: Index, folders: Path) -> None:
    everything = index.search(picture("moss", 9), k=12, collapse=None)
    folded = index.search(picture("moss", 9), k=12, collapse=0.97)
    assert len(everything.hits) == 12
    assert len(folded.hits) + sum(len(h.copies) for h in folded.hits) == 12
    vector = dict(zip(index.names(), index.vectors(), strict=True))
    shown = torch.stack([vector[h.image] for h in folded.hits])
    assert float((shown @ shown.T - 2 * torch.eye(len(shown))).max()) <= 0.97
    for hit in folded.hits:
        assert all(float(vector[hit.image] @ vector[c]) > 0.97 for c in hit.copies)


def test_adding_again_changes_nothing(index: Index, folders: Path) -> None:
    before = (index.names(), index.vectors(), index.describe()["version"])
    assert index.add(entries(folders)) == Change(unchanged=12)
    shutil.copy(folders / "moss" / "moss_0.png", folders / "moss" / "copy.png")
    assert index.add(entries(folders)) == Change(unchanged=13)
    after = (index.names(), index.vectors(), index.describe()["version"])
    assert (after[0], after[2]) == (before[0], before[2])
    assert torch.equal(after[1], before[1])


def test_changes_of_files_are_followed(index: Index, folders: Path, encoder: Encoder) -> None:
    path = folders / "moss" / "moss_0.png"
    Image.fromarray(picture("sky", 50)).save(path)
    assert index.add(entries(folders)) == Change(updated=1, unchanged=11)
    assert index.search(path, k=1, collapse=None).hits[0].label == "sky"
    (folders / "rust" / "rust_0.png").rename(folders / "rust" / "renamed.png")
    assert index.add(entries(folders)) == Change(updated=1, unchanged=11)
    assert str(folders / "rust" / "renamed.png") in index.names()
    assert str(folders / "rust" / "rust_0.png") not in index.names()
    assert index.add([Entry(folders / "rust" / "renamed.png", "other")]) == Change(updated=1)
    assert index.labels() == {"moss": 4, "other": 1, "rust": 3, "sky": 4}
    assert len(index) == 12
    a, b = folders / "sky" / "sky_1.png", folders / "sky" / "sky_2.png"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    index.add(entries(folders))
    vector = dict(zip(index.names(), index.vectors(), strict=True))
    fresh = Index.create(index.folder.parent / "fresh", encoder)
    fresh.add(entries(folders))
    expected = dict(zip(fresh.names(), fresh.vectors(), strict=True))
    assert vector.keys() == expected.keys()
    assert all(torch.allclose(vector[n], expected[n], atol=1e-6) for n in vector), "two files that changed places"


def test_what_is_removed_is_gone(index: Index, folders: Path) -> None:
    gone = folders / "moss" / "moss_1.png"
    assert index.remove([gone]) == 1
    assert str(gone) not in [h.image for h in index.search(picture("moss", 9), k=12, collapse=None).hits]
    assert index.remove([folders / "rust"]) == 4
    assert index.labels() == {"moss": 3, "sky": 4}
    (folders / "sky" / "sky_0.png").unlink()
    assert index.remove_missing() == 1
    assert len(index) == 6
    size = (index.folder / "look-000001.f32").exists()
    assert not size, "more than a quarter was deleted, so the rows were cleared away"
    again = Index.open(index.folder, index.encoder)
    assert again.names() == index.names()
    found = [i.search(picture("sky", 9), k=6, collapse=None) for i in (index, again)]
    assert found[0].data == found[1].data
    assert index.add(entries(folders)).added == 5


def test_only_the_classes_asked_for(index: Index) -> None:
    found = index.search(picture("moss", 9), k=5, labels=["rust", "sky"], collapse=None)
    assert {h.label for h in found.hits} <= {"rust", "sky"}
    every = index.search(picture("moss", 9), k=12, collapse=None)
    assert [h.image for h in found.hits] == [h.image for h in every.hits if h.label != "moss"][:5]
    assert found.data["n_searched"] == 8
    with pytest.raises(DataError) as caught:
        index.search(picture("moss", 9), labels=["mos"])
    assert str(caught.value) == "No picture of the index has the class 'mos'. Did you mean 'moss'?"


def test_saved_and_opened_it_finds_the_same(index: Index) -> None:
    before = index.search(picture("sky", 9), k=5)
    index.close()
    again = Index.open(index.folder, index.encoder).search(picture("sky", 9), k=5)
    assert again.data == before.data
    assert again.hits == before.hits


@pytest.mark.parametrize(
    ("made_in", "asked", "runs"),
    [
        ("float32", "auto", "auto:f32"),
        ("float32", "openvino", "openvino:f32"),
        ("float32", "openvino:bf16", "openvino:bf16"),
        ("bfloat16", "auto", "auto"),
    ],
)
def test_an_index_made_in_float32_is_searched_in_float32(
    index: Index, encoder: Encoder, made_in: str, asked: str, runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = index._catalogue.get("encoder")
    with index._catalogue.writing():
        index._catalogue.set(encoder={**about, "precision": made_in})
    found = []
    find = "seewhy.encoders.find.encoder"
    monkeypatch.setattr(find, lambda name, *, engine: found.append((name, engine)) or encoder)
    assert Index.open(index.folder, about["encoder"], engine=asked).encoder is encoder
    assert found == [(about["encoder"], runs)]


def test_other_weights_are_refused(index: Index, tmp_path: Path) -> None:
    other = tiny_cnn(seed=1)
    with pytest.raises(ModelError) as caught:
        Index.open(index.folder, other)
    assert str(caught.value) == (
        f"{index.folder} needs 'tiny' with the fingerprint {index.encoder.fingerprint[:12]}, got 'tiny' with "
        f"{other.fingerprint[:12]}. Use the same weights, or make the index "
        "again."
    )
    with pytest.raises(ModelError):
        Index.create(index.folder, other)


def test_what_cannot_be_an_index_is_said(index: Index, tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(DataError) as caught:
        Index.open(tmp_path)
    assert str(caught.value) == (f"{tmp_path} is not a SeeWhy index. Make one: seewhy index PHOTOS -o {tmp_path}")
    with pytest.raises(DataError, match="must be a SeeWhy index or a new folder"):
        Index.create(tmp_path, encoder)
    with pytest.raises(DataError, match="must be whiten=0, got whiten=8"):
        Index.create(index.folder, encoder, Settings(whiten=8))
    with pytest.raises(InputError, match="A query needs a picture"):
        Query()
    with pytest.raises(DataError, match="The index has no pictures"):
        Index.create(tmp_path / "empty", encoder).search(picture("moss", 0))
    made = Index.create(tmp_path / "wordless", encoder, PLAIN)
    made.add([Entry(picture("moss", 0), name="a")])
    with pytest.raises(ModelError, match="has no text encoder"):
        made.search(Query(text="moss"))
    with pytest.raises(InputError, match="Pixels in memory need a name"):
        index.add([picture("moss", 0)])
    (index.folder / "look-000001.f32").write_bytes(b"")
    with pytest.raises(DataError, match="is truncated: it must have 12 rows"):
        Index.open(index.folder, encoder).search(picture("moss", 0))


def test_hostile_pictures_are_left_out_by_name(index: Index, tmp_path: Path) -> None:
    bad = [tmp_path / n for n in ("cut.png", "text.jpg", "empty.png", "nowhere.png")]
    bad[0].write_bytes((tmp_path / "pictures" / "moss" / "moss_0.png").read_bytes()[:80])
    bad[1].write_text("not a picture")
    bad[2].touch()
    progress = Progress()
    good = tmp_path / "good é\n.png"
    Image.fromarray(picture("sand", 0)).save(good)
    assert index.add([*bad[:2], good, *bad[2:]], progress=progress) == Change(added=1, failed=4)
    assert [f.image for f in progress.failures] == [str(b) for b in bad]
    assert len(index) == 13
    assert str(good) in index.names()
    with pytest.raises(ImageError):
        index.search(bad[0])


def test_a_name_that_is_no_unicode_is_left_out(index: Index, tmp_path: Path) -> None:
    name, progress = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png"), Progress()
    Image.fromarray(picture("sand", 3)).save(tmp_path / "good.png")
    assert index.add([tmp_path / "good.png", Path(name)], progress=progress) == Change(added=1, failed=1)
    assert [(f.image, f.error) for f in progress.failures] == [
        (name, "has a name that is not UTF-8, which an index cannot hold; rename it")
    ]


def test_the_page_shows_what_was_found_and_escapes_it(index: Index, tmp_path: Path) -> None:
    index.add([Entry(picture("sand", 0), "<b>sand</b>", name="<script>.png")])
    found = index.search(Query(picture("sand", 1), text="a <i>dune</i>"), k=3, collapse=None)
    page = found.to_html()
    assert page.count("<figure") == 3
    assert page.count("data:image/jpeg;base64,") == 3
    assert "<script>.png" not in page
    assert "<b>sand</b>" not in page
    assert "a &lt;i&gt;dune&lt;/i&gt;" in page
    assert "SeeWhy compared every picture" in page
    assert found._repr_html_() == framed(page, "SeeWhy results")
    assert found.save(tmp_path / "found.html").read_text("utf-8").rstrip() == page.rstrip()


def test_classes_of_the_index_are_counted(index: Index) -> None:
    assert index.labels() == dict.fromkeys(sorted(CLASSES[:3]), 4)
    assert index.describe()["columns"] == {"look": 8, "words": 8}
    assert repr(index) == f"Index({str(index.folder)!r}, 12 pictures, 'tiny')"


def test_threads_search_while_one_writes(index: Index, folders: Path, tmp_path: Path) -> None:
    """As the page's workers do: an index made in one thread answers in others, each from one finished step."""
    asked = str(next(folders.rglob("*.png")))
    expected = index.search(asked, k=5, collapse=None).data["hits"]
    extra = class_folders(tmp_path / "more", 4, CLASSES[3:])

    def search(_: int) -> list[str]:
        return [h["image"] for h in index.search(asked, k=5, collapse=None, labels=list(CLASSES[:3])).data["hits"]]

    def write() -> int:
        return index.add(entries(extra)).added

    with ThreadPoolExecutor(5) as pool:
        written = pool.submit(write)
        found = list(pool.map(search, range(20)))
        assert written.result() == 4
    assert found == [[h["image"] for h in expected]] * 20
    assert len(index.names()) == 16
