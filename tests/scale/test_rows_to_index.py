"""From a run's rows to what an index adds: names, numbers and failures, and what does not fit is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_jobs import pack

from seewhy.errors import DataError, ModelError
from seewhy.progress import Progress
from seewhy.scale.inputs import find_input
from seewhy.scale.job import Job, read_job
from seewhy.scale.reading import _rows, _seen, add_run, is_run
from seewhy.scale.run import Part, run
from seewhy.storage.parquet_seal import sealed_writer
from seewhy.types import Failure
from simulated_work import Simulated, make_pictures, vector

WIDTH = 4


@dataclass(frozen=True)
class Embedding(Simulated):
    """Says of itself what an encoder's run says."""

    space: str = "features"

    def open(self) -> Any:
        opened = super().open()
        about = {"encoder": self.name, "space": self.space, "fingerprint": "abc"}
        return replace(opened, model=replace(opened.model, identity=about))


def index(fingerprint: str = "abc", parts: str = "none") -> Any:
    """Keeps what it is given."""
    added: list[Any] = []
    return SimpleNamespace(
        encoder=SimpleNamespace(name="net", fingerprint=fingerprint),
        settings=SimpleNamespace(parts=parts),
        describe=lambda: {"columns": {"look": WIDTH}},
        add_seen=lambda seen: added.extend(seen) or added,
    )


def test_rows_are_vectors_under_the_names_of_their_files(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 5, broken=(1,))
    run(Embedding(), find_input(tmp_path / "photos", per_shard=2), tmp_path / "out", part=Part.read("1/2"))
    heard = Progress()
    added: Any = add_run(index(), tmp_path / "out", heard)
    assert [one.name for one in added] == [str(tmp_path / "photos" / names[i]) for i in (0, 4)]
    for one in added:
        assert one.pooled.shape == (1, WIDTH)
        assert one.pooled[0].tolist() == vector(one.digest).tolist()
    assert [one.image for one in heard.failures] == [str(tmp_path / "photos" / names[1])]
    assert heard.notes == [f"1 of 3 shards of {tmp_path / 'out'} are missing. Add the run again when they exist."]
    assert (is_run(tmp_path / "out"), is_run(tmp_path / "photos")) == (True, False)


def test_names_of_a_table_are_beside_it_and_those_in_a_tar_are_no_files(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 2)
    (tmp_path / "photos" / "t.csv").write_text("image\n" + "".join(f"{n}\n" for n in names))
    run(Embedding(), find_input(tmp_path / "photos" / "t.csv"), tmp_path / "table")
    pack(tmp_path / "a.tar", tmp_path / "photos", names)
    run(Embedding(), find_input(tmp_path / "a.tar"), tmp_path / "tar")
    found = [[one.name for one in add_run(index(), tmp_path / out, Progress())] for out in ("table", "tar")]  # type: ignore[attr-defined]
    assert found == [[str(tmp_path / "photos" / n) for n in names], [f"a.tar/{n}" for n in names]]


def test_a_run_that_does_not_fit_the_index_is_told(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 1)
    for space in ("features", "words"):
        run(Embedding(space=space), find_input(tmp_path / "photos"), tmp_path / space)
    for folder, into, kind, says in (
        ("words", index(), DataError, r"words has no vectors of whole pictures\."),
        (
            "features",
            index("abd"),
            ModelError,
            (
                "features and the index must have the same encoder, got simulated and net with different "
                "weights. For a separate index, give the encoder of the run with --encoder."
            ),
        ),
        (
            "features",
            index(parts="cells"),
            DataError,
            (
                "The index stores patches of pictures, but .*features has only vectors of whole "
                "pictures. Add the pictures instead."
            ),
        ),
    ):
        with pytest.raises(kind, match=says):
            add_run(into, tmp_path / folder, Progress())


GOOD = {"image": "a.png", "digest": "d", "embedding": [1.0, 2.0, 3.0, 4.0], "error": None}


@pytest.mark.parametrize(
    "change",
    [
        {"image": None}, {"error": 1}, {"digest": None}, {"embedding": [1.0] * 3},
        {"embedding": [1.0, float("nan"), 1.0, 1.0]}, {"embedding": [1.0, float("inf"), 1.0, 1.0]},
    ],
)  # fmt: skip
def test_a_row_that_is_none_is_refused(change: dict[str, Any]) -> None:
    assert _seen(GOOD, "/root", WIDTH).name == "/root/a.png"  # type: ignore[union-attr]
    assert _seen(GOOD | {"error": "broken", "digest": None}, "", WIDTH) == Failure("a.png", "broken")
    with pytest.raises(ValueError, match=r"not a text|no digest, or does not have 4 numbers"):
        _seen(GOOD | change, "/root", WIDTH)


def _with(table: pa.Table, vectors: list[Any], kind: pa.DataType) -> pa.Table:
    kept = table.drop_columns(["embedding"]).replace_schema_metadata({})
    return kept.append_column("embedding", pa.array(vectors, kind))


def rewritten(job: Job, table: pa.Table) -> None:
    """With other rows, and the digests of these."""
    place = Path(job.place.at(job.name(0)))
    facts = {key: value for key, value in pq.read_metadata(place).metadata.items() if key != b"ARROW:schema"}
    place.unlink()
    with sealed_writer(place, table.schema.with_metadata(facts)) as writer:
        writer.write_table(table.replace_schema_metadata(facts))


def test_a_shard_that_was_changed_is_told_with_its_cure(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 2)
    run(Embedding(), find_input(tmp_path / "photos"), tmp_path / "out")
    job = read_job(tmp_path / "out")
    table = pq.read_table(job.place.at(job.name(0)))
    for changed, why in (
        (table.drop_columns(["digest"]), "it has no 'digest'"),
        (_with(table, [[1.0]] * 2, pa.list_(pa.float32())), "has no digest, or does not have 4 numbers"),
        (_with(table, ["x"] * 2, pa.string()), ""),
    ):
        rewritten(job, changed)
        with pytest.raises(DataError, match=rf"is damaged \(.*{why}\)\. Delete it, then run the same command again\."):
            list(_rows(job, Progress(), WIDTH))
