"""YAML that grows when it is read is refused in a moment."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from seewhy import load_boxes
from seewhy.errors import DataError
from seewhy.storage.plain_yaml import MOST, parse_yaml

LISTS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MAPS = "a0: &a0 {k: x}\n" + "".join(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}\n" for i in range(1, 30))
MERGED = "a: &a {k: x}\nb: &b {<<: [*a, *a]}\nnames: {<<: [*b, *b]}\n"
BOMBS = {
    "lists": LISTS + "names: *a11\n", "maps": MAPS + "names: *a29\n", "merged": MERGED, "itself": "names: &a [*a]\n",
    "base 60": f"names: {{{'1:' * 300_000}1: cat}}\n", "hexadecimal": f"names: {{0x{'f' * 900_000}: cat}}\n",
    "digits": f"names: [{'9' * 900_000}]\n", "deep": "names: " + "[" * 100_000, "long": "names: [" + "x, " * MOST + "]",
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_of_classes_that_grows_is_one_sentence(tmp_path: Path, kind: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text(BOMBS[kind])
    start = time.process_time()
    with pytest.raises(DataError, match=r"data\.yaml (cannot be read as class names: |must have class names)") as error:
        load_boxes(tmp_path / "data.yaml")
    assert time.process_time() - start < 10
    assert len(str(error.value)) < 700


def test_plain_values_and_references_to_texts_are_read() -> None:
    assert parse_yaml("names: [cat, 'dog']\nnc: 2\ntrain: &t images\nval: *t\n") == {
        "names": ["cat", "dog"], "nc": 2, "train": "images", "val": "images",
    }  # fmt: skip
    assert parse_yaml(f"names: ['{'x' * 400}']") == {"names": ["x" * 400]}
    with pytest.raises(yaml.YAMLError, match="it refers to a list or mapping with"):
        parse_yaml("a: &a [1]\nb: *a\n")
