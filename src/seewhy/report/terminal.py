"""A document in a terminal, without pictures and charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text as Words

from ..printable import printable
from .blocks import Bars, Block, Columns, Document, Facts, Figures, Note, Section, Table, Verdict, spoken, text_of


def to_terminal(document: Document) -> Group:
    lines = [_words(document.headline, "bold"), *(_words(line) for line in document.below if str(line))]
    return Group(*lines, *_drawn(document.blocks))


def _words(text: Any, style: str = "") -> Words:
    return Words(printable(str(text)), style)


def _drawn(blocks: Sequence[Block]) -> Iterator[Any]:
    for block in blocks:
        if isinstance(block, Section):
            yield from (_words(""), _words(block.title, "bold"), *_drawn(block.blocks))
        elif isinstance(block, Note):
            yield _words(block.text)
        elif isinstance(block, Verdict):
            yield _words(f"{block.word}. {block.sentence}")
        elif isinstance(block, Figures):
            yield from (_words(f"{figure.name}: {figure.text}") for figure in block.figures)
        elif isinstance(block, Facts):
            yield from (_words(f"{spoken(name)}: {value}") for name, value in block.facts.items())
        elif isinstance(block, Bars):
            yield from (_words(""), _words(block.title)) if str(block.title) else ()
            yield _grid(Table(("", ""), [(bar.name, str(bar.text)) for bar in block.bars]), show_header=False)
        elif isinstance(block, Columns):
            yield from (line for column in block.columns for line in _drawn(column))
        elif isinstance(block, Table) and block.rows:
            yield _grid(block)


def _grid(table: Table, **how: Any) -> Grid:
    grid = Grid(
        box=None, title=_words(table.title) if table.title else None, title_justify="left", padding=(0, 2, 0, 0)
    )
    for number, name in enumerate(table.columns):
        grid.add_column(_words(name), justify="right" if table.is_number(number) else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(_words(text_of(value)) for value in row))
    return grid
