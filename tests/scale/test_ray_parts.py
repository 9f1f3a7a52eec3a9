"""What runs on Ray, without Ray: what an actor says of a shard, what is made of it, and who decodes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seewhy.cli.scale_options import Spread
from seewhy.errors import ImageError, ModelError
from seewhy.scale import on_ray
from seewhy.scale.inputs import Shard, ShardError, find_input
from seewhy.scale.job import Job, Survey, Written, claim
from seewhy.scale.on_ray import Begun, Cluster, Decoded, OnRay, decoded
from simulated_work import TRANSFORM, Simulated, make_pictures, rows

WORK = Simulated()
OUTSIDE = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    make_pictures(tmp_path / "photos", 6, broken=(1,))
    return list(find_input(tmp_path / "photos", per_shard=2).shards())


@pytest.fixture
def job(tmp_path: Path, shards: list[Shard]) -> Job:
    return claim(
        tmp_path / "out", "embed", Survey.of(find_input(tmp_path / "photos", per_shard=2)), WORK.open().model()
    )


def actor(job: Job, cluster: Cluster | None = None, work: Simulated = WORK, times: int = 1) -> Any:
    made: Any = on_ray._Actor(work, job, cluster or Cluster("auto"), {}, None)
    made._times = lambda _shard: times
    return made


@pytest.fixture(autouse=True)
def bound(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads were asked for."""
    told: list[int] = []
    monkeypatch.setattr(on_ray, "bound_threads", told.append)
    return told


def test_an_actor_does_a_shard_and_says_what_came_of_it(
    shards: list[Shard], job: Job, tmp_path: Path, bound: list[int]
) -> None:
    told = actor(job, Cluster("auto", threads=3))({"shard": [shards[0]]})
    assert bound == [3]
    ((image, error),) = told.pop("first")[0]
    assert (image, "damaged" in error) == ("0/1.png", True)
    assert told == {"index": [0], "n": [2], "n_failed": [1], "error": [""]}
    assert [row["image"] for row in rows(tmp_path / "out")] == ["0/0.png", "0/1.png"]


def test_a_shard_that_cannot_be_read_is_told_and_nothing_written(shards: list[Shard], job: Job, tmp_path: Path) -> None:
    doing = actor(job)
    (tmp_path / "photos").rename(tmp_path / "away")
    told = doing({"shard": [shards[1]]})
    assert (told["index"], told["n"]) == ([1], [0])
    assert told["error"][0].endswith("photos is gone. The folder of the pictures was expected. Bring it back.")
    assert rows(tmp_path / "out") == []


@pytest.mark.parametrize(("times", "done"), [(1, True), (3, True), (4, False)])
def test_a_shard_is_begun_three_times_at_most(
    times: int, done: bool, shards: list[Shard], job: Job, tmp_path: Path
) -> None:
    told = actor(job, times=times)({"shard": [shards[2]]})
    assert (told["error"] == [""]) is done
    assert len(rows(tmp_path / "out")) == (2 if done else 0)
    if not done:
        assert told["error"][0].startswith("Every one of 3 actors that did pictures 5 to 6 died.")


def test_beginnings_are_counted_of_each_shard() -> None:
    begun = Begun()
    assert [begun.begin(i) for i in (0, 1, 0, 0, 1)] == [1, 1, 2, 3, 2]


def test_a_machine_with_another_model_stops(job: Job) -> None:
    with pytest.raises(
        ModelError, match=r"opened \{'encoder': 'other'\}, and the run is of \{'encoder': 'simulated'\}"
    ):
        actor(job, work=Simulated("other"))


