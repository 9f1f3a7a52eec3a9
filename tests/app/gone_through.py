"""A page whose labelled pictures have all been looked at."""

from __future__ import annotations

import time
from typing import Any

from starlette.testclient import TestClient


def looked(page: TestClient) -> dict[str, Any]:
    """Its mistakes, once all are known."""
    for _ in range(400):
        found = page.get("/mistakes?format=json").json()
        if found["done"] == found["n"]:
            return dict(found)
        time.sleep(0.02)
    raise AssertionError("the pictures were not gone through")
