"""What a process of a run is: what it keeps of a picture, what its rows hang on, and what it says to the first one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.functional import normalize

from seewhy.errors import InputError
from seewhy.pictures.images import read_picture
from seewhy.scale import run as runs
from seewhy.scale.inputs import ShardError, find_input
from seewhy.scale.job import Job, Survey, claim
from seewhy.scale.work import Embed
from seewhy.types import Failure
from simulated_work import Simulated, make_pictures, rows
from tiny import picture, tiny_cnn

SHOWN = [picture("moss", 0), picture("sky", 1), picture("rust", 2)]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked for as an encoder; it is a small one."""
    told: list[Any] = []
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda *given, **how: told.append((given, how)) or tiny_cnn())
    return told


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_kept_is_the_pooled_vector_or_its_direction_among_words(dtype: Any, named: list[Any]) -> None:
    on = tiny_cnn()
    with torch.no_grad():
        pooled = on.encode(on.pixels([read_picture(one, on.transform).pixels for one in SHOWN])).pooled
        words = normalize(on.text.project(pooled), dim=1)
    for space, expected in (("features", pooled), ("words", words)):
        opened = Embed("net", "torch", space, dtype).open()  # type: ignore[arg-type]
        found = [row for row in opened.results(iter(SHOWN)) if not isinstance(row, Failure)]
        assert {row["embedding"].dtype for row in found} == {np.dtype(dtype)}
        np.testing.assert_allclose(np.stack([row["embedding"] for row in found]), expected, atol=2e-3)
        kind = pa.float16() if dtype == "float16" else pa.float32()
        assert opened.model.columns == (("digest", pa.string()), ("embedding", pa.list_(kind, expected.shape[1])))
    assert named == [(("net",), {"engine": "torch"})] * 2


def test_what_rows_hang_on(named: list[Any]) -> None:
    on = tiny_cnn()
    told = Embed("net", space="words", dtype="float16").open().model.identity
    assert told == {
        "encoder": "tiny", "fingerprint": on.fingerprint, "precision": on.engine.precision, "space": "words",
        "dtype": "float16",
    }  # fmt: skip


def test_pictures_are_looked_at_in_batches_of_the_size_that_was_given(
    named: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(
        "seewhy.encoders.stream.encode_stream", lambda _on, _sources, batch_size: sizes.append(batch_size) or iter(())
    )
    with pytest.raises(StopIteration):  # it asks for the vector of one picture, to know its width
        Embed("net", batch_size=5).open()
    assert sizes == [5]


def test_a_space_that_is_none_is_told() -> None:
    with pytest.raises(InputError, match="`space` of Embed must be"):
        Embed(space="pixels")  # type: ignore[arg-type]


class Pipe:
    """What the first process says, and what is said to it."""

    def __init__(self, *says: Any) -> None:
        self.says, self.heard = list(says), []

    def recv(self) -> Any:
        if not self.says:
            raise EOFError
        return self.says.pop(0)

    def send(self, said: Any) -> None:
        self.heard.append(said)


@pytest.fixture(autouse=True)
def bound(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    told: list[int] = []
    monkeypatch.setattr(runs, "bound_threads", told.append)
    return told


def job_of(tmp_path: Path) -> tuple[Job, list[Any]]:
    make_pictures(tmp_path / "photos", 4)
    given = find_input(tmp_path / "photos", per_shard=2)
    job = claim(tmp_path / "out", "embed", Survey.of(given), Simulated().open().model)
    return job, list(given.shards())


def test_a_process_does_shards_until_there_are_no_more(tmp_path: Path, bound: list[int]) -> None:
    job, shards = job_of(tmp_path)
    pipe: Any = Pipe((Simulated(), 3), *((job, shard) for shard in shards))
    runs.serve(pipe)
    assert bound == [3]
    assert pipe.heard[0] == Simulated().open().model
    assert [written.n for written in pipe.heard[1:]] == [2, 2]
    assert len(rows(tmp_path / "out")) == 4


def test_a_process_goes_on_after_a_shard_that_cannot_be_read_and_ends_with_the_first(tmp_path: Path) -> None:
    job, shards = job_of(tmp_path)
    (tmp_path / "photos").rename(tmp_path / "away")
    pipe: Any = Pipe((Simulated(), 1), *((job, shard) for shard in shards))
    runs.serve(pipe)
    assert [type(answer) for answer in pipe.heard[1:]] == [ShardError, ShardError]
    assert str(pipe.heard[1]).endswith("photos no longer exists. Restore it.")


def test_a_process_that_cannot_open_the_model_says_why() -> None:
    pipe: Any = Pipe((Simulated(refuses="There is none."), 1))
    runs.serve(pipe)
    assert list(map(str, pipe.heard)) == ["There is none."]


@pytest.mark.parametrize(("code", "how"), [(-9, "was killed by signal 9"), (3, "ended with code 3")])
def test_how_a_process_died_is_said(code: int, how: str) -> None:
    dead: Any = object.__new__(runs.LocalProcess)
    dead._pipe, dead._process = Pipe(), SimpleNamespace(wait=lambda: code)
    with pytest.raises(
        runs.Died,
        match=(
            rf"A process {how} while it loaded the model, often because memory ran out\. Run the "
            r"same command again with fewer --workers\."
        ),
    ):
        dead.model()
