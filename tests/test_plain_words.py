"""Texts that people meet do without the words that the style sheet refuses."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHEET = ROOT / "docs/writing.md"


def refused() -> dict[str, str]:
    """Each word of the sheet's table, and what to write in its place."""
    table = SHEET.read_text("utf-8").partition("| not | but |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "---" not in line]
    return {word.strip(): row[1] for row in rows if len(row) == 2 for word in re.sub(r"\(.*?\)", "", row[0]).split(",")}


def texts(path: Path) -> str:
    """What a person reads of a file: values of TOML, words of a template, a page without code, comments of examples."""
    text = path.read_text("utf-8")
    if path.suffix == ".toml":
        return " ".join(values(tomllib.loads(text)))
    if path.suffix == ".py":
        return " ".join([ast.get_docstring(ast.parse(text)) or "", *re.findall(r"^# (?!%%)(.+)$", text, re.MULTILINE)])
    if path.suffix == ".html":
        text = re.sub(r"<(style|script)\b.*?</\1>|{%.*?%}|{{.*?}}|<[^>]*>", " ", text, flags=re.DOTALL)
    else:
        text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", " ", text, flags=re.DOTALL)
    return " ".join(text.split())


def values(data: Any) -> list[str]:
    if isinstance(data, str):
        return [data]
    rows = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return [text for row in rows for text in values(row)]


def files() -> list[Path]:
    pages = [*sorted(ROOT.glob("[CRS]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    pages += sorted((ROOT / "docs/reproductions").glob("*.md"))
    pages = [path for path in pages if path.name != "CHANGELOG.md"] + sorted((ROOT / "examples").rglob("*.py"))
    source = [*sorted((ROOT / "src").rglob("*.html")), *sorted((ROOT / "src").rglob("*.toml"))]
    return [path for path in (*pages, *source) if path != SHEET]


def found(text: str) -> list[str]:
    return [
        f"{word!r}: write {better!r}" for word, better in refused().items() if re.search(rf"\b{word}\b", text, re.I)
    ]


def test_the_sheet_has_words_that_are_found() -> None:
    assert len(refused()) > 12
    assert len(found("What was foretold, told apart by looks, has a bump in the middle.")) == 4
    assert found("What SeeWhy predicted.") == []


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_has_a_refused_word(path: Path) -> None:
    assert found(texts(path)) == []


@pytest.mark.parametrize("path", [path for path in files() if path.suffix == ".md"], ids=lambda path: path.name)
def test_no_word_is_doubled(path: Path) -> None:
    """What a prose linter found that was true: "a job begun on a laptop goes on on a cluster"."""
    assert re.findall(r"\b([a-z]{2,}) \1\b", texts(path)) == []
