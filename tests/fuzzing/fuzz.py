"""Changes real saved files, for as long as it is given, and accepts nothing but an answer or one sentence.

``make fuzz MINUTES=60`` or ``python tests/fuzzing/fuzz.py --minutes 60 --log build/fuzz``. A finding is a line of
``findings.jsonl`` with its trace, and a folder with the files that brought it about, made as small as hypothesis can.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "training"), str(HERE.parents[1] / "src")]

from changes import OUTSIDE, changed, one_of  # noqa: E402

SECONDS, WALL, BYTES = 10, 90, 1 << 30
"""Of the processor, by the clock (the machine may be busy), and of memory: what one reading may take."""


class Fresh(Exception):
    """Something that is neither an answer nor a sentence, and was not seen before."""


class Watch:
    """Hears of what a reading opens, starts and connects to."""

    def __init__(self, root: Path) -> None:
        self.root, self.on, self.seen, self.own = str(root), False, [], False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(given[0], str | bytes):
            path, flags = os.fsdecode(given[0]), given[2] or 0
            inside = os.path.abspath(path).startswith(self.root + os.sep)
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if (writes and not inside and path != "/dev/null") or (self.own and Path(path).name in (OUTSIDE, "passwd")):
                self.seen.append(f"{'wrote' if writes else 'read'} {path[-200:]}")
        elif event in (
            "os.system",
            "subprocess.Popen",
            "os.exec",
            "os.posix_spawn",
            "pickle.find_class",
            "socket.connect",
        ):
            self.seen.append(f"{event} {str(given)[:200]}")


def peak() -> int:
    """Bytes of memory at most since it was last asked to forget."""
    with suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    return 0


def forget_peak() -> None:
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class Case:
    """The files of a target on disk; each reading finds them whole but for what is changed."""

    def __init__(self, target: Any, root: Path) -> None:
        self.target, self.root = target, root
        self.folder = root / "case"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (root / OUTSIDE).write_text("not to be read")
        target.make(self.folder)
        self.whole = {str(p.relative_to(self.folder)): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        self.names = sorted(
            {str(p.relative_to(self.folder)) for g in target.files for p in self.folder.glob(g) if p.is_file()}
        )

    def put(self, files: dict[str, bytes]) -> None:
        for path in [
            p for p in self.folder.rglob("*") if not p.is_dir() and str(p.relative_to(self.folder)) not in files
        ]:
            path.unlink(missing_ok=True)  # what SQLite keeps beside a database comes and goes
        for name, data in files.items():
            path = self.folder / name
            if not path.is_file() or path.read_bytes() != data:
                path.write_bytes(data)

    def drawn(self, draw: Any) -> dict[str, bytes]:
        """The whole, with one or two files changed, dropped or in each other's place."""
        files, names = dict(self.whole), self.names
        for _ in range(one_of(draw, (1, 1, 1, 2))):
            name, how = one_of(draw, names), one_of(draw, ("change",) * 12 + ("drop", "exchange"))
            if how == "change" and name in files:
                files[name] = changed(draw, name, files[name])
            elif how == "drop" and len(names) > 1:
                files.pop(name, None)
            elif name in files:
                files[name] = self.whole[one_of(draw, names)]
        return self.target.sealed(files)


def frames(error: BaseException) -> list[str]:
    found = [
        f"{Path(f.filename).name}:{f.name}" for f in traceback.extract_tb(error.__traceback__) if "seewhy" in f.filename
    ]
    return found[-2:]


def outcome(case: Case, watch: Watch) -> tuple[str, str]:
    """What a reading ended in: ``("", "answer")`` or ``("", "told")``, or what is wrong with it and the trace."""
    from seewhy.errors import SeeWhyError

    before = peak()
    forget_peak()
    before, watch.seen, watch.own, watch.on = peak() or before, [], case.target.own, True
    said = "answer"
    try:
        case.target.read(case.folder)
    except SeeWhyError as error:
        text, said = str(error), "told"
        if "\n" in text or len(text) > 2000:
            return f"message {type(error).__name__} {frames(error)}", text[:3000]
    except Exception as error:
        return f"{type(error).__name__} {frames(error)}", traceback.format_exc()[-6000:]
    finally:
        watch.on = False
    if watch.seen:
        return f"reached out: {watch.seen[0][:60]}", "\n".join(watch.seen)
    if peak() - before > BYTES:
        return "memory", f"{(peak() - before) >> 20} MB"
    return "", said


def campaign(case: Case, watch: Watch, n: int, seed: int, known: set[str], log: Path, pulse: Path) -> dict[str, int]:
    """Some readings of one target; stops at the first new finding, made small."""
    import hypothesis
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import strategies as st

    counts = {"answer": 0, "told": 0, "known": 0, "found": 0}
    first: list[str] = []

    def reading(data: st.DataObject) -> None:
        case.put(case.drawn(data.draw))
        pulse.write_text(f"{case.target.name}\n{time.process_time()}\n{case.folder}\n")
        wrong, text = outcome(case, watch)
        pulse.write_text(f"{case.target.name}\n-1\n{case.folder}\n")
        if not wrong:
            counts[text] += 1
            return
        name = f"{case.target.name}: {wrong}"
        if name in known:
            counts["known"] += 1
            return
        if first and name != first[0]:
            return  # while one is made small, others wait for another round
        first[:] = [name]
        kept(
            case.folder,
            log / f"{case.target.name.replace(' ', '-')}-{crc32(os.fsencode(wrong)):08x}",
            f"{name}\n{text}",
        )
        raise Fresh(name)

    how = settings(
        max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False,
        phases=(Phase.generate, Phase.shrink), report_multiple_bugs=False,
    )  # fmt: skip
    test = how(hypothesis.seed(seed)(hypothesis.given(st.data())(reading)))
    try:
        test()
    except Fresh as found:
        known.add(str(found))
        counts["found"] += 1
        tell(log, str(found), seed)
    return counts


