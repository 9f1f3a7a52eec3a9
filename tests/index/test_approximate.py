"""Approximate search keeps the recall it promised, on queries it has never seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from schemas import check
from seewhy.progress import Progress
from seewhy.retrieval import Index, snapshot
from seewhy.retrieval.approximate import Approximate, Calibration
from seewhy.retrieval.settings import Settings

pytest.importorskip("faiss", reason="the extra 'search' is not installed")
N, WIDTH = 12_000, 48


def cloud(n: int, seed: int) -> torch.Tensor:
    """Like embeddings: variance in few directions, loose clusters, no two alike."""
    shape = torch.Generator().manual_seed(0)
    axes = torch.randn(WIDTH, WIDTH, generator=shape) * (torch.arange(WIDTH) + 1.0).pow(-0.8)
    centres = torch.randn(300, WIDTH, generator=shape)
    drawn = torch.Generator().manual_seed(seed)
    at = centres[torch.randint(300, (n,), generator=drawn)]
    return normalize((at + torch.randn(n, WIDTH, generator=drawn)) @ axes.T, dim=1)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    settings = Settings(approximate_from=N)
    progress = Progress()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "N_EXACT", 500)
        made = Index.create(tmp_path_factory.mktemp("large") / "index", settings=settings, width=WIDTH)
        labels = ["rare" if i % 50 == 0 else "often" if i % 2 else "other" for i in range(N)]
        made.add_vectors(cloud(N, 1), [str(i) for i in range(N)], labels, progress=progress)
        assert "search is approximate: recall@10" in progress.notes[0]
        yield made


def recall(index: Index, queries: torch.Tensor, **options: object) -> float:
    found = []
    for query in queries:
        fast, how = index.nearest(query, 10, **options)  # type: ignore[arg-type]
        true, exact = index.nearest(query, 10, exact=True, **options)  # type: ignore[arg-type]
        assert exact.exact
        assert not how.exact
        found.append(len(set(fast) & set(true)) / 10)
    return float(np.mean(found))


def test_recall_on_fresh_queries(index: Index) -> None:
    promised = index.describe()["approximate"]
    check("index", [{**index.describe(), "index": "library", "removed": 0, "notes": [], "failures": []}])
    assert promised["recall"] >= promised["target"] == 0.95
    assert promised["n_probe"] < promised["n_lists"], "else nothing would be saved"
    assert 0 <= promised["recall_low"] <= promised["recall"]
    assert recall(index, cloud(300, 2)) >= 0.95


def test_scores_are_exact_products(index: Index) -> None:
    query = cloud(1, 3)[0]
    names, found = index.nearest(query, 10)
    known = dict(zip(index.names(), index.vectors(), strict=True))
    torch.testing.assert_close(found.scores, torch.stack([known[n] for n in names]) @ query)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_classes_and_what_came_and_went(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "N_EXACT", 100)
    assert recall(index, cloud(60, 4), labels=["often"]) >= 0.95
    assert recall(index, cloud(60, 4), labels=["rare"]) >= 0.95
    query = cloud(1, 5)[0]
    gone = index.nearest(query, 10)[0]
    assert index.remove(gone) == 10
    left, how = index.nearest(query, 10)
    assert not set(left) & set(gone)
    assert not how.exact
    assert len(left) == 10
    index.add_vectors(query[None], ["new"])
    assert index.nearest(query, 10)[0][0] == "new", "what came after the build is compared exactly"
    assert recall(index, cloud(60, 6)) >= 0.95
    again = Index.open(index.folder)
    assert again.nearest(query, 10)[0] == index.nearest(query, 10)[0]


def test_few_rows_are_compared_exactly(index: Index) -> None:
    _, found = index.nearest(cloud(1, 7)[0], 10, labels=["rare"])
    assert found.exact


def test_a_target_out_of_reach_leaves_search_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: Approximate, __: np.ndarray, asked: torch.Tensor, k: int, **___: object) -> tuple[torch.Tensor, ...]:
        return torch.zeros(len(asked), k), torch.zeros(len(asked), k).long()

    monkeypatch.setattr(Approximate, "top", nothing)
    assert Approximate.build(cloud(3000, 1).numpy(), np.arange(3000), n_queries=50) is None


def test_copies_of_pictures_do_not_make_the_measure_too_good() -> None:
    """Twelve near-copies of each row: its nearest are its copies, in its own list; a new picture has none."""
    once = cloud(1000, 1)
    noise = torch.randn(12, *once.shape, generator=torch.Generator().manual_seed(2))
    matrix = normalize(once + 0.02 * noise, dim=2).flatten(0, 1).numpy()
    made = Approximate.build(matrix, np.arange(len(matrix)), n_queries=100)
    assert made is not None
    new = cloud(100, 3)
    best = torch.from_numpy(matrix) @ new.T
    least = best.topk(10, 0).values[-1]
    found = (made.top(matrix, new, 10)[0] >= least[:, None] - 1e-6).float().mean()
    assert found >= 0.9


def test_without_the_engine_search_is_exact_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.retrieval.writing.has_faiss", lambda: False)
    progress = Progress()
    made = Index.create(tmp_path / "index", settings=Settings(approximate_from=1000), width=WIDTH)
    made.add_vectors(cloud(1200, 1), [str(i) for i in range(1200)], progress=progress)
    assert progress.notes == [
        "1,200 pictures are compared one by one at every search; "
        "pip install 'seewhy[search]' and index again to search faster"
    ]
    assert made.nearest(cloud(1, 2)[0])[1].exact


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.faiss").write_bytes(b"not an index")
    with pytest.raises(Exception, match=r"x\.faiss is damaged") as caught:
        Approximate.load(tmp_path / "x.faiss", Calibration(1, 1, 0.9, 1, 1, 1, 1, 1), 4)
    assert "seewhy index -o" in str(caught.value)


def windows(n_photographs: int, n: int, seed: int) -> torch.Tensor:
    """Windows of photographs: those of one lie together, and no window of another photograph among them."""
    drawn = torch.Generator().manual_seed(seed)
    photographs = cloud(n_photographs, seed)
    spread = torch.randn(n_photographs, n, WIDTH, generator=drawn) * (torch.arange(WIDTH) + 1.0).pow(-0.5) * 0.12
    return normalize(photographs[:, None] + spread, dim=2).flatten(0, 1)


def test_what_is_promised_holds_for_photographs_that_are_not_there() -> None:
    matrix = windows(150, 80, 1).numpy()
    made = Approximate.build(matrix, np.arange(len(matrix)), target=0.95)
    assert made is not None
    new = windows(300, 1, 2)
    least = (torch.from_numpy(matrix) @ new.T).topk(10, 0).values[-1]
    found = (made.top(matrix, new, 10)[0] >= least[:, None] - 1e-6).float().mean()
    assert found >= made.calibration.recall >= 0.95
    assert made.calibration.n_probe < made.calibration.n_lists, "else nothing would be saved"


def test_the_first_and_the_last_row_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the lists, and of what was added behind them."""
    monkeypatch.setattr(snapshot, "N_EXACT", 500)
    made = Index.create(tmp_path / "index", settings=Settings(approximate_from=3000), width=WIDTH)
    known = cloud(3200, 7)
    made.add_vectors(known[:3000], [str(i) for i in range(3000)])
    assert made.describe()["approximate"]["n_rows"] == 3000
    made.add_vectors(known[3000:], [str(i) for i in range(3000, 3200)])
    for row in (0, 2999, 3000, 3199):
        names, how = made.nearest(known[row], 3)
        assert not how.exact
        assert (names[0], int(how.rows[0])) == (str(row), row)
        assert float(how.scores[0]) == pytest.approx(1, abs=1e-5)
        names, how = made.nearest(known[row], 3200)
        assert -1 not in how.rows.tolist(), "fewer were found than asked for"
        assert len(names) == len(set(names))
    made.remove(["1500"])
    assert [made.nearest(known[row], 1)[0] for row in (0, 2999, 3000, 3199)] == [["0"], ["2999"], ["3000"], ["3199"]]
    made.remove(["2999", "3000"])
    assert made.nearest(known[2999], 1)[0] != ["2999"]
    assert made.nearest(known[3000], 1)[0] != ["3000"]
    assert made.nearest(known[0], 1)[0] == ["0"]
