"""What SeeWhy answers is what the record says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from compare import HERE, OTHER_PROCESSOR, differences, names


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_record_is_equal(name: str) -> None:
    """In a process of its own: what another test has drawn or imported is no part of it."""
    done = subprocess.run([sys.executable, HERE / "compare.py", name], capture_output=True, text=True)
    if done.returncode == OTHER_PROCESSOR:
        pytest.skip("this processor rounds otherwise than the one of the record")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_a_change_is_seen() -> None:
    assert list(differences({"a": [1, 2.0]}, {"a": [1, 2.1]})) == ["/a/1: 2.0 is now 2.1"]
    assert list(differences({"a": 1}, {"b": 1})) == ["/a: gone", "/b: new"]
    assert list(differences([1], [1, 2])) == [": [1] is now [1, 2]"]
    assert list(differences({"a": 1.0, "b": "x"}, {"a": 1.0000001, "b": "x"})) == []
