"""A Ray cluster by an address from outside of it: one sentence, exit code 2, and nothing is begun."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from seewhy.cli import main
from seewhy.errors import InputError
from seewhy.scale.on_ray import Cluster, on_ray
from simulated_work import Simulated


def sentence(address: str) -> str:
    return (
        "--cluster must be local, auto, or HOST:PORT of a cluster that this machine belongs "
        f"to, got {address}. For a remote cluster, use: ray job submit --address "
        "http://HOST:8265 -- seewhy … --cluster auto."
    )


OUTSIDE = (
    "ray://head:10001",
    "ray://127.0.0.1:1",
    "RAY://head:10001",
    "http://head:8265",
    "anyscale://x",
    "head",
    "",
    "a b:1",
)


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_from_outside_is_refused_before_ray_is_loaded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.scale.on_ray.ray", lambda: pytest.fail("Ray was loaded"))
    with pytest.raises(InputError) as caught:
        on_ray(Simulated(), Cluster(address)).__enter__()
    assert str(caught.value) == sentence(address)


def test_so_is_one_that_the_environment_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(InputError) as caught:
        on_ray(Simulated(), Cluster("auto")).__enter__()
    assert str(caught.value) == sentence("ray://head:10001")
    assert Cluster("local").reached() == "local", "this machine is no cluster of the environment's"


@pytest.mark.parametrize("address", ["local", "auto", "head:6379", "10.0.0.1:6379"])
def test_addresses_from_inside_are_taken(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert Cluster(address).reached() == address


def test_the_command_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (9, 8)).save(tmp_path / "photos" / "0.png")
    words = [
        "index",
        "--parquet",
        str(tmp_path / "photos"),
        "-o",
        str(tmp_path / "out"),
        "--cluster",
        "ray://127.0.0.1:10001",
    ]
    monkeypatch.setattr(sys, "argv", ["seewhy", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert ("For a remote cluster, use: ray job submit --address http://HOST:8265 -- seewhy … --cluster auto.") in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()
