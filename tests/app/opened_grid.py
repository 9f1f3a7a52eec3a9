"""The grid in a browser, and what it says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from browser import Browser, until

COUNT = "document.getElementById('count').textContent"


def listed(folder: Path) -> dict[str, str]:
    """Every file below, with its digest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def asked(address: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(address, data, {"content-type": "application/json"}), timeout=60) as answer:
        return json.load(answer)


def opened(tab: Browser, address: str, n: int, width: int = 1100) -> None:
    """The grid, once all pictures are predicted and its tiles are there."""
    tab.open(address, width)
    until(tab, f"/^{n} (of \\d+ )?pictures$/.test({COUNT})", 120)
    until(tab, "document.querySelectorAll('.cell img[src]').length > 2")


def select(tab: Browser, first: int, last: int) -> None:
    pick = "new MouseEvent('click', {bubbles: true, cancelable: true, %s: true})"
    for at, how in ((first, "ctrlKey"), (last, "shiftKey")):
        tab.run(f"document.querySelector('.cell[data-at=\"{at}\"]').dispatchEvent({pick % how})")
