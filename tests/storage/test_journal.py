"""A journal has one writer at a time, and a full disk under it is one sentence; what was whole stays whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from seewhy.errors import DataError
from seewhy.storage.journal import Journal
from seewhy.storage.marks import Lines, Record

ROWS = Lines((Record(("key", "value")),))
ONE, TWO = {"key": "1", "value": 1}, {"key": "2", "value": "x" * 1000}
OTHER = """
import json, sys
from pathlib import Path
from seewhy.storage.journal import Journal
from seewhy.storage.marks import Lines, Record
with Journal(Path(sys.argv[1]), Lines((Record(("key", "value")),))) as journal:
    journal.add({"key": "other", "value": 1})
    print("written", flush=True)
    sys.stdin.read()
"""


def rows(path: Path) -> list[str]:
    return [json.loads(line)["key"] for line in path.read_text().splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_another_process_that_writes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    command = [sys.executable, "-c", OTHER, str(path)]
    with (
        Journal(path, ROWS) as early,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == b"written\n"
        with Journal(path, ROWS) as late, pytest.raises(DataError) as caught:
            late.add(ONE)
        assert str(caught.value) == (
            f"Another process is writing {path}, or has written it since this run began. Wait until that run has "
            "ended, and start this run again."
        )
        other.communicate(b"")
        with pytest.raises(DataError, match="has written it since this run began"):
            early.add(ONE)  # it read the file before the other process wrote to it
    with Journal(path, ROWS) as journal:
        journal.add(ONE)
    assert rows(path) == ["other", "1"]


@pytest.mark.parametrize("left", ["", '{"key": "cut o'])
def test_a_cut_line_is_not_cut_off_after_others_have_written(tmp_path: Path, left: str) -> None:
    """Both read the same incomplete line; the second cut off all that the first had written instead of it."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ONE) + "\n" + left)
    first, second = Journal(path, ROWS), Journal(path, ROWS)
    with first:
        first.add(TWO)
    with second, pytest.raises(DataError, match="has written it since this run began"):
        second.add({"key": "3", "value": 1})
    assert rows(path) == ["1", "2"]


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "a.jsonl"
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom seewhy.errors import DataError\n"
        "from seewhy.storage.journal import Journal\nfrom seewhy.storage.marks import Lines, Record\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "try:\n    with Journal(Path(sys.argv[1]), Lines((Record(('key', 'value')),))) as journal:\n"
        "        journal.add({'key': '1', 'value': 1})\n        journal.add({'key': '2', 'value': 'x' * 1000})\n"
        "except DataError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (
        f"{path} could not be written: file too large. Choose another place to write to.\n",
        "",
    )
    assert path.stat().st_size == 200
    with Journal(path, ROWS) as journal:
        assert journal.rows == [ONE]
        journal.add(TWO)
    assert rows(path) == ["1", "2"]
