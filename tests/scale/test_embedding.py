"""``seewhy index --parquet`` with a real encoder: the vectors are those of the encoder; what is there is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import seewhy
from seewhy.cli import app
from seewhy.encoders.stream import encode_stream
from seewhy.errors import InputError
from seewhy.scale.work import Embed
from seewhy.threads import bound_threads
from simulated_work import make_pictures, rows


def invoke(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["index", *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.mark.slow
def test_vectors_are_the_encoders(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    names = make_pictures(photos, 7, broken=(2,))
    asked = [str(photos), "-o", str(tmp_path / "out"), "--parquet", "--set", "per_shard=3", "--set", "threads=1"]
    asked += ["--json", "--quiet"]
    told = json.loads(invoke(*asked, "--shard", "1/2"))
    assert (told["n_shards"], told["n_part"], told["done"], told["failed"]) == (3, 2, 2, 1)
    found = json.loads(invoke("--status", str(tmp_path / "out"), "--json", code=1))
    assert (found["missing"], found["rows"], found["model"]["encoder"]) == (["1"], 4, "lite0")
    assert "2 of 3 shards" in invoke("--status", str(tmp_path / "out"), code=1)
    invoke(*asked)
    assert invoke("--status", str(tmp_path / "out")) == f"{tmp_path / 'out'}: 3 of 3 shards, 7 rows, 1 not readable\n"
    encoder = seewhy.encoder("lite0")
    seen = list(encode_stream(encoder, [str(photos / n) for n in names]))
    for one, row in zip(seen, rows(tmp_path / "out"), strict=True):
        if row["error"] is None:
            np.testing.assert_allclose(row["embedding"], one.pooled[0].numpy(), atol=1e-6)
    words = Embed(space="words", dtype="float16").open()
    made = next(words.results(iter([str(photos / names[0])])))
    assert made["embedding"].dtype == np.float16
    assert abs(np.linalg.norm(made["embedding"].astype(np.float32)) - 1) < 1e-3


def test_what_is_missing_is_told() -> None:
    with pytest.raises(InputError, match="`dtype` of Embed must be"):
        Embed(dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"The number of threads must be at least 1, got 0\."):
        bound_threads(0)
