"""The fuzzing itself finds what is planted; and what it found of SeeWhy's, each once, made small."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import fuzz
from changes import OUTSIDE
from fuzz import Case, Watch, campaign, outcome
from readers import Target

import seewhy
from seewhy.dense.reader import Reader
from seewhy.errors import DataError, ForeignFileError, ImageError, InputError, UnknownNameError
from seewhy.language.matching import read_captions
from seewhy.pictures.images import _why_not_decoded
from seewhy.progress import Progress
from seewhy.retrieval import Index
from seewhy.retrieval.settings import Settings
from seewhy.scale.inputs import find_input
from seewhy.scale.job import _digest
from seewhy.scale.reading import add_run
from seewhy.scale.run import run
from simulated_work import Simulated, make_pictures
from tiny import tiny_cnn


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    return Watch(tmp_path_factory.mktemp("fuzzed"))  # an audit hook stays until the process ends: one for all


def whole(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps({"n": 1, "names": ["a", "b"]}))


def read(answer: Callable[[Any], None]) -> Callable[[Path], None]:
    def reading(folder: Path) -> None:
        try:
            value = json.loads((folder / "a.json").read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError("it is no JSON. Write some.") from error
        answer(value)

    return reading


def missing(value: Any) -> None:
    if not isinstance(value, dict) or "names" not in value:
        raise KeyError("names")


def test_a_planted_fault_is_found_and_kept(watch: Watch, tmp_path: Path) -> None:
    case = Case(Target("planted", whole, read(missing), own=True), Path(watch.root))
    (tmp_path / "findings.jsonl").touch()
    known: set[str] = set()
    counts = campaign(case, watch, 400, 3, known, tmp_path, tmp_path / "pulse")
    assert counts["found"] == 1
    assert ["KeyError" in one for one in known] == [True]
    assert json.loads((tmp_path / "findings.jsonl").read_text())["finding"] in known
    (kept,) = tmp_path.glob("planted-*/case/a.json")
    case.put({"a.json": kept.read_bytes()})
    assert f"planted: {outcome(case, watch)[0]}" in known, "the same files bring it about again"
    again = campaign(case, watch, 60, 4, known, tmp_path, tmp_path / "pulse")
    assert again["found"] == 0, "what is known is counted, not told again"


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda folder: (folder.parent.parent.parent / "x").write_text(""), "reached out: wrote"),
        (lambda folder: (folder.parent / OUTSIDE).read_text(), "reached out: read"),
        (lambda folder: os.system("true"), "reached out: os.system"),
        (lambda folder: np.ones(64 << 20, np.float64).sum(), "memory"),
        (lambda folder: 1 / 0, "ZeroDivisionError"),
        (lambda folder: (_ for _ in ()).throw(DataError("a\nb")), "message DataError"),
        (lambda folder: (folder / "own").write_text(""), ""),
    ],
)
def test_what_reaches_out_or_takes_too_much_is_noticed(
    act: Callable[[Path], Any], said: str, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "BYTES", 1 << 26)
    case = Case(Target("planted", whole, act, own=True), Path(watch.root))
    fault = outcome(case, watch)[0]
    assert fault.startswith(said)
    assert bool(fault) == bool(said)
    case.put(case.whole)
    assert [p.name for p in case.folder.iterdir()] == ["a.json"]


def test_a_tar_whose_header_is_no_numbers(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.txt")
        member.pax_headers = {"GNU.sparse.map": "x"}
        tar.addfile(member, io.BytesIO())
    with pytest.raises(DataError, match=r"a\.tar cannot be read as an uncompressed tar: invalid literal"):
        seewhy.load_pairs(tmp_path / "a.tar")


@pytest.mark.parametrize("zoom", [2**53, float("nan"), float("inf"), 0, -1])
def test_a_zoom_without_end(zoom: float) -> None:
    with pytest.raises(InputError, match=r"`zoom` of .* must be a number from 0.25 to 32, got"):
        Reader(tiny_cnn(), zoom)


def test_a_decoder_s_message_of_several_lines() -> None:
    said = str(ImageError("a.heic", _why_not_decoded(ValueError("Invalid input:\n no such box\n"))))
    assert said.startswith("a.heic: cannot be decoded (Invalid input: no such box); if")


def test_captions_with_scores_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    row = {"image": "a.png", "texts": ["a", "b"]}
    for scores in (None, 5, "12", [1, None], [1, "2"], [1, True], [1, float("nan")]):
        path.write_text(json.dumps({**row, "scores": scores}))
        with pytest.raises(DataError, match=r"c\.jsonl, line 1, must have a list of finite numbers as scores\."):
            read_captions(path)
    path.write_text(json.dumps({**row, "label": ["a"]}))
    with pytest.raises(DataError, match="line 1, must have the name of a class as label"):
        read_captions(path)
    path.write_text(json.dumps({**row, "scores": [1, 0.5], "label": None}))
    assert read_captions(path)[0].scores == (1.0, 0.5)


def test_messages_do_not_repeat_what_has_no_end() -> None:
    assert str(DataError("a " + "x" * 5000 + " b")) == "a " + "x" * 100 + "… b"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "a.csv cannot be read: no footer.. Write it again.",
            "a.csv cannot be read: no footer. Write it again.",
        ),
        ("no such file..", "no such file."),
        ("../photos .. and dir/.. do not exist... Wait.", "../photos .. and dir/.. do not exist... Wait."),
    ],
)
def test_a_quoted_full_stop_is_not_followed_by_another(said: str, shown: str) -> None:
    assert str(DataError(said)) == shown
    assert str(DataError("/long" * 60)) == "/long" * 60, "a path is told whole"
    many = str(DataError(f"The id is {[0] * 3000}. Give one number."))
    assert len(many) < 2000
    assert many.startswith("The id is [0, 0")
    assert many.endswith("0]. Give one number.")
    said = str(UnknownNameError("network", "q" * 10**6, [f"net_{i:04}" for i in range(1500)]))
    assert len(said) < 800
    assert said.endswith("net_0039 and 1460 more.")


def indexed(folder: Path, embedding: list[Any], **facts: Any) -> None:
    """A run of one picture, added to an index of the tiny encoder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    run(Simulated(), find_input(folder / "p"), folder / "r")
    manifest, (shard,) = folder / "r" / "_manifest.json", (folder / "r").glob("*.parquet")
    said = json.loads(manifest.read_bytes())
    said["model"] |= {"space": "features", "fingerprint": tiny_cnn().fingerprint}
    said |= facts
    del said["sha256"]  # a run of an earlier version has none
    manifest.write_text(json.dumps(said | {"digest": _digest(said)}))
    table = pq.read_table(shard)
    place = table.column_names.index("embedding")
    pq.write_table(table.set_column(place, "embedding", pa.array([embedding])), shard)
    with closing(Index.create(folder / "i", tiny_cnn(), Settings())) as index:
        add_run(index, folder / "r", Progress())


@pytest.mark.parametrize("embedding", [[1.0] * 4, [1.0] * 7 + [float("nan")], [None] * 8, []])
def test_a_run_whose_vectors_are_none(embedding: list[Any], tmp_path: Path) -> None:
    make_pictures(tmp_path / "p", 1)
    with pytest.raises(DataError, match=r"shard-00000-of-00001\.parquet is damaged \(.*\)\. Delete it, then run"):
        indexed(tmp_path, embedding)


@pytest.mark.parametrize(
    "facts", [{"n_shards": 2**53}, {"n_shards": True}, {"n_shards": -1}, {"input": {}}, {"model": 5}]
)
def test_a_manifest_that_says_something_else(facts: dict[str, Any], tmp_path: Path) -> None:
    make_pictures(tmp_path / "p", 1)
    with pytest.raises(
        ForeignFileError,
        match=(
            r"_manifest\.json was changed or written by another version\. Choose "
            r"another folder for the run\."
        ),
    ):
        indexed(tmp_path, [1.0] * 8, **facts)
