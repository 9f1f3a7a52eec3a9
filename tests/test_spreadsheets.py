"""Tables: what SeeWhy writes it reads back, whatever the texts are, and texts of others keep their marks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import seewhy
from seewhy.pictures.tables import rows_of
from seewhy.printable import csv_row, from_spreadsheet, spreadsheet_safe

SOURCE = Path(seewhy.__file__).parent
NASTY = st.text(st.sampled_from("\r\n\t,;\"'=+-@ab \u2028\x85\x0b\x00\ufeff＝"), max_size=8)
TEXTS = st.one_of(NASTY, st.text(st.characters(exclude_categories=["Cs"]), max_size=8))


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4))
@example([("a\rb", "\r", "c"), ("'-x'", "-x'", "''-x''"), ('"quoted"', "=1+1", "\n")])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, rows: list[tuple[str, ...]]) -> None:
    file = tmp_path / "table.csv"
    written = [("image", "label", "text"), *rows]
    file.write_bytes("".join(csv_row(map(spreadsheet_safe, row)) for row in written).encode())
    assert [tuple(row.values()) for row in rows_of(file)] == rows


@given(TEXTS)
def test_a_text_is_safe_and_comes_back(text: str) -> None:
    safe = spreadsheet_safe(text)
    assert from_spreadsheet(safe) == text
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))


@pytest.mark.parametrize("text", ["'-18 °C'", "'@home'", "'=='", '"quoted"', "'tis", "moss"])
def test_marks_of_other_programs_stay(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text("image,label\n0.png," + '"' + text.replace('"', '""') + '"\n')
    assert [row["label"] for row in rows_of(tmp_path / "table.csv")] == [text]


def test_tables_are_written_and_read_at_one_place() -> None:
    places = {
        (file.relative_to(SOURCE).as_posix(), ast.unparse(node.func))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and re.fullmatch(r"csv\.(writer|reader|Dict(Writer|Reader))|.*\b(read_csv|to_csv)", ast.unparse(node.func))
    }
    assert places == {("printable.py", "csv.writer"), ("pictures/tables.py", "csv.reader")}
