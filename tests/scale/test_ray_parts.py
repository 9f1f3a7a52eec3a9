"""What runs on Ray, without Ray: its stages, and what is made of what the last one says."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seewhy.cli.many import Spread
from seewhy.errors import ModelError
from seewhy.scale import on_ray
from seewhy.scale.inputs import Shard, ShardError, find_input
from seewhy.scale.job import Job, Survey, Written, claim
from seewhy.scale.on_ray import Cluster, OnRay, decode, write
from simulated_work import TRANSFORM, Simulated, make_pictures, rows

WORK = Simulated()
MODEL = WORK.open().model()
OUTSIDE = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    make_pictures(tmp_path / "photos", 6, broken=(1,))
    return list(find_input(tmp_path / "photos", per_shard=2).shards())


@pytest.fixture
def job(tmp_path: Path, shards: list[Shard]) -> Job:
    return claim(tmp_path / "out", "embed", Survey.of(find_input(tmp_path / "photos", per_shard=2)), MODEL)


def stages(shard: Shard, job: Job, *, decoders: int = 0, work: Simulated = WORK, threads: int = 1) -> dict[str, Any]:
    """What the last stage gives of a shard; between two it travels as Ray has it travel."""
    batch: dict[str, Any] = {"shard": [shard]}
    if decoders:
        batch = carried(decode(batch, TRANSFORM, {}))
    batch = carried(on_ray._Engine(work, MODEL, threads, {})(batch))
    return write(batch, job, MODEL, {})


def files(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("*.parquet")}


def carried(batch: dict[str, Any]) -> dict[str, Any]:
    return pickle.loads(pickle.dumps(batch))


@pytest.fixture(autouse=True)
def bound(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads were asked for."""
    told: list[int] = []
    monkeypatch.setattr(on_ray, "bound_threads", told.append)
    return told


@pytest.mark.parametrize("decoders", [0, 2])
def test_the_stages_write_what_one_process_writes(
    decoders: int, shards: list[Shard], job: Job, tmp_path: Path, bound: list[int]
) -> None:
    alone = claim(tmp_path / "alone", "embed", Survey.of(find_input(tmp_path / "photos", per_shard=2)), MODEL)
    for shard in shards:
        written = alone.write(shard, WORK.open())
        assert stages(shard, job, decoders=decoders, threads=3) == {"index": [shard.index], "result": [written]}
    assert files(tmp_path / "out") == files(tmp_path / "alone")
    assert bound == [3, 3, 3]
    found = rows(tmp_path / "out")
    assert [row["image"] for row in found] == [f"{i // 2}/{i}.png" for i in range(6)]
    assert [("damaged" in (row["error"] or "")) for row in found] == [False, True, False, False, False, False]


@pytest.mark.parametrize("decoders", [0, 2])
def test_a_shard_that_cannot_be_read_is_told_and_nothing_written(
    decoders: int, shards: list[Shard], job: Job, tmp_path: Path
) -> None:
    (tmp_path / "photos").rename(tmp_path / "away")
    told = stages(shards[1], job, decoders=decoders)
    (error,) = told["result"]
    assert told["index"] == [1]
    assert isinstance(error, ShardError)
    assert str(error).endswith("photos is gone. The folder of the pictures was expected. Bring it back.")
    assert rows(tmp_path / "out") == []


def test_a_shard_that_cannot_be_written_is_told(shards: list[Shard], job: Job, tmp_path: Path) -> None:
    (tmp_path / "out").rename(tmp_path / "away")
    (tmp_path / "out").touch()
    (error,) = stages(shards[0], job)["result"]
    assert isinstance(error, ShardError)
    assert "could not be written" in str(error)


def test_a_stage_done_again_changes_nothing(shards: list[Shard], job: Job, tmp_path: Path) -> None:
    """As Ray does it where a machine died after it had written, and before it said so."""
    first = stages(shards[0], job)
    before = files(tmp_path / "out")
    assert stages(shards[0], job) == first
    assert files(tmp_path / "out") == before


def test_a_shard_underway_is_the_same_shard(shards: list[Shard]) -> None:
    (decoded,) = carried(decode({"shard": [shards[2]]}, TRANSFORM, {}))["shard"]
    (known,) = carried(on_ray._Engine(WORK, MODEL, 1, {})({"shard": [decoded]}))["shard"]
    for one in (decoded, known):
        assert [getattr(one, f.name) for f in fields(Shard)] == [getattr(shards[2], f.name) for f in fields(Shard)]
        assert (one.digest, one.shard) == (shards[2].digest, shards[2]), "and holds no earlier stage"
    assert [item.name for item in known.items()] == [item.name for item in shards[2].items()]


def test_names_stay_with_their_pictures_where_the_model_reads_ahead(shards: list[Shard]) -> None:
    engine = on_ray._Engine(WORK, MODEL, 1, {})
    opened = engine._opened
    engine._opened = SimpleNamespace(results=lambda sources: opened.results(iter(list(sources))))  # type: ignore[assignment]
    (known,) = engine({"shard": shards[2:]})["shard"]
    (right,) = on_ray._Engine(WORK, MODEL, 1, {})({"shard": shards[2:]})["shard"]
    assert [(item.name, item.source["digest"]) for item in known.held] == [
        (item.name, item.source["digest"]) for item in right.held
    ]


