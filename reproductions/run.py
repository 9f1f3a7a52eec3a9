"""Runs the reproductions, each with the command in its result, and writes the new results and pages.

    make reproductions DATA=~/pictures                         # all that have their data; hours
    make reproductions DATA=~/pictures ARGS="focallens ogen"   # some
    python reproductions/run.py --list                         # what would run, and why the rest is left out

DATA has a folder for each set of pictures, named as in the commands of results/*.json (grocery, fashion, camvid, …). A
result with the same command and the same code (src/ and the scripts) is not repeated. A stopped script, even after
SIGKILL, continues from its parts in build/reproductions, where the logs are. If a script fails, the rest goes on, and
the failure is printed at the end. The fastest scripts of the last time run first. At the end docs/generate.py writes
the pages.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import claims

ROOT = Path(__file__).resolve().parents[1]
RESULTS, BUILD = ROOT / "reproductions/results", ROOT / "build/reproductions"
CODE = ("src", "reproductions/*.py", "reproductions/*.toml")
FILES = (".csv", ".jsonl", ".json")


@dataclass(frozen=True)
class Script:
    """A reproduction as its last result says it is called."""

    name: str
    report: claims.Report

    @property
    def folder(self) -> Path:
        return BUILD / self.name

    def words(self, data: Path | None) -> tuple[list[str], list[str]]:
        """What is typed behind the script's name, with what stands in ``data``; and what does not."""
        missing: list[str] = []
        words = shlex.split(self.report.command)[2:]
        return [_located(word, data, missing) for word in words], missing

    def current(self) -> bool:
        """Whether its result was made by the code as it is."""
        return same_code(self.report.commit)


def _located(word: str, data: Path | None, missing: list[str]) -> str:
    """A word of a command with its files as they lie below ``data``, where a script is started."""
    parts = re.split(r"([=,]|:(?=\./))", word)
    for i, part in enumerate(parts):
        if part.endswith(".sqlite"):
            parts[i] = str(BUILD / "seen.sqlite")
        elif (("/" in part and ":" not in part) or part.endswith(FILES)) and not part.startswith("-"):
            places = [part, part.partition("/")[2]]
            there = [p for p in places if p and data is not None and (data / p).exists()]
            parts[i] = there[0] if there else part
            missing += [] if there else [part]
    return "".join(parts)


def same_code(commit: str) -> bool:
    """Whether the code that runs is that of a commit; code that was changed since its commit is of none."""
    if not commit or "+" in commit + claims.COMMIT:
        return False
    git = ["git", "-C", str(ROOT), "diff", "--quiet", commit, "HEAD", "--", *CODE]
    return subprocess.run(git, check=False, capture_output=True).returncode == 0


def planned(names: Sequence[str], data: Path | None, again: bool) -> tuple[list[Script], dict[str, str]]:
    """What is to run, the quickest first, and why others are not."""
    reports = [claims.read_report(path) for path in sorted(RESULTS.glob("*.json"))]
    known = {r.name: Script(r.name, r) for r in reports}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"{unknown[0]} has no result in {RESULTS.relative_to(ROOT)} to read its command from. "
                         f"Expected one of {', '.join(known)}. Run a new script by hand, once.")  # fmt: skip
    left: dict[str, str] = {}
    for name in names or known:
        if missing := known[name].words(data)[1]:
            left[name] = f"{', '.join(missing)} not in {'DATA, which was not given' if data is None else 'DATA'}"
        elif known[name].current() and not again:
            left[name] = f"made by this code already ({known[name].report.commit})"
    run = [known[name] for name in names or known if name not in left]
    return sorted(run, key=lambda s: s.report.seconds), left


def one(script: Script, data: Path | None, *, anew: bool = False) -> claims.Report | None:
    """Run it to its end, on from what the same code and command left; None where it failed."""
    words, _ = script.words(data)
    out, mark = script.folder / f"{script.name}.json", script.folder / "made_by.json"
    script.folder.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{script.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the script holds it too: one whose runner was killed is waited for
        if anew or not _goes_on(mark, words):
            shutil.rmtree(script.folder)
            script.folder.mkdir()
            mark.write_text(json.dumps({"commit": claims.COMMIT, "words": words}), "utf-8")
        if not out.exists():
            line = [sys.executable, str(ROOT / "reproductions" / f"{script.name}.py"), *words, "--out", str(out)]
            env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
            with (BUILD / f"{script.name}.log").open("a") as log:
                again = {"stdout": log, "stderr": log, "cwd": data or ROOT, "env": env, "pass_fds": [lock.fileno()]}
                subprocess.run(line, check=False, **again)
        return claims.read_report(out) if out.exists() else None


def _goes_on(mark: Path, words: list[str]) -> bool:
    """Whether what lies beside the mark was made by this command and this code."""
    made = json.loads(mark.read_text("utf-8")) if mark.exists() else {"commit": "", "words": None}
    return made["words"] == words and (made["commit"] == claims.COMMIT or same_code(made["commit"]))


def counted(report: claims.Report) -> str:
    """``3 shown, 1 not shown``."""
    numbers = Counter(c.verdict for c in report.claims)
    return ", ".join(f"{numbers[v]} {v}" for v in claims.VERDICTS if numbers[v])


def last_line(name: str) -> str:
    lines = (BUILD / f"{name}.log").read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="scripts, by name; none: all that have a result")
    parser.add_argument("--data", type=Path, help="the folder of folders of pictures")
    parser.add_argument("--again", action="store_true", help="also those that this code has made, from the start")
    parser.add_argument("--list", action="store_true", help="say what would run, and run nothing")
    args = parser.parse_args(arguments)
    data = args.data and args.data.expanduser().resolve()
    if data is not None and not data.is_dir():
        parser.error(f"--data {args.data} was given. Expected a folder.")
    scripts, left = planned(args.names, data, args.again)
    hours = sum(s.report.seconds for s in scripts) / 3600
    for name, why in left.items():
        print(f"left out: {name}: {why}")
    print(f"{len(scripts)} to run, {hours:.1f} hours last time; code {claims.COMMIT}, logs in build/reproductions")
    if args.list or not scripts:
        print("".join(f"  {s.name}: {s.report.command}\n" for s in scripts), end="")
        return 0
    failed = []
    for i, script in enumerate(scripts, 1):
        print(f"[{i}/{len(scripts)}] {script.name}, {script.report.seconds:.0f} s last time", flush=True)
        begun = time.monotonic()
        report = one(script, data, anew=args.again)
        if report is None:
            failed.append(script.name)
            print(f"    failed: {last_line(script.name)}", flush=True)
            continue
        report.write(RESULTS / f"{script.name}.json")
        before, now = counted(script.report), counted(report)
        changed = f" (before: {before})" if now != before else ""
        print(f"    {time.monotonic() - begun:.0f} s; {now}{changed}", flush=True)
    subprocess.run([sys.executable, str(ROOT / "docs/generate.py")], check=True)
    for name in failed:
        print(f"failed: {name}: {last_line(name)} (build/reproductions/{name}.log)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
