"""What f086c5b saved is loaded, and answers the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from make_saved import answers

SAVED = Path(__file__).parent / "saved"


def close(ours: Any, theirs: Any) -> Any:
    """Equal but for the last digits of numbers."""
    if isinstance(theirs, dict):
        assert ours.keys() >= theirs.keys()
        return all(close(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(close(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(theirs, float):
        return ours == pytest.approx(theirs, rel=1e-4, abs=2e-5)
    return ours == theirs


@pytest.mark.parametrize("what", ["linear", "described", "where", "detector", "index", "store", "annotations"])
def test_what_an_earlier_version_saved_answers_the_same(what: str, now: dict[str, Any]) -> None:
    assert close(now[what], json.loads((SAVED / "answers.json").read_text())[what])


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("saved") / "copy"
    shutil.copytree(SAVED, folder)
    return json.loads(json.dumps(answers(folder)))