def test_a_machine_with_another_model_stops() -> None:
    with pytest.raises(
        ModelError, match=r"opened \{'encoder': 'other'\}, and the run is of \{'encoder': 'simulated'\}"
    ):
        on_ray._Engine(Simulated("other"), MODEL, 1, {})


def test_stages_on_this_machine_reach_what_it_reaches(
    shards: list[Shard], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://own:3128")
    before = on_ray.proxies()
    (known,) = on_ray._Engine(WORK, MODEL, 1, {})({"shard": shards[:1]})["shard"]
    for stage in (
        lambda outside: decode({"shard": shards[:1]}, TRANSFORM, outside),
        lambda outside: on_ray._Engine(WORK, MODEL, 1, outside),
        lambda outside: write({"shard": [known]}, job, MODEL, outside),
    ):
        with on_ray.no_way_out():
            assert [os.environ[name] for name in OUTSIDE] == ["http://127.0.0.1:9/"] * 4 + ["127.0.0.1,localhost"] * 2
            stage({})
            assert os.environ["http_proxy"] == "http://127.0.0.1:9/", "another machine's settings are its own"
            stage(before)
            assert on_ray.proxies() == before == {**dict.fromkeys(OUTSIDE), "http_proxy": "http://own:3128"}
        assert on_ray.proxies() == before


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited."""
    waited: list[float] = []
    monkeypatch.setattr(on_ray.time, "sleep", waited.append)
    return waited


def on_ray_with(
    *told: Iterable[dict[str, Any]], error: type[Exception] = KeyError, address: str = "auto", alive: Any = ()
) -> Any:
    """OnRay whose data sets give this, one after another; what each was asked is kept."""
    made: Any = object.__new__(OnRay)
    machines = iter(alive)

    def nodes() -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": name.islower()} for name in next(machines, "")]

    made._ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=error), nodes=nodes)
    made._cluster = Cluster(address)
    made.asked, left = [], iter(told)

    def data(shards: list[Shard], _job: Job) -> Any:
        made.asked.append([shard.index for shard in shards])
        rows = next(left)
        return SimpleNamespace(iter_rows=lambda: iter(rows))

    made._stages = data
    return made


def says(index: int) -> dict[str, Any]:
    return {"index": index, "result": Written(index, 2, 0)}


def test_what_is_done_is_told_once_of_every_shard(shards: list[Shard], job: Job) -> None:
    gone = ShardError("gone")
    found = on_ray_with([says(2), says(0), says(2), {"index": 1, "result": gone}])
    results = [(shard.index, one) for shard, one in found.results(job, lambda: iter(shards))]
    assert results == [(2, Written(2, 2, 0)), (0, Written(0, 2, 0)), (1, gone)]
    assert found.asked == [[0, 1, 2]]


def test_what_died_with_a_machine_is_done_by_another_data_set(shards: list[Shard], job: Job) -> None:
    found = on_ray_with([says(1)], [says(2)], [says(0)])
    results = [(shard.index, one) for shard, one in found.results(job, lambda: iter(shards))]
    assert results == [(i, Written(i, 2, 0)) for i in (1, 2, 0)]
    assert found.asked == [[0, 1, 2], [0, 2], [0]]


@pytest.mark.parametrize(("address", "tries"), [("auto", 3), ("local", 1)])
def test_shards_of_which_every_process_dies_are_left_out(
    address: str, tries: int, shards: list[Shard], job: Job, pauses: list[float]
) -> None:
    """On a cluster once Ray has had the time to know which machines died; on one machine at once."""
    found = on_ray_with([says(1)], [], [], [], address=address)
    results = list(found.results(job, lambda: iter(shards)))
    assert [shard.index for shard, _ in results] == [1, 0, 2]
    assert found.asked == [[0, 1, 2], *[[0, 2]] * tries]
    assert pauses == [0, *[0, 20, 20][:tries]]
    for shard, one in results[1:]:
        assert isinstance(one, ShardError)
        assert str(one) == (
            f"The processes that did {shard.name} died, at every try, or could not open their model. Ones that live "
            "were expected. Look at Ray's logs for memory, and run the same command again."
        )
    assert list(on_ray_with().results(job, lambda: iter(()))) == []


def test_data_sets_that_bring_nothing_while_machines_die_are_followed_by_others(
    shards: list[Shard], job: Job, pauses: list[float]
) -> None:
    def dies(*done: int) -> Iterator[dict[str, Any]]:
        yield from map(says, done)
        raise OSError("lost")

    found = on_ray_with([], [], dies(2), [], dies(), dies(0, 1), error=OSError)
    results = [(shard.index, one) for shard, one in found.results(job, lambda: iter(shards))]
    assert results == [(i, Written(i, 2, 0)) for i in (2, 0, 1)]
    assert found.asked == [[0, 1, 2]] * 3 + [[0, 1]] * 3
    assert pauses == [0, 20, 20, 0, 20, 20]


@pytest.mark.parametrize(
    ("alive", "asked"), [(["ab", "ab", "aB"], [[0, 1, 2], [1, 2]]), (["a", "ab", "ab"], [[0, 1, 2]])]
)
def test_a_data_set_that_waits_for_a_machine_that_died_is_ended(
    alive: list[str], asked: list[list[int]], shards: list[Shard], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that takes its time is not."""
    monkeypatch.setattr(on_ray, "PATIENCE", 0.05)
    ended = threading.Event()
    done: list[str] = []

    def stuck() -> Any:
        yield says(0)
        ended.wait(1 if len(asked) == 1 else 10)
        yield from () if ended.is_set() else (says(1), says(2))

    found = on_ray_with(stuck(), [says(2), says(1)], alive=[*alive, *["ab"] * 99])
    found._ray.shutdown = ended.set
    found._connect = lambda: done.append("connected")
    results = {shard.index: one for shard, one in found.results(job, lambda: iter(shards))}
    assert results == {i: Written(i, 2, 0) for i in range(3)}
    assert found.asked == asked
    assert done == ["connected"] * (len(asked) - 1)


def test_what_ray_says_of_deaths_is_no_part_of_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    made = on_ray_with()
    made._ray.shutdown = lambda: print("down")
    with made:
        print("an actor died")
    print("{}")
    assert capsys.readouterr() == ("{}\n", "an actor died\ndown\n")


@pytest.mark.parametrize(
    ("decoders", "transform", "names"),
    [
        (0, TRANSFORM, ["_Engine", "write"]),
        (4, None, ["_Engine", "write"]),
        (4, TRANSFORM, ["decode", "_Engine", "write"]),
    ],
)
def test_stages_of_ray_data(
    decoders: int, transform: Any, names: list[str], shards: list[Shard], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks need no core, as actors may hold all there are; all are tried three times, and a shard is a block."""
    asked: list[dict[str, Any]] = []

    class Data(SimpleNamespace):
        def map_batches(self, do: Any, **how: Any) -> Data:
            asked.append({"name": getattr(do, "func", do).__name__, **how})
            return self

    def from_items(items: list[Any], *, override_num_blocks: int) -> Data:
        assert (items, override_num_blocks) == ([{"shard": shard} for shard in shards], 3)
        return Data()

    made: Any = object.__new__(OnRay)
    made._work, made._model, made._transform = WORK, MODEL, transform
    made._cluster = Cluster("auto", 5, 2, 0.5, decoders)
    made._ray = SimpleNamespace(
        data=SimpleNamespace(
            from_items=from_items, TaskPoolStrategy=lambda size: ("tasks", size), ActorPoolStrategy=lambda **how: how
        )
    )
    made._stages(shards, job)
    assert [one.pop("name") for one in asked] == names
    task = {"batch_size": 1, "num_cpus": 0, "max_retries": 2}
    assert asked.pop() == task
    assert asked.pop() == {
        "fn_constructor_args": (WORK, MODEL, 2, {}), "batch_size": 1, "num_cpus": 2, "num_gpus": 0.5,
        "compute": {"size": 3, "max_tasks_in_flight_per_actor": 1}, "max_task_retries": 2,
    }  # fmt: skip
    assert asked in ([], [{**task, "compute": ("tasks", 4)}])


def test_a_cluster_that_cannot_go_on_is_told_by_its_last_line(shards: list[Shard], job: Job) -> None:
    class Stops:
        def __iter__(self) -> Any:
            raise OSError("many\nlines\nno memory\n\n")

    with pytest.raises(ModelError, match=r"^The cluster cannot go on \(no memory\)\. Machines that open the same"):
        list(on_ray_with(*[Stops()] * 3, error=OSError).results(job, lambda: iter(shards)))


@pytest.mark.parametrize(
    ("cause", "kind", "told"),
    [
        (ModelError("no such encoder"), ModelError, "no such encoder"),
        (ValueError(), ModelError, "The cluster cannot go on"),
    ],
)
def test_a_model_that_no_machine_opens_is_told(cause: Exception, kind: type[Exception], told: str) -> None:
    class Failed(Exception):
        pass

    def get(_reference: object) -> None:
        error = Failed("a traceback\nof many lines")
        error.cause = cause  # type: ignore[attr-defined]
        raise error

    made: Any = object.__new__(OnRay)
    made._work, made._cluster = WORK, Cluster()
    opening = SimpleNamespace(remote=lambda *_: None)
    made._ray = SimpleNamespace(
        get=get, remote=lambda **_: lambda _: opening, exceptions=SimpleNamespace(RayError=Failed)
    )
    with pytest.raises(kind, match=f"^{told}"):
        made.model()


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
    spread = Spread(8, how["threads"], gpus=0.5, decoders=3)
    assert spread.cluster(how["cluster"], 2) == Cluster(how["cluster"], 2, threads, 0.5, 3)
    assert Spread(8, 8).cluster(None, 2) is None
