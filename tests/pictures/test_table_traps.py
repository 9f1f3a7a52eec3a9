"""Tables that spreadsheets, exports and strangers write: what is refused, and what is read as it stands."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

from seewhy.errors import DataError, ImageError
from seewhy.pictures.images import upright_size
from seewhy.pictures.samples import load_samples

NAMES = [f"{i}.png" for i in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(NAMES):
        Image.new("RGB", (8 + i, 8)).save(tmp_path / name)
    return tmp_path


def lines(heading: str = "image,label", row: str = "{name},{label}") -> str:
    rows = [row.format(name=name, label="ab"[i % 2]) for i, name in enumerate(NAMES)]
    return "\n".join([heading, *rows]) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines("image,label,label", "{name},{label},x"), "Column names must differ, but .* has 2 columns 'label'"),
        (lines().replace(",b", ",b\0", 1), "row 2, column 'label', has a NUL character, which no name has"),
        (lines().replace("0.png", "0\0.png", 1), "row 1, column 'image', has a NUL character"),
        (lines("image,label" + "," * 20_000, "{name},{label}" + "," * 20_000), "has 20,002 columns, more than 10,000"),
        (lines(row='"{name},{label}'), "cannot be read: .*. Close every quote"),
        (lines(row="{name},{label},x"), "must have 2 values, one per column, got 3"),
        (lines(row="{name},nan"), "must be a name, got 'nan', which is a missing number"),
        (lines("Image,Label"), "has no column 'image' and no column 'label'"),
        ("", "has no rows with both"),
    ],
)
def test_a_table_that_can_be_misread_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "t.csv").write_text(text)
    start = time.process_time()
    with pytest.raises(DataError, match=message):
        load_samples(folder / "t.csv")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("\ufeff" + lines(), "a"),
        (lines("image,,label", "{name},x,{label}"), "a"),
        (lines(row='{name},"=1+{label}"'), "=1+a"),
        (lines(row="./{name},{label}"), "a"),
    ],
)
def test_a_table_of_a_spreadsheet_is_read(folder: Path, text: str, label: str) -> None:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    samples = load_samples(folder / "t.csv")
    assert [(upright_size(s.image)[0], len(samples)) for s in samples.items] == [(8 + i, 4) for i in range(4)]
    assert samples.items[0].label == label


@pytest.mark.parametrize("scheme", ["http://127.0.0.1:9/", "s3://bucket/", "file:///etc/"])
def test_an_address_is_never_asked_and_named_as_it_stands(folder: Path, scheme: str) -> None:
    (folder / "t.csv").write_text(lines(row=scheme + "{name},{label}"))
    image = load_samples(folder / "t.csv").items[0].image
    assert image == f"{scheme}0.png"
    with pytest.raises(ImageError, match="is an address, which only --parquet reads; copy the picture to this machine"):
        upright_size(image)
