"""Tables in which something slipped: a doubled heading, a shifted row, a number that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy.errors import DataError
from seewhy.pictures.samples import load_samples


def table(tmp_path: Path, text: str, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("value", ["nan", "NaN", "<NA>", "NaT"])
def test_a_number_that_is_none_is_named_with_its_row(value: str, tmp_path: Path) -> None:
    path = table(tmp_path, f"image,label\na.png,moss\nb.png,{value}\n")
    with pytest.raises(DataError) as caught:
        load_samples(path)
    assert str(caught.value) == (
        f"{path}, row 2, column 'label', must be a name, got {value!r}, which is a missing "
        "number. Fill in a name, or leave it empty to skip the row."
    )


def test_so_it_is_in_json_lines_and_parquet(tmp_path: Path) -> None:
    lines = table(tmp_path, '{"image": "a.png", "label": 1}\n{"image": "b.png", "label": NaN}\n', "t.jsonl")
    with pytest.raises(DataError, match="row 2, column 'label', must be a name, got 'nan'"):
        load_samples(lines)
    odd = table(tmp_path, '{"image": "a.png", "label": ["moss", "rust"]}\n', "u.jsonl")
    with pytest.raises(DataError, match="row 1, column 'label', must be a text or a number, got a list"):
        load_samples(odd)
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    from pyarrow import parquet

    columns = {"image": ["a.png", "b.png"], "label": [1.0, float("nan")]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 2, column 'label', must be a name, got 'nan'"):
        load_samples(tmp_path / "t.parquet")


def test_whole_numbers_with_gaps_stay_whole(tmp_path: Path) -> None:
    """As a data frame writes the labels 3, nothing, 12."""
    path = table(tmp_path, "image,label\na.png,3.0\nb.png,\nc.png,12.0\nd.png,12.0\n")
    assert load_samples(path).classes == ("3", "12")
    assert load_samples(table(tmp_path, "image,label\na.png,3.0\nb.png,2.5\n", "u.csv")).classes == ("2.5", "3.0")
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    from pyarrow import parquet

    columns = {"image": ["a.png", "b.png", "c.png"], "label": pyarrow.array([3, None, 12], pyarrow.float64())}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    assert load_samples(tmp_path / "t.parquet").classes == ("3", "12")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,label,label\na.png,moss,rust\n",
            " has 2 columns 'label' (columns 2, 3).",
        ),
        (
            "image,label\na.png,moss\nb.png,house, small\n",
            ", row 2 (line 3), must have 2 values, one per column, got 3.",
        ),
        (
            "image,label,site\n\na.png,moss,x\nb.png,rust\n",
            ", row 2 (line 4), must have 3 values, one per column, got 2.",
        ),
        ("image,label\nb.png\n", ", row 1 (line 2), must have 2 values, one per column, got 1."),
    ],
)
def test_a_doubled_or_shifted_column_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load_samples(path)
    assert f"{path}{message}" in str(caught.value)


def test_a_doubled_name_in_json_and_parquet_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, '{"image": "a.png", "label": "moss", "label": "rust"}\n', "t.jsonl")
    with pytest.raises(DataError, match="line 1, has the key 'label' twice"):
        load_samples(path)
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    from pyarrow import parquet

    doubled = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, names=["image", "label", "label"])
    parquet.write_table(doubled, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="Column names must differ, but"):
        load_samples(tmp_path / "t.parquet")


def test_empty_cells_at_the_end_are_no_shift(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label,,\na.png,moss\nb.png,rust,,\nc.png,rust,,,,\n")
    assert load_samples(path).classes == ("moss", "rust")


def test_a_guarded_class_is_read_back(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\na.png,'=moss\nb.png,'tis\n'-c.png,'=moss\n")
    samples = load_samples(path)
    assert samples.classes == ("'tis", "=moss")
    assert Path(samples.items[2].image).name == "-c.png"
