"""What runs on Ray, without Ray: what an actor does, and what becomes of shards when actors die."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seewhy.cli.many import Spread
from seewhy.errors import ModelError, SeeWhyError
from seewhy.scale import on_ray
from seewhy.scale.inputs import Shard, ShardError, find_input
from seewhy.scale.job import Job, Survey, claim
from seewhy.scale.on_ray import Actor, Cluster, RemoteActor
from seewhy.scale.run import Died, Workers
from simulated_work import Simulated, make_pictures, rows

WORK = Simulated()
OUTSIDE = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    make_pictures(tmp_path / "photos", 6, broken=(1,))
    return list(find_input(tmp_path / "photos", per_shard=2).shards())


@pytest.fixture
def job(tmp_path: Path, shards: list[Shard]) -> Job:
    survey = Survey.of(find_input(tmp_path / "photos", per_shard=2))
    return claim(tmp_path / "out", "embed", survey, WORK.open().model)


class Here:
    """A worker of this process, which dies as often as it is told."""

    def __init__(self, deaths: list[str]) -> None:
        self.deaths, self.actor = deaths, Actor(WORK, 1, {})

    def model(self) -> Any:
        return self._or_die("model", self.actor.model)

    def do(self, job: Job, shard: Shard) -> Any:
        return self._or_die(str(shard.index), lambda: self.actor.do(job, shard))

    def _or_die(self, what: str, do: Callable[[], Any]) -> Any:
        if what in self.deaths:
            self.deaths.remove(what)
            raise Died(what)
        return do()

    def end(self) -> None: ...


def results(deaths: list[str], job: Job, shards: list[Shard], n: int = 2) -> dict[int, Any]:
    to_come = list(deaths)
    deaths.clear()
    with Workers(lambda: Here(deaths), n) as workers:
        workers.model()
        deaths += to_come
        return {shard.index: result for shard, result in workers.results(job, lambda: iter(shards))}


def test_actors_write_what_one_process_writes(shards: list[Shard], job: Job, tmp_path: Path) -> None:
    told = results(["1"], job, shards)
    assert {index: (one.n, one.n_failed) for index, one in told.items()} == {0: (2, 1), 1: (2, 0), 2: (2, 0)}
    assert [row["image"] for row in rows(tmp_path / "out")] == [f"{i // 2}/{i}.png" for i in range(6)]


def test_a_shard_of_which_two_die_is_left_out(shards: list[Shard], job: Job) -> None:
    told = results(["1", "1"], job, shards)
    assert isinstance(told.pop(1), ShardError)
    assert [written.n for written in told.values()] == [2, 2]


def test_those_that_live_go_on_and_the_last_one_stops_the_run(shards: list[Shard], job: Job) -> None:
    assert len(results(["0", "model"], job, shards)) == 3, "the first dies, and no other has place"
    with pytest.raises(Died, match=r"^model$"):
        results(["0", "model"], job, shards[:1], n=1)


def test_a_shard_that_cannot_be_read_is_told_and_nothing_written(shards: list[Shard], job: Job, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "away")
    error = results([], job, shards[1:2])[1]
    assert str(error).endswith("photos no longer exists. Restore it.")
    assert rows(tmp_path / "out") == []


def test_what_cannot_be_written_stops_the_run(shards: list[Shard], job: Job, tmp_path: Path) -> None:
    (tmp_path / "out").rename(tmp_path / "away")
    (tmp_path / "out").touch()
    with pytest.raises(SeeWhyError, match="could not be written"):
        results([], job, shards)


def remote(answer: Callable[[], Any]) -> Any:
    made: Any = object.__new__(RemoteActor)
    errors = SimpleNamespace(RayError=KeyError)
    made._ray = SimpleNamespace(exceptions=errors, get=lambda reference, timeout: answer())
    made._actor = SimpleNamespace(do=SimpleNamespace(remote=lambda *asked: asked))
    return made


def test_what_an_actor_raised_is_told_and_what_ended_it(shards: list[Shard], job: Job) -> None:
    def fail(error: Exception) -> Any:
        raise error

    with pytest.raises(
        Died, match=r"^A Ray actor died while it did this shard \((.|\n)*killed.*\)\. Look for memory errors"
    ):
        remote(lambda: fail(KeyError("it was\nkilled"))).do(job, shards[0])
    told = KeyError()
    told.cause = ModelError("There is no place to look from.")  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"^There is no place to look from\.$"):
        remote(lambda: fail(told)).do(job, shards[0])


def test_actors_on_this_machine_reach_what_it_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://own:3128")
    before = on_ray.proxies()
    with on_ray.no_way_out:
        assert [os.environ[name] for name in OUTSIDE] == ["http://127.0.0.1:9/"] * 4 + ["127.0.0.1,localhost"] * 2
        Actor(WORK, 1, {})
        assert os.environ["http_proxy"] == "http://127.0.0.1:9/", "another machine's settings are its own"
        Actor(WORK, 1, before)
        assert on_ray.proxies() == before == {**dict.fromkeys(OUTSIDE), "http_proxy": "http://own:3128"}
    assert on_ray.proxies() == before


@pytest.mark.parametrize(
    ("how", "threads"),
    [
        ({"cluster": "local", "threads": 8}, 4), ({"cluster": "local", "threads": None}, 3),
        ({"cluster": "auto", "threads": 8}, 8), ({"cluster": "auto", "threads": None}, 1),
        ({"cluster": "local", "threads": 1}, 1),
    ],
)  # fmt: skip
def test_threads_of_each_actor(how: dict[str, Any], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--threads`` are of this machine with ``local``, which its actors share, and of each actor elsewhere."""
    monkeypatch.setattr("seewhy.cli.many.n_cores", lambda: 6)
    spread = Spread(8, how["threads"], gpus=0.5)
    assert spread.cluster(how["cluster"], 2) == Cluster(how["cluster"], 2, threads, 0.5)
    assert Spread(8, 8).cluster(None, 2) is None
