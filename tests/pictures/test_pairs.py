"""Pictures with texts from every form they come in, what is refused in which words, and sides kept apart."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import seewhy
from seewhy.errors import DataError, ImageError, InputError
from seewhy.pictures.datasets import samples_of
from seewhy.pictures.pairs import load_pairs
from seewhy.pictures.samples import Sample, Samples, check_apart, copies, folds_of
from seewhy.pictures.sources import plain
from tiny import class_folders, picture

CAPTIONS = {"a.png": ["a red bird", "a bird on a branch"], "b.png": ["a bus"], "c.png": ["two dogs"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i, name in enumerate(CAPTIONS):
        Image.fromarray(picture("moss", i)).save(tmp_path / name)
    return tmp_path


def table(root: Path, *rows: str, name: str = "t.csv") -> Path:
    (root / name).write_text("\n".join(rows) + "\n", "utf-8")
    return root / name


def said(samples: Samples) -> dict[str, tuple[str, ...]]:
    return {Path(s.image).name: s.texts for s in samples.items}


def refused(source: Any, kind: type[Exception] = DataError, **columns: Any) -> str:
    with pytest.raises(kind) as caught:
        load_pairs(source, **columns)
    return str(caught.value)


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


class Columns:
    """As a Hugging Face data set: columns by name, rows by number."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns_, self.column_names = columns, list(columns)
        self.features = {name: type("Image" if name == "photo" else "Value", (), {})() for name in columns}

    def __len__(self) -> int:
        return len(next(iter(self.columns_.values())))

    def __getitem__(self, key: Any) -> Any:
        return self.columns_[key] if isinstance(key, str) else {n: c[key] for n, c in self.columns_.items()}


@pytest.mark.parametrize("form", ["rows", "columns", "list", "parquet", "beside", "shard", "frame", "pairs", "raw"])
def test_the_same_pairs_in_every_form(root: Path, form: str) -> None:
    rows = [(name, text) for name, texts in CAPTIONS.items() for text in texts]
    source: Any
    if form == "rows":
        source = table(root, "image,caption", *(f"{n},{t}" for n, t in rows))
    elif form == "columns":
        source = table(
            root, "file\tcaption_0\tcaption_1", *("\t".join([n, *t, *[""] * (2 - len(t))]) for n, t in
            CAPTIONS.items()),
            name="t.tsv",
        )  # fmt: skip
    elif form == "list":
        source = table(root, *(json.dumps({"image": n, "texts": t}) for n, t in CAPTIONS.items()), name="t.jsonl")
    elif form == "parquet":
        pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
        source = root / "t.parquet"
        pq.write_table(pa.table({"image": list(CAPTIONS), "text": list(CAPTIONS.values())}), source)
    elif form == "beside":
        source = root
        for name, texts in CAPTIONS.items():
            (root / name).with_suffix(".txt").write_text(texts[0])
    elif form == "shard":
        source = shard(
            root / "t.tar",
            {n: (root / n).read_bytes() for n in CAPTIONS}
            | {n.replace("png", "json"): json.dumps({"captions": t}).encode() for n, t in CAPTIONS.items()},
        )
    elif form == "frame":
        pandas = pytest.importorskip("pandas")
        source = pandas.DataFrame([{"image": str(root / n), "text": t} for n, t in rows])
    elif form == "raw":
        pictures = [np.asarray(Image.open(root / n)) for n in CAPTIONS]
        source = Columns(photo=pictures, caption=[[{"raw": t} for t in texts] for texts in CAPTIONS.values()])
    else:
        source = [(root / name, texts) for name, texts in CAPTIONS.items()]
    found = load_pairs(source)
    expected = {n: tuple(t[:1] if form == "beside" else t) for n, t in CAPTIONS.items()}
    assert list(said(found).values()) == list(expected.values())
    assert found.classes == ()
    assert found.notes == ()
    for sample, name in zip(found.items, CAPTIONS, strict=True):
        pixels = plain(sample.source)
        opened = Image.open(io.BytesIO(pixels) if isinstance(pixels, bytes) else pixels) if form != "raw" else pixels
        assert np.array_equal(np.asarray(opened), np.asarray(Image.open(root / name)))