def test_actors_of_this_machine_reach_what_it_reaches(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://own:3128")
    before = on_ray.proxies()
    with on_ray.no_way_out():
        assert os.environ["http_proxy"] == "http://127.0.0.1:9/"
    assert on_ray.proxies() == before
    with on_ray.no_way_out():
        assert [os.environ[name] for name in OUTSIDE] == ["http://127.0.0.1:9/"] * 4 + ["127.0.0.1,localhost"] * 2
        on_ray._Actor(WORK, job, Cluster("auto"), before, None)
        assert os.environ["http_proxy"] == "http://127.0.0.1:9/", "another machine's settings are its own"
        on_ray._Actor(WORK, job, Cluster("local"), before, None)
        assert on_ray.proxies() == before == {**dict.fromkeys(OUTSIDE), "http_proxy": "http://own:3128"}


class InOrder:
    """Ray's tasks, done when they are asked for; ``waiting`` is the most that waited at once."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    def remote(self, **_how: Any) -> Callable[..., Any]:
        def task(do: Callable[..., Any]) -> Any:
            def ask(*given: Any) -> Any:
                self.waiting += 1
                self.most = max(self.most, self.waiting)
                return lambda: do(*given)

            return SimpleNamespace(remote=ask)

        return task

    def get(self, reference: Any) -> Any:
        self.waiting -= 1
        return reference()


@pytest.mark.parametrize(("decoders", "workers", "ahead"), [(0, 2, 0), (1, 2, 1), (3, 2, 2), (4, 1, 3)])
def test_decoders_are_shared_by_actors_and_rows_stay_in_order(
    decoders: int, workers: int, ahead: int, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six pictures, two a piece, there are three pieces."""
    tasks = InOrder()
    monkeypatch.setitem(sys.modules, "ray", tasks)
    monkeypatch.setattr(on_ray, "PIECE", 2)
    given = find_input(tmp_path / "photos", per_shard=6)
    (shard,) = given.shards()
    whole = claim(tmp_path / "whole", "embed", Survey.of(given), WORK.open().model())
    told = actor(whole, Cluster("auto", workers, decoders=decoders))({"shard": [shard]})
    assert (told["n"], told["n_failed"], tasks.most) == ([6], [1], ahead)
    found = rows(tmp_path / "whole")
    assert [row["image"] for row in found] == [f"{i // 2}/{i}.png" for i in range(6)]
    assert "damaged" in found[1]["error"]
    assert Decoded(0, "x", shard, TRANSFORM, 1).digest == shard.digest


def test_a_picture_that_cannot_be_decoded_fails_as_it_did(tmp_path: Path) -> None:
    make_pictures(tmp_path, 2, broken=(0,))
    bad, good = decoded([str(tmp_path / "0" / "0.png"), str(tmp_path / "1" / "1.png")], TRANSFORM)
    assert on_ray._source(good) is good
    source = on_ray._source(bad)
    with pytest.raises(ImageError) as caught:
        source.load()
    assert (caught.value.path, caught.value.reason) == bad


def on_ray_with(told: Iterable[dict[str, Any]], error: type[Exception] = KeyError) -> Any:
    """OnRay whose actors say this."""
    made: Any = object.__new__(OnRay)
    pools: list[int] = []
    made._cluster = Cluster("auto", workers=5)
    made._ray = SimpleNamespace(
        exceptions=SimpleNamespace(RayError=error),
        data=SimpleNamespace(ActorPoolStrategy=lambda size, **_: pools.append(size)),
    )
    made._done = lambda shards, job, pool: SimpleNamespace(iter_rows=lambda: iter(told))
    made.pools = pools
    return made


def says(index: int, **more: Any) -> dict[str, Any]:
    return {"index": index, "n": 2, "n_failed": 0, "first": [], "error": "", **more}


def test_what_actors_say_is_told_once_of_every_shard(shards: list[Shard], job: Job) -> None:
    found = on_ray_with([says(2), says(0, n_failed=1, first=[["a", "b"]]), says(2), says(1, error="gone")])
    results = list(found.results(job, lambda: iter(shards)))
    assert [shard.index for shard, _ in results] == [2, 0, 1]
    assert [one for _, one in results[:2]] == [Written(2, 2, 0), Written(0, 2, 1, (("a", "b"),))]
    assert isinstance(results[2][1], ShardError)
    assert str(results[2][1]) == "gone"
    assert found.pools == [3], "no more actors than shards"


def test_shards_that_no_actor_speaks_of_are_left_out(shards: list[Shard], job: Job) -> None:
    results = list(on_ray_with([says(1)]).results(job, lambda: iter(shards)))
    assert [shard.index for shard, _ in results] == [1, 0, 2]
    assert all(str(one).startswith(f"The actors that did {shard.name} died, or") for shard, one in results[1:])  # type: ignore[attr-defined]
    assert list(on_ray_with([]).results(job, lambda: iter(()))) == []


def test_a_cluster_that_cannot_go_on_is_told_by_its_last_line(shards: list[Shard], job: Job) -> None:
    class Stops:
        def __iter__(self) -> Any:
            raise OSError("many\nlines\nno memory\n\n")

    with pytest.raises(ModelError, match=r"^The cluster cannot go on \(no memory\)\. Machines that open the same"):
        list(on_ray_with(Stops(), OSError).results(job, lambda: iter(shards)))


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
    monkeypatch.setattr("seewhy.threads.n_cores", lambda: 6)
    spread = Spread("1/1", 8, "image", 2, gpus=0.5, decoders=3, **how)
    assert spread.on() == Cluster(how["cluster"], 2, threads, 0.5, 3)
    assert Spread("1/1", 8, "image", 2, 8).on() is None
