"""How an input is cut into shards: which pictures each has, how it is called, and what of it cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_jobs import pack

from seewhy.errors import DataError
from seewhy.scale.inputs import ShardError, digest_of, find_input
from seewhy.scale.run import run
from simulated_work import Simulated, make_pictures, rows


def items(given: Any) -> list[list[str]]:
    return [[item.name for item in shard.items()] for shard in given.shards()]


def test_a_digest_tells_where_a_name_ends() -> None:
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])
    assert digest_of(["a", "b"]) != digest_of(["b", "a"])


def test_a_folder_that_goes_while_it_is_read_is_a_shard_that_cannot_be(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 3)
    (shard,) = find_input(tmp_path / "photos").shards()
    (tmp_path / "photos").rename(tmp_path / "away")
    with pytest.raises(ShardError, match=r"photos no longer exists\. Restore it\."):
        list(shard.items())


def test_packed_shards_elsewhere_are_the_same(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 2)
    pack(tmp_path / "tars" / "a.tar", tmp_path / "photos", names)
    before = [shard.digest for shard in find_input(tmp_path / "tars").shards()]
    (tmp_path / "tars").rename(tmp_path / "mounted")
    assert [shard.digest for shard in find_input(tmp_path / "mounted").shards()] == before


def test_a_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,n\n0.png,1\n")
    pq.write_table(pa.table({"image": ["0.png"], "n": [1]}), tmp_path / "p.parquet")
    for name in ("t.csv", "p.parquet"):
        with pytest.raises(DataError, match=rf"{name} has no column 'imag'\. Did you mean 'image'\?"):
            items(find_input(tmp_path / name, column="imag"))


def test_a_column_that_is_named_is_read_in_place_of_the_usual(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,other\na.png,b.png\n")
    pq.write_table(pa.table({"image": ["a.png"], "other": ["b.png"]}), tmp_path / "p.parquet")
    for name in ("t.csv", "p.parquet"):
        assert items(find_input(tmp_path / name, column="other")) == [["b.png"]]
        assert items(find_input(tmp_path / name)) == [["a.png"]]


def test_endings_in_capitals_are_the_same(tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "photos", 2)
    cells = [(tmp_path / "photos" / name).read_bytes() for name in names]
    pq.write_table(pa.table({"image": cells}), tmp_path / "P.PARQUET")
    (tmp_path / "T.CSV").write_text("image\na.png\n")
    assert items(find_input(tmp_path / "P.PARQUET")) == [["P.PARQUET/0", "P.PARQUET/1"]]
    assert items(find_input(tmp_path / "T.CSV")) == [["a.png"]]


def test_rows_of_parquet_keep_their_numbers_and_names_lie_beside_the_file(tmp_path: Path) -> None:
    (name,) = make_pictures(tmp_path / "photos", 1)
    data = (tmp_path / "photos" / name).read_bytes()
    cells = [None, {"bytes": data, "path": None}, {"bytes": None, "path": " "}, {"bytes": None, "path": name}]
    pq.write_table(pa.table({"image": cells}), tmp_path / "photos" / "p.parquet")
    run(Simulated(), find_input(tmp_path / "photos" / "p.parquet"), tmp_path / "out")
    assert [(row["image"], row["error"] is None) for row in rows(tmp_path / "out")] == [
        ("p.parquet/0", False),
        ("p.parquet/1", True),
        ("p.parquet/2", False),
        (name, True),
    ]


def test_shards_are_called_by_the_pictures_that_they_have(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 5)
    for place in (tmp_path / "photos", f"{tmp_path / 'photos'}/"):
        shards = list(find_input(place, per_shard=2).shards())
        assert [shard.name for shard in shards] == ["pictures 1 to 2", "pictures 3 to 4", "pictures 5 to 5"]
        assert [item.name for item in shards[0].items()] == ["0/0.png", "0/1.png"]
    assert len(list(find_input(tmp_path / "photos", per_shard=1).shards())) == 5


def test_a_table_keeps_its_first_row_leaves_out_empty_cells_and_says_where_one_is_wrong(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,n\na.png,1\n,2\n  ,3\nb.png,4\n")
    assert items(find_input(table)) == [["a.png", "b.png"]]
    table.write_text("image,n\na.png,1\nnan,2\n")
    with pytest.raises(DataError, match=r"t\.csv, row 2, column 'image', must be a name, got 'nan'"):
        items(find_input(table))


def test_parquet_files_come_in_natural_order_each_by_its_own_column(tmp_path: Path) -> None:
    for number in (10, 9):
        pq.write_table(pa.table({"photo": [f"{number}.png"]}), tmp_path / f"{number}.parquet")
    assert items(find_input(tmp_path, column="photo")) == [["9.png"], ["10.png"]]