def test_named_columns_classes_and_groups(root: Path) -> None:
    path = table(root, "file,title,note,label,visit", "a.png,A,x,bird,1", "b.png,B,,bus,", "c.png,C,y,,2")
    found = seewhy.load_pairs(path, text=["note", "title"], group="visit")
    assert said(found) == {"a.png": ("x", "A"), "b.png": ("B",), "c.png": ("y", "C")}
    assert [s.label for s in found.items] == ["bird", "bus", ""]
    assert [s.group for s in found.items] == ["1", None, "2"]
    assert found.classes == ("bird", "bus")
    assert repr(found) == "Samples(3 pictures, 2 classes: 'bird', 'bus', 5 texts)"
    with pytest.raises(DataError) as caught:
        found.labelled()
    assert str(caught.value) == (
        f"Every picture must have a class, but 1 of 3 have none: {root / 'c.png'}. Give the "
        "column of classes, or leave these pictures out."
    )
    with pytest.raises(DataError):
        samples_of(found)


def test_class_folders_say_their_names(tmp_path: Path) -> None:
    class_folders(tmp_path / "p", 2, ("moss", "sky"))
    (tmp_path / "p" / "moss").rename(tmp_path / "p" / "wet_moss")
    found = load_pairs(tmp_path / "p")
    assert {(s.label, s.texts) for s in found.items} == {("wet_moss", ("wet moss",)), ("sky", ("sky",))}


def test_what_is_left_out_is_noted(root: Path) -> None:
    path = table(root, "image,text", "a.png,A", "gone.png,G", "b.png,B", ",nobody", "c.png,", "away.png,W")
    found = load_pairs(path)
    assert said(found) == {"a.png": ("A",), "b.png": ("B",)}
    assert found.notes == (
        "left out 1 row(s) without a picture: 4",
        f"left out 1 picture(s) without a text: {root / 'c.png'}",
        f"left out 2 picture(s) that do not exist: {root / 'gone.png'}, {root / 'away.png'}",
    )


def test_a_picture_of_two_groups_joins_them(root: Path) -> None:
    path = table(root, "image,text,patient", "a.png,A,1", "b.png,B,2", "a.png,again,2", "c.png,C,3")
    found = load_pairs(path, group="patient")
    assert [s.group for s in found.items] == ["1", "1", "3"]
    assert found.notes == ("1 group(s) share a picture with another group and were merged with it: 2 = 1",)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            ["image,text", "a.png,A"], {},
            "At least two pictures with texts are required, got only {root}/a.png.",
        ),
        (
            ["image,text", "x.png,A", "y.png,B"], {},
            "None of the 2 pictures exists. The first is {root}/x.png. Paths must be absolute or relative to the "
            "table.",
        ),
        (
            ["image,text", "a.png,A", "b.png,B"], {"text": "txet"},
            "{root}/t.csv has no column 'txet'. Did you mean 'text'?",
        ),
        (
            ["image,captin", "a.png,A", "b.png,B"], {},
            "{root}/t.csv has no column of texts among 'captin'. Did you mean 'captin'? Rename a column to 'text', or "
            "name it with --column text.",
        ),
        (
            ["image,text,label", "a.png,A,x", "a.png,B,y", "b.png,B,y"], {},
            "{root}/t.csv gives {root}/a.png two classes, 'x' and 'y'. Correct one of the rows, or name another column "
            "of classes.",
        ),
        (
            ["image,text"], {},
            "{root}/t.csv has no rows. Add one row per picture and text.",
        ),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used(root: Path, rows: list[str], columns: dict[str, Any], message: str) -> None:
    assert refused(table(root, *rows), **columns) == message.format(root=root)


def test_other_things_that_cannot_be_used(root: Path) -> None:
    forms = (
        "They must be a table (.csv, .tsv, .jsonl, .parquet), a folder of pictures with text "
        "files, class folders, .tar shards, a data frame, a Hugging Face data set or a list "
        "of (picture, texts)"
    )
    assert refused(5, InputError) == f"Pictures with texts cannot be read from an int. {forms}. Give one of them."
    assert refused(root / "x.doc") == f"{root / 'x.doc'} has no pictures with texts. {forms}. Check the name."
    assert refused(["a.png"], InputError) == ("Item 0 of the data must be a pair (picture, text or texts), got a str.")
    path = table(root, json.dumps({"image": "a.png", "text": {"en": "A"}}), name="t.jsonl")
    assert refused(path) == (
        f"{path}, row 1, column 'text', must be a text or a list of texts, got {{'en': 'A'}}. "
        "Correct it, or name another column."
    )


