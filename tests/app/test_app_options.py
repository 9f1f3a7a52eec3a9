"""``seewhy app``: options that would do nothing are refused, and what opens the page to others is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy.cli.pages import _check
from seewhy.errors import InputError
from seewhy.service.app import Settings


def test_options_that_would_do_nothing() -> None:
    _check(Path("data"), "country", Path("decided"))
    with pytest.raises(InputError) as error:
        _check(None, "country", None)
    assert str(error.value) == "--by country requires a table. Add --data FILE."


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        ("127.0.0.1", False),
        ("127.0.0.2", False),
        ("::1", False),
        ("localhost", False),
        ("LOCALHOST", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.168.1.7", True),
        ("birds.example.org", True),
    ],
)
def test_who_can_reach_the_page(host: str, is_open: bool) -> None:
    assert Settings(host=host).is_open is is_open
