"""Samples from folders and tables, what is refused and in which words, and honest splits."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seewhy.errors import DataError, InputError
from seewhy.pictures.samples import Sample, load_pictures, load_samples, split, under_two_classes

KINDS = "'image' and 'label'"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def refused(source: Path, **columns: str) -> str:
    with pytest.raises(DataError) as caught:
        load_samples(source, **columns)
    return str(caught.value)


def test_folders_in_natural_order(tmp_path: Path) -> None:
    root = touch(tmp_path, "b10/1.jpg", "b2/10.jpg", "b2/9.PNG", "b2/deep/a.webp", "b10/2.jpg", ".hidden/x.jpg")
    touch(root, "b2/notes.txt", "b2/.secret.jpg")
    found = load_samples(root)
    assert found.classes == ("b2", "b10")
    assert [Path(s.image).name for s in found.items] == ["9.PNG", "10.jpg", "a.webp", "1.jpg", "2.jpg"]
    assert [s.label for s in found.items] == ["b2"] * 3 + ["b10"] * 2
    assert found.notes == ()
    assert len(found) == 5


def test_what_a_user_should_know_is_noted(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "loose.png", "readme.md", "README")
    (root / "IM0001").write_bytes(bytes(128) + b"DICM")
    (root / "empty").mkdir()
    (root / "words only").mkdir()
    touch(root, "words only/a.txt")
    assert load_samples(root).notes == (
        "left out 2 folder(s) without pictures: empty, words only",
        f"left out 2 picture(s) directly in {root}, as they have no class",
        "1 class(es) have only one picture, which is never held out: b",
    )


def test_a_folder_that_cannot_be_listed_is_no_empty_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = touch(tmp_path, "bird/1.jpg", "bird/2.jpg", "bird/closed/3.jpg", "cat/1.jpg")
    closed, scandir = str(root / "bird" / "closed"), os.scandir

    def deny(path: Any) -> Any:
        if str(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    cure = "Allow reading it, or leave it out."
    assert refused(root) == f"The folder {closed} cannot be listed (Permission denied). {cure}"
    closed = str(root / "bird")
    assert refused(root) == f"The folder {closed} cannot be listed (Permission denied). {cure}"

    def deny_all(_: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", deny_all)
    assert refused(root) == f"The folder {root} cannot be listed (Permission denied). {cure}"


def test_a_class_whose_name_is_no_unicode(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"image": "1.jpg", "label": "caf\\udce9"}\n')
    assert refused(table) == "Class names must be UTF-8, got 'caf\\udce9'. Rename the class."


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    assert refused(tmp_path) == (f"{tmp_path} must have one subfolder per class, but it has no subfolders.")
    (tmp_path / "a").mkdir()
    assert refused(tmp_path) == (
        f"The subfolders of {tmp_path} have no pictures. Pictures end in .avif, .bmp, .dcm, "
        ".gif, .heic, .heif, .jpeg, .jpg, .png, .tif, .tiff, .webp. Add some, or give another "
        "folder."
    )


def test_a_folder_of_splits_is_not_classes(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.jpg", "test/a/1.jpg", "Val/a/1.jpg")
    assert refused(root) == (
        f"{root} has the splits Val, test, train instead of classes. Give one of them, for example {root / 'train'}."
    )
    assert load_samples(touch(root, "other/1.jpg")).classes == ("Val", "other", "test", "train")


@pytest.mark.parametrize(
    ("one", "other"), [("Robin", "robin"), ("house_sparrow", "house sparrow"), ("ﬁnch", "finch"), ("a  b", "a b")]
)
def test_names_a_person_reads_as_one(tmp_path: Path, one: str, other: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"image,label\n1.jpg,{one}\n2.jpg,{other}\n", encoding="utf-8")
    assert refused(table) == (
        f"Class names must differ by more than case and spacing, got {one!r} and {other!r}. Rename or merge them."
    )


ROWS = [("p/1.jpg", "wren", "small"), ("p/2.jpg", "blue tit", ""), ("p/ü 3.jpg", "wren", "a, b")]


def write(path: Path, bom: bool = False) -> Path:
    """The same rows in the format of the ending."""
    rows = [dict(zip(("image", "label", "text"), r, strict=True)) for r in ROWS]
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow.parquet import write_table

        write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if path.suffix == ".jsonl":
        text = "\n".join(json.dumps(r) for r in rows) + "\n\n"
    else:
        mark = {"semicolons.csv": ";", "tabs.csv": "\t", "t.tsv": "\t"}.get(path.name, ",")
        quoted = [[f'"{v}"' if "," in v else v for v in r] for r in ROWS]
        text = "\n".join(mark.join(r) for r in [["image", "label", "text"], *quoted]) + "\n"
    path.write_text(text, encoding="utf-8-sig" if bom else "utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "bom"),
    [
        ("t.csv", False),
        ("t.csv", True),
        ("semicolons.csv", True),  # as Excel writes them where the decimal point is a comma
        ("tabs.csv", False),
        ("t.TSV".lower(), False),
        ("t.tsv", True),
        ("t.jsonl", False),
        ("t.jsonl", True),
        ("t.parquet", False),
    ],
)
def test_tables_say_the_same_in_every_format(tmp_path: Path, name: str, bom: bool) -> None:
    found = load_samples(write(tmp_path / name, bom))
    assert found.items == (
        Sample(str(tmp_path / "p/1.jpg"), "wren", ("small",)),
        Sample(str(tmp_path / "p/2.jpg"), "blue tit"),
        Sample(str(tmp_path / "p/ü 3.jpg"), "wren", ("a, b",)),
    )
    assert found.classes == ("blue tit", "wren")


def test_columns_by_other_names_and_absolute_paths(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("file,kind\n/far/1.jpg,7\n2.jpg,10\n")
    found = load_samples(table, image="file", label="kind")
    assert found.classes == ("7", "10")
    assert [s.image for s in found.items] == ["/far/1.jpg", str(tmp_path / "2.jpg")]
    assert refused(table) == (
        f"{table}, row 1, has no column 'image' and no column 'label'. Its columns are 'file', "
        "'kind'. Give the columns with --column image=NAME --column label=NAME, or in Python "
        "with seewhy.load_samples(…, image=NAME, label=NAME)."
    )


def test_rows_without_picture_or_class_are_left_out(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,label\n1.jpg,a\n,a\n2.jpg,b\n3.jpg,\n4.jpg,a\n5.jpg,b\n")
    found = load_samples(table)
    assert len(found) == 4
    assert found.notes == ("left out 2 row(s) without picture or class: 2, 4",)
    table.write_text('image,label\n1.jpg,a\n2.jpg,"   "\n  ,b\n4.jpg,b\n')
    found = load_samples(table)
    assert found.classes == ("a", "b")
    assert found.notes[0] == "left out 2 row(s) without picture or class: 2, 3"
    table.write_text("image,label\n,a\n")
    assert refused(table) == f"{table} has no rows with both {KINDS}. Fill in the values."
    table.write_text("")
    assert refused(table) == f"{table} has no rows with both {KINDS}. Fill in the values."


def test_other_files_are_refused(tmp_path: Path) -> None:
    expected = (
        f"Give a folder with one folder per class, or a table ending in .csv, .tsv, .jsonl, .parquet with the columns "
        f"{KINDS}."
    )
    other = tmp_path / "table.xlsx"
    other.write_text("a")
    assert refused(other) == f"{other} is neither a folder nor a table. {expected}"
    for name in ("missing", "missing.csv"):
        assert refused(tmp_path / name) == f"{tmp_path / name} does not exist. {expected}"
        assert refused(tmp_path / "neither" / name) == f"{tmp_path / 'neither' / name} does not exist. {expected}"
    (tmp_path / "photos").mkdir()
    near = f"Did you mean {str(tmp_path / 'photos')!r}?"
    assert refused(tmp_path / "photoz") == f"{tmp_path / 'photoz'} does not exist. {near} {expected}"
    with pytest.raises(DataError, match=r"photoz does not exist\. Did you mean "):
        load_pictures(tmp_path / "photoz")


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"image": "1.jpg", "label": "a"}\n{oops\n')
    assert refused(lines) == (
        f"{lines}, line 2, is not valid JSON: Expecting property name enclosed in double "
        "quotes. Write one object per line."
    )
    lines.write_text("[1, 2]\n")
    assert refused(lines) == f"{lines}, line 1, must be a JSON object."
    latin = tmp_path / "t.csv"
    latin.write_bytes("image,label\nü.jpg,a\n".encode("latin-1"))
    assert refused(latin).startswith(f"{latin} cannot be read: 'utf-8' codec can't decode byte 0xfc")
    lines.write_text("[" * 100_000)
    assert refused(lines) == f"{lines}, line 1, is not valid JSON: it is nested too deeply. Write one object per line."
    parquet = tmp_path / "t.parquet"
    parquet.write_bytes(b"PAR1 no")
    assert refused(parquet).startswith(f"{parquet} cannot be read as Parquet: ")
    assert ".." not in refused(parquet).replace(str(parquet), "")
    assert refused(parquet).endswith(" Write it again.")


@pytest.mark.parametrize("mark", [",", "\t"])
def test_an_open_quote_swallows_no_rows(tmp_path: Path, mark: str) -> None:
    table = tmp_path / ("t.csv" if mark == "," else "t.tsv")
    rows = ["image,label,text", '1.jpg,a,"said ""so"""', '2.jpg,a,"open', "3.jpg,b,x", "4.jpg,b,y"]
    table.write_text("\n".join(rows).replace(",", mark) + "\n")
    assert refused(table) == (
        f"{table}, row 2, cannot be read: unexpected end of data. "
        "Close every quote, and write quotes inside text twice."
    )
    table.write_text("\n".join([*rows[:2], '2.jpg,a,"one\nmore"', *rows[3:]]).replace(",", mark) + "\n")
    found = load_samples(table)
    assert [s.text for s in found.items] == ['said "so"', "one\nmore", "x", "y"]


data = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12).map(str)), max_size=40)


@given(rows=data, fraction=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_split(rows: list[tuple[str, str]], fraction: float, seed: int) -> None:
    labels, digests = [r[0] for r in rows], [r[1] for r in rows]
    held = split(labels, digests, fraction, seed)
    assert held == split(labels, digests, fraction, seed)
    out = {d for d, h in zip(digests, held, strict=True) if h}
    inside = {d for d, h in zip(digests, held, strict=True) if not h}
    assert not out & inside
    owners = {d: {r[0] for r in rows if r[1] == d} for d in digests}
    assert all(len(owners[d]) == 1 for d in out)
    assert under_two_classes(labels, digests) == [len(owners[d]) > 1 for d in digests]
    distinct = Counter(next(iter(o)) for o in owners.values() if len(o) == 1)
    taken = Counter(next(iter(owners[d])) for d in out)
    for label, n in distinct.items():
        if n < 2 or fraction == 0:
            assert taken[label] == 0
        else:
            assert taken[label] == min(n - 1, max(1, round(fraction * n)))


@given(rows=data, seed=st.integers(0, 99))
def test_split_does_not_depend_on_the_order(rows: list[tuple[str, str]], seed: int) -> None:
    def held(some: list[tuple[str, str]]) -> set[str]:
        flags = split([r[0] for r in some], [r[1] for r in some], 0.3, seed)
        return {r[1] for r, h in zip(some, flags, strict=True) if h}

    assert held(rows) == held(rows[::-1])


def test_another_seed_is_another_split() -> None:
    labels, digests = ["a"] * 50, [str(i) for i in range(50)]
    assert split(labels, digests, 0.2, 0) != split(labels, digests, 0.2, 1)


def test_groups_of_a_table_and_of_folders(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,label,visit\na.png,x,monday\nb.png,x,\nc.png,y,monday\n")
    assert [s.group for s in load_samples(table, group="visit").items] == ["monday", None, "monday"]
    assert [s.group for s in load_samples(table).items] == [None, None, None]
    with pytest.raises(DataError) as caught:
        load_samples(table, group="visits")
    assert str(caught.value).endswith("that says which pictures belong together. Did you mean 'visit'?")
    for name in ("x/1/a.png", "x/1/b.png", "x/2/c.png", "y/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    groups = [s.group for s in load_samples(tmp_path, group="folder").items]
    assert [groups.index(g) for g in groups] == [0, 0, 2, 3]
    with pytest.raises(DataError, match="so it has no column"):
        load_samples(tmp_path, group="visit")


def test_one_text_alone_is_told_from_several() -> None:
    with pytest.raises(InputError, match=r"must be a tuple, got 'a cat'\. Write \('a cat',\)\."):
        Sample("a.png", "cat", "a cat")  # type: ignore[arg-type]