def kept(folder: Path, place: Path, said: str) -> None:
    """The files that brought a finding about, beside what is said of it."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place / "case", symlinks=True)
    (place / "trace.txt").write_text(said + "\n", errors="backslashreplace")


def targets(only: str = "") -> list[Any]:
    import checks
    import models
    import readers

    found = [*readers.pictures(), *readers.tables(), *readers.data_files(), *models.models(), *checks.checks()]
    return [t for t in found if only in t.name]


def work(seconds: float, seed: int, log: Path, only: str, n: int) -> None:
    """All targets in turn, until the time is over."""
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.CRITICAL)
    os.environ |= {"SEEWHY_CACHE": str(log / "cache"), "HF_HUB_OFFLINE": "1"}
    root = Path(tempfile.mkdtemp(prefix="fuzzed-"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(root)
    watch = Watch(root)
    known = {json.loads(line)["finding"] for line in (log / "findings.jsonl").read_text().splitlines()}
    cases, end, rounds = {}, time.time() + seconds, 0
    totals = log / "totals.json"
    with suppress(OSError):
        usual = 12 << 30
        resource.setrlimit(resource.RLIMIT_AS, (usual, resource.RLIM_INFINITY))
    while time.time() < end:
        for target in targets(only):
            if time.time() > end:
                break
            if target.name not in cases:
                cases[target.name] = Case(target, root / target.name.replace(" ", "-"))
                wrong, text = outcome(cases[target.name], watch)
                if text != "answer":
                    print(f"{target.name}, unchanged: {wrong} {text}", flush=True)
            counts = campaign(cases[target.name], watch, n, seed * 1000 + rounds, known, log, log / "pulse")
            said = json.loads(totals.read_text()) if totals.exists() else {}
            row = said.setdefault(target.name, {})
            for key, value in counts.items():
                row[key] = row.get(key, 0) + value
            totals.write_text(json.dumps(said, indent=1))
        rounds += 1
    shutil.rmtree(root, ignore_errors=True)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pulse_of(log: Path) -> tuple[str, float, str, float]:
    """The target that is read, the seconds of the processor when it began (-1 at its end), its folder, and its age."""
    path = log / "pulse"
    name, began, folder = path.read_text().split("\n")[:3]
    return name, float(began), folder, time.time() - path.stat().st_mtime


def watched(process: subprocess.Popen[bytes], log: Path) -> str:
    """Why a process was ended, or ended by itself; nothing where all is well."""
    reason = ""
    while process.poll() is None:
        time.sleep(0.5)
        with suppress(OSError, ValueError):
            _, began, _, age = pulse_of(log)
            if began >= 0 and age > SECONDS and (processor_seconds(process.pid) - began > SECONDS or age > WALL):
                reason = "hang"
                process.kill()
                process.wait()
    return reason or (f"ended with {process.returncode}" if process.returncode else "")


def tell(log: Path, finding: str, seed: int) -> None:
    with (log / "findings.jsonl").open("a") as file:
        file.write(json.dumps({"finding": finding, "seed": seed, "at": time.strftime("%H:%M:%S")}) + "\n")


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--minutes", type=float, default=60)
    parse.add_argument("--seed", type=int, default=int(time.time()))
    parse.add_argument("--log", type=Path, default=Path("build/fuzz"))
    parse.add_argument("--only", default="", help="targets whose name has this")
    parse.add_argument("--examples", type=int, default=60, help="of a target before the next one's turn")
    parse.add_argument("--work", type=float, help=argparse.SUPPRESS)
    given = parse.parse_args()
    log = given.log.resolve()
    if given.work is not None:
        work(given.work, given.seed, log, given.only, given.examples)
        return 0
    log.mkdir(parents=True, exist_ok=True)
    (log / "findings.jsonl").touch()
    end, seed = time.time() + 60 * given.minutes, given.seed
    while (left := end - time.time()) > 5:
        seed += 1
        (log / "pulse").unlink(missing_ok=True)
        command = [sys.executable, __file__, "--work", str(left), "--seed", str(seed), "--log", str(log)]
        more = ["--only", given.only, "--examples", str(given.examples)]
        if reason := watched(subprocess.Popen([*command, *more]), log):
            try:
                name, _, folder, _ = pulse_of(log)
            except OSError:
                return 2  # it did not come as far as a reading, and its error is told
            tell(log, f"{name}: {reason}", seed)
            kept(Path(folder), log / f"{name.replace(' ', '-')}-{reason.replace(' ', '-')}-{seed}", reason)
    totals = json.loads((log / "totals.json").read_text())
    n, found = sum(sum(row.values()) for row in totals.values()), (log / "findings.jsonl").read_text().splitlines()
    print(f"{n:,} readings of {len(totals)} kinds of files, {len(found)} findings; {log}")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
