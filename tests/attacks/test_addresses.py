"""The name of a place in object storage: written to and read where a verb says so, and no folder called ``s3:``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer.main

from seewhy.cli import app, main
from seewhy.errors import DataError
from seewhy.storage.cache import address_of, cache_dir
from seewhy.storage.features import FeatureStore
from seewhy.storage.folders import new_folder
from seewhy.storage.output import check_file, check_folder, make_folder, write
from simulated_work import make_pictures

TAKE_ADDRESSES = {
    ("index", "output"),
    ("index", "status"),
    ("index", "verify"),
    ("predict", "output"),
    ("explain", "output"),
    ("index", "data"),
}


def commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def names_of_files(command: Any) -> Iterator[Any]:
    """Parameters of a verb that are names of files or folders."""
    yield from (p for p in command.params if "Path" in str(p.type_descriptor.annotation))


def test_every_verb_refuses_addresses_but_where_its_help_names_them() -> None:
    taken, refused = set(), set()
    for verb, command in commands(typer.main.get_command(app)):
        for parameter in names_of_files(command):
            context: Any = SimpleNamespace(params={parameter.name: Path("s3://bucket/x")})
            if "ADDRESS" in (parameter.metavar or ""):
                taken.add((verb, parameter.name))
                continue
            refused.add(verb)
            for value in (Path("s3://bucket/x"), [Path("a"), Path("s3://bucket/x")]):
                context.params[parameter.name] = value
                with pytest.raises(
                    DataError,
                    match=(
                        r"s3://bucket/x is an address, but a local file or folder is required\. Only predict, "
                        r"explain and index with --parquet write to object storage\."
                    ),
                ):
                    command.invoke(context)
    assert taken == TAKE_ADDRESSES
    assert len(refused) >= 18


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            "fit photos -o s3://bucket/model",
            (
                "s3://bucket/model is an address, but a local file or folder is required. Only "
                "predict, explain and index with --parquet write to object storage."
            ),
        ),
        (
            "fit s3://bucket/photos -o model",
            (
                "s3://bucket/photos is an address, but a local file or folder is required. Only "
                "predict, explain and index with --parquet write to object storage."
            ),
        ),
        ("index photos -o gs://bucket/library", "gs://bucket/library is an address, but a local"),
        ("predict photos --labels a,b -o s3://bucket/a.csv", "s3://bucket/a.csv is an address, but a local"),
        ("explain photos --labels a,b -o s3://bucket/cards", "s3://bucket/cards is an address, but a local"),
        ("explain photos --labels a,b --store S3://bucket/a.sqlite", "s3://bucket/a.sqlite is an address, but a local"),
        (
            "index photos --parquet -o sftp://host/a",
            "sftp://host/a has no atomic writes. Give a folder, or an address that begins with",
        ),
        (
            "index photos --parquet -o memory://nowhere/a",
            "memory://nowhere/a cannot be written: the bucket nowhere does not exist.",
        ),
        ("index --status memory://nowhere/a", "memory://nowhere/a has no _manifest.json."),
        ("index memory://nowhere/a -o library", "memory://nowhere/a has no _manifest.json."),
        (
            "predict photos --labels a,b --parquet -o memory://nowhere/a",
            "memory://nowhere/a cannot be written: the bucket",
        ),
    ],
)
def test_an_address_makes_no_folder(
    arguments: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fsspec")
    make_pictures(tmp_path / "photos", 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["seewhy", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1), said
    assert said.startswith(f"seewhy: {says}")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_picture_by_its_address_is_told_what_reads_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["seewhy", "predict", "s3://bucket/a.jpg", "--labels", "a,b"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "is an address, which only --parquet reads; copy the picture to this machine" in said


def test_python_makes_no_folder_of_an_address_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s3://bucket/x.json", Path("s3://bucket/x.json"), "GS://bucket/x.json"):
        monkeypatch.setenv("SEEWHY_CACHE", str(name))
        doors: tuple[Callable[[], object], ...] = (
            lambda: check_file(name),  # noqa: B023
            lambda: check_folder(Path(name)),  # noqa: B023
            lambda: make_folder(name),  # noqa: B023
            lambda: write(name, "{}"),  # noqa: B023
            lambda: FeatureStore(str(name)),  # noqa: B023
            lambda: cache_dir("looked"),
            lambda: new_folder(Path(name)).__enter__(),  # noqa: B023
            lambda: new_folder(Path(name), bool).__enter__(),  # noqa: B023
        )
        for door in doors:
            with pytest.raises(DataError, match=r"^(s3|gs)://bucket/x\.json is an address, but a local"):
                door()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["c:/photos", "photos", "a/s3://b", "/s3:/b", "s3:b", "12:/30", "./a:/b", "s3://"])
def test_what_is_no_address_is_a_name(name: str) -> None:
    assert address_of(name) is None


@pytest.mark.parametrize("name", ["file:store.sqlite", "file:store.sqlite?mode=memory", ":memory:"])
def test_a_database_lies_under_the_name_it_was_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    FeatureStore(name).close()
    FeatureStore(Path(name)).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
