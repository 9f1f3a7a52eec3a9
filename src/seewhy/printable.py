"""Text that was given to us, made fit to be shown on one line: in a terminal, a log, a line of JSON."""

from __future__ import annotations

import json
import re
import unicodedata

_JOINERS = "\u00ad\u200c\u200d"
"""Invisible signs that words and emoji need, and that move nothing."""
_QUOTED = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def printable(text: str, keep: str = "") -> str:
    r"""The text with every sign that would steer a terminal, end a line or turn the writing round as its escape.

    Escapes are those of JSON, so that a line of JSON stays one, and means the same.

    Args:
        text: may hold anything.
        keep: signs left as they are.

    >>> printable("a\x1b[31m\nb\u202egpj.exe")
    'a\\u001b[31m\\nb\\u202egpj.exe'
    """
    if text.isprintable():
        return text
    return "".join(sign if sign in keep or not _steers(sign) else json.dumps(sign)[1:-1] for sign in text)


def _steers(sign: str) -> bool:
    return sign == "\x7f" or (unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp") and sign not in _JOINERS)


def spreadsheet_safe(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: with an apostrophe before it where it would begin like one.

    >>> spreadsheet_safe("=1+1"), spreadsheet_safe("'-x"), spreadsheet_safe("moss")
    ("'=1+1", "''-x", 'moss')
    """
    return f"'{cell}" if _QUOTED.match(cell) else cell


def from_spreadsheet(cell: str) -> str:
    """The cell as it was before :func:`spreadsheet_safe`; one that needed no apostrophe stays as it is.

    >>> from_spreadsheet("'=1+1"), from_spreadsheet("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _QUOTED.match(cell) else cell
