"""Text that was given to us, made fit to be shown on one line: in a terminal, a log, a line of JSON."""

from __future__ import annotations

import json
import re
import unicodedata

_JOINERS = "\u00ad\u200c\u200d"
"""Invisible signs that words and emoji need, and that move nothing."""
_QUOTED = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def printable(text: str, keep: str = "") -> str:
    r"""Escape every character that would control a terminal, end a line or reverse the direction of the text. The
    escapes are those of JSON, so a line of JSON stays one line with the same meaning. Characters in ``keep`` stay.

    Escapes are those of JSON, so that a line of JSON stays one, and means the same; signs of ``keep`` stay.

    >>> printable("a\x1b[31m\nb\u202egpj.exe")
    'a\\u001b[31m\\nb\\u202egpj.exe'
    """
    if text.isprintable():
        return text
    return "".join(sign if sign in keep or not _steers(sign) else json.dumps(sign)[1:-1] for sign in text)


def _steers(sign: str) -> bool:
    return sign == "\x7f" or (unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp") and sign not in _JOINERS)


def percent(value: float, space: str = "") -> str:
    """Whole per cents that never claim certainty: 0.999 is ``>99%``, 0.001 is ``<1%``.

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
    """A cell that no spreadsheet takes for a formula: if it would begin like one, an apostrophe goes before it.

    >>> spreadsheet_safe("=1+1"), spreadsheet_safe("'-x"), spreadsheet_safe("moss")
    ("'=1+1", "''-x", 'moss')
    """
    return f"'{cell}" if _QUOTED.match(cell) else cell


def from_spreadsheet(cell: str) -> str:
    """The cell as it was before :func:`spreadsheet_safe`; a cell without that apostrophe is unchanged.

    >>> from_spreadsheet("'=1+1"), from_spreadsheet("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _QUOTED.match(cell) else cell
