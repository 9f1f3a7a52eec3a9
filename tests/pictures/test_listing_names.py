"""Names in the order of their numbers, however long these are."""

from __future__ import annotations

from seewhy.pictures.sources import natural_key


def test_names_are_in_the_order_of_their_numbers() -> None:
    names = ["b1", "a10", "a2", "a02", "10", "2", "1" * 5000, "0"]
    assert sorted(names, key=natural_key) == ["0", "2", "10", "1" * 5000, "a02", "a2", "a10", "b1"]