def test_hostile_shards(root: Path) -> None:
    data = (root / "a.png").read_bytes()
    members = {"a.png": data, "a.txt": b"A", "b.x.png": data, "b.cls": b"bus", "b.txt": b"B"}
    path = shard(root / "s-00.tar", members | {"../c.png": data, "/d.txt": b"D", "e.txt": b"x" * (2**20 + 1)})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("f.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = load_pairs(str(root / "s-{00..00}.tar"))
    assert said(found) == {"a.png": ("A",), "b.x.png": ("B",)}
    assert [s.label for s in found.items] == ["", "bus"]
    assert found.notes[0] == (
        f"left out 4 member(s) of {path}: ../c.png (its name leads outside the shard), /d.txt (its name leads outside "
        "the shard), e.txt (it has 1,048,577 bytes, more than the limit of 1,048,576) and 1 more"
    )
    again = load_pairs(table(root, "image,text", "s-00.tar/a.png,A", "a.png,B"))
    assert plain(again.items[0].source) == data
    lost = load_pairs(table(root, "image,text", "s-00.tar/../c.png,A", "s-00.tar/zz.png,A", "a.png,B"))
    with pytest.raises(ImageError, match="is not in the shard"):
        plain(lost.items[1].source)
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 + len(data) // 2])
    assert refused(path) == (
        f"{path} cannot be read as an uncompressed tar: 'a.png' is truncated. Copy it again, or repack it without "
        "compression."
    )
    path.write_bytes(b"no tar")
    assert "Copy it again, or repack it without compression." in refused(path)
    with pytest.raises(ImageError, match="is truncated"):
        found.items[0].pixels.load()  # type: ignore[union-attr]


def test_a_shard_that_is_no_text_names_the_member(root: Path) -> None:
    path = shard(root / "s.tar", {"a.png": b"x", "a.json": b"{"})
    assert refused(path).startswith(f"{path}, a.json, cannot be read: ")


def test_copies_are_found_and_never_on_both_sides(root: Path) -> None:
    shutil.copy(root / "a.png", root / "twin.png")
    pixels = np.asarray(Image.open(root / "a.png"))
    rows = [
        *((root / n, t) for n, t in CAPTIONS.items()),
        (root / "twin.png", "A"),
        (pixels, "P"),
        (pixels.copy(), "P"),
    ]
    samples = load_pairs(rows)
    assert copies(samples) == [(0, 3), (4, 5)]
    for seed in range(12):
        folds = folds_of(samples, 3, seed)
        assert sorted(folds) == [0, 0, 1, 1, 2, 2]
        assert (folds[0], folds[4]) == (folds[3], folds[5])
    train, test = load_pairs(rows[:3]), load_pairs(rows[2:4])
    with pytest.raises(DataError) as caught:
        check_apart(train, test)
    assert str(caught.value) == (
        f"2 picture(s) are in both the training and the test set: {root / 'c.png'} = "
        f"{root / 'c.png'}, {root / 'a.png'} = {root / 'twin.png'}. Remove them from one of "
        "the two sets."
    )


@given(st.lists(st.sampled_from("abcde") | st.none(), min_size=12, max_size=30), st.integers(0, 9))
@settings(max_examples=40)
def test_groups_stay_together(groups: list[str | None], seed: int) -> None:
    samples = Samples(tuple(Sample(f"nowhere {i}", texts=("x",), group=g) for i, g in enumerate(groups)), ())
    if len(set(groups) - {None}) + groups.count(None) < 2:
        return
    folds = folds_of(samples, 4, seed)
    assert len(set(folds)) > 1
    assert len({(group, fold) for group, fold in zip(groups, folds, strict=True) if group}) == len(set(groups) - {None})
    assert folds_of(samples, 4, seed) == folds


def test_chains_of_groups_and_copies_stay_together() -> None:
    """The last of one group and the last of another are copies."""
    shade = [np.full((4, 4), v, np.uint8) for v in (1, 2, 3, 3, 4, 5)]
    drawn = load_pairs([(s, "x") for s in shade])
    grouped = [replace(s, group=g) for s, g in zip(drawn.items, ("p", "q", "q", "p", None, None), strict=True)]
    samples = replace(drawn, items=tuple(grouped))
    for seed in range(8):
        assert len(set(folds_of(samples, 2, seed)[:4])) == 1


def test_pixels_of_another_shape_are_another_picture() -> None:
    assert copies(load_pairs([(np.zeros((2, 8), np.uint8), "a"), (np.zeros((4, 4), np.uint8), "b")])) == []


def test_a_gap_in_a_column_is_no_text(root: Path) -> None:
    names = [str(root / n) for n in CAPTIONS]
    found = load_pairs(Columns(image=names, text=["A", float("nan"), "C"]))
    assert said(found) == {"a.png": ("A",), "c.png": ("C",)}


def test_a_text_file_that_is_no_text_is_told_and_not_read_whole(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"a\.txt cannot be read: it has 1,099,511,627,776 bytes"):
        load_pairs(tmp_path)
