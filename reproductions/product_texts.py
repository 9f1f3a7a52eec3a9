"""Descriptions of classes out of a table: a column of classes, and one of what people wrote about each.

The Grocery Store data set (GitHub, marcusklasson/GroceryStoreDataset) comes with such a table, ``classes.csv``: a
sentence or several about every product, written for shoppers. Each sentence is one text of its class here.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from seewhy.descriptions import Descriptions

_BETWEEN = re.compile(r"(?<=[.!?])\s+")


def read_words(path: Path) -> Descriptions:
    """Descriptions from such a table, or from a JSON of descriptions.

    Args:
        path: a ``.csv`` with the columns ``class`` and ``description``, or a ``.json``.
    """
    if path.suffix != ".csv":
        return Descriptions.read(path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = [(row["class"], _BETWEEN.split(row["description"].strip())) for row in csv.DictReader(file)]
    return Descriptions.of(rows, str(path))
