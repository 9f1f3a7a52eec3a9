"""The newcomer's walk of docs/start.md: every command on the page, in its order, with a person's clicks on the page."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from typer.testing import CliRunner

from seewhy.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "start.md"


def commands() -> list[list[str]]:
    """Of the numbered steps, without the installation."""
    steps = PAGE.read_text("utf-8").partition("## 1.")[2].partition("## The same in Python")[0]
    return [
        shlex.split(line) for block in re.findall(r"```bash\n(.*?)```", steps, re.DOTALL) for line in block.splitlines()
    ]


def decide(words: list[str]) -> dict[str, str]:
    """Serve the page as the command says, and decide there on each doubted label as somebody who knows would."""
    serve = [sys.executable, "-c", "from seewhy.cli import main; main()", *words[1:], "--port", "0"]
    wrong = set(Path("walls/wrong.txt").read_text("utf-8").split())
    made = {}
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        address = re.search(r"http://\S+/", served.stdout.readline())
        assert address is not None
        assert b"Change to" in urlopen(address[0]).read()
        for row in csv.DictReader(Path("check/findings.csv").read_text("utf-8").splitlines()):
            if row["kind"] == "label":
                moved = row["image"].removeprefix("walls/") in wrong
                decision = (
                    {"decision": "changed", "label": row["proposed"]} if moved else {"decision": "kept", "label": ""}
                )
                body = json.dumps({"author": "me", "given": row["label"], "base": 0, **decision}).encode()
                answer = urlopen(
                    Request(f"{address[0]}decide/{row['key']}", body, {"Content-Type": "application/json"})
                )
                made[row["image"]] = json.load(answer)["decision"]
        served.send_signal(signal.SIGINT)
        assert served.wait(30) == 0
    return made


@pytest.mark.slow
def test_a_newcomer_comes_from_a_folder_to_a_corrected_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    began, made = time.monotonic(), dict[str, str]()
    told: dict[str, str] = {}
    for words in commands():
        if words[0] == "python":
            subprocess.run([sys.executable, str(ROOT / words[1])], check=True)
        elif "--serve" in words:
            made = decide(words)
        else:
            done = CliRunner().invoke(app, [*words[1:], "--json", "--quiet"], catch_exceptions=False)
            assert done.exit_code == 0, (words, done.stderr)
            told[" ".join(words)] = done.stdout
    assert time.monotonic() - began < 600, "ten minutes, said the page"
    assert Path("why/091.html").is_file()
    n_corrected = sum(decision == "changed" for decision in made.values())
    assert n_corrected >= 3, "of six; which are noticed differs a little from engine to engine"
    corrected = list(csv.DictReader(Path("corrected.csv").read_text("utf-8").splitlines()))
    assert sum(row["decision"] == "changed" for row in corrected) == n_corrected
    before = _held_out(told["seewhy fit walls/photos -o walls-model"])
    after = _held_out(told["seewhy fit corrected.csv -o walls-better"])
    assert after > before


def _held_out(said: str) -> float:
    row: dict[str, Any] = json.loads(said.splitlines()[-1])
    accuracy: float = row["held_out_accuracy"]
    return accuracy
