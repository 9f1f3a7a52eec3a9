"""Make untrusted text safe for a terminal, a log or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable

_JOINERS = "\u00ad\u200c\u200d"
"""Invisible characters that words and emoji need, and that are harmless."""
_QUOTED = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def printable(text: str, keep: str = "") -> str:
    r"""Escape, as JSON does, all characters that control a terminal, end a line or reverse the text direction.

    Characters in ``keep`` are unchanged.

    >>> printable("a\x1b[31m\nb\u202egpj.exe")
    'a\\u001b[31m\\nb\\u202egpj.exe'
    """
    if text.isprintable():
        return text
    return "".join(sign if sign in keep or not _steers(sign) else json.dumps(sign)[1:-1] for sign in text)


def _steers(sign: str) -> bool:
    return sign == "\x7f" or (unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp") and sign not in _JOINERS)


def percent(value: float, space: str = "") -> str:
    """Format a fraction as a rounded percentage; 0.999 becomes ``>99%``, and 0.001 becomes ``<1%``.

    >>> percent(0.999), percent(0.583), percent(0.001, " "), percent(0.0)
    ('>99%', '58%', '<1 %', '0%')
    """
    if value != value:
        return "–"
    if 0.0 < value < 0.005:
        return f"<1{space}%"
    if 0.995 <= value < 1.0:
        return f">99{space}%"
    return f"{value * 100:.0f}{space}%"


def spreadsheet_safe(cell: str) -> str:
    """Return a value with an apostrophe in front if a spreadsheet would read it as a formula.

    >>> spreadsheet_safe("=1+1"), spreadsheet_safe("'-x"), spreadsheet_safe("moss")
    ("'=1+1", "''-x", 'moss')
    """
    return _quote(cell) + cell if _QUOTED.match(cell) else cell


def from_spreadsheet(cell: str) -> str:
    """Undo :func:`spreadsheet_safe`; a text in quotation marks keeps them.

    >>> from_spreadsheet("'=1+1"), from_spreadsheet("'tis"), from_spreadsheet("'-x'")
    ('=1+1', "'tis", "'-x'")
    """
    return cell.removeprefix(_quote(cell)) if _QUOTED.match(cell) else cell


def _quote(cell: str) -> str:
    return "''" if cell.endswith("'") else "'"


def csv_row(values: Iterable[object]) -> str:
    r"""Return a row of a CSV file; texts with line breaks of any kind are in quotation marks.

    >>> csv_row(["a\rb", 1])
    '"a\rb",1\n'
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(values)  # "\n" would leave a lone "\r" without marks
    return buffer.getvalue().removesuffix("\r\n") + "\n"
