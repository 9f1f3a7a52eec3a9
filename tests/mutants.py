"""Wrong changes that the tests should see: ``make mutants``, or ``python tests/mutants.py --rooms trust -n 40``.

Each change (an operator, a comparison, a constant, a dropped call, swapped arguments) is made in a copy of the source
and met by the tests of its own room alone. What was tried is kept in a file, so that a run that was stopped goes on.
A survivor is a hole in the tests, or a change that changes nothing: a person has to say which.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip

ELSEWHERE = {
    "explanation": ("card", "evidence"),
    "language": ("pairs", "annotation", "descriptions"),
    "learning": ("adaptation", "objectives", "training"),
    "report": ("card",),
    "retrieval": ("index",),
    "service": ("app", "serve", "graphs"),
}
"""Rooms whose tests lie in folders of other names."""


def kind_of(node: ast.AST) -> str | None:
    """Which change a node takes, if any."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return "operator"
    if isinstance(node, ast.Compare):
        return "comparison"
    if isinstance(node, ast.BoolOp):
        return "and, or"
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        return "constant"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return "dropped call"
    if isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
        return "swapped arguments"
    return None


def change(node: ast.AST) -> None:
    """Make the change of `kind_of` in the tree."""
    if isinstance(node, ast.BinOp):
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        node.ops[0] = COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.Expr):
        node.value = ast.Constant(None)
    elif isinstance(node, ast.Call):
        node.args[0], node.args[1] = node.args[1], node.args[0]


def running(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run: no annotations, in an order that stays."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        yield node
        silent = {id(getattr(node, name, None)) for name in ("annotation", "returns")}
        left.extend(child for child in ast.iter_child_nodes(node) if id(child) not in silent)


def sites(path: Path) -> list[int]:
    """Places among `running` nodes that can be changed."""
    return [i for i, node in enumerate(running(ast.parse(path.read_text("utf-8")))) if kind_of(node)]


def mutant(text: str, site: int) -> tuple[str, dict[str, object]]:
    """The changed source, and what was changed."""
    tree = ast.parse(text)
    node = list(running(tree))[site]
    told: dict[str, object] = {"kind": kind_of(node), "line": node.lineno}  # type: ignore[attr-defined]
    before = ast.unparse(node)
    change(node)
    told["change"] = f"{before}  →  {ast.unparse(node)}"
    return ast.unparse(tree), told


def own_tests(file: str) -> list[str]:
    """The tests of the nearest folder that has some; a room that is one file has ``test_ROOM.py``."""
    parts = Path(file).parts[1:]
    for room in reversed(parts[:-1] or (Path(file).stem,)):
        names = [room, f"test_{room}.py", *ELSEWHERE.get(room, ())]
        tests = [f"tests/{name}" for name in names if (ROOT / "tests" / name).exists()]
        if tests:
            return tests
    return []


def drawn(rooms: list[str], n: int, seed: int) -> list[tuple[str, str, int]]:
    """Room, file and place of ``n`` changes, as many from each room as its share of places, at least one."""
    places = {
        room: [
            (room, str(path.relative_to(SOURCE)), site)
            for path in [*sorted((SOURCE / "seewhy").glob(f"{room}/**/*.py")), SOURCE / "seewhy" / f"{room}.py"]
            if path.exists()
            for site in sites(path)
        ]
        for room in rooms
    }
    total = sum(map(len, places.values())) or 1
    chosen = []
    for room, found in places.items():
        take = min(len(found), max(1, round(n * len(found) / total)))
        chosen += random.Random(f"{seed} {room}").sample(found, take)
    return chosen


def passes(copy: Path, tests: list[str], limit: float) -> bool:
    """Whether these tests pass on the copy; a change that does not end in time is seen."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "", "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=limit).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    files = [p for p in (SOURCE / "seewhy").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    rooms = sorted(p.stem for p in files if own_tests(str((p if p.suffix else p / "_").relative_to(SOURCE))))
    parser.add_argument("--rooms", nargs="+", default=rooms, choices=rooms, metavar="ROOM")
    parser.add_argument("-n", type=int, default=200, help="changes, over all rooms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, default=ROOT / "build" / "mutants.jsonl", help="what was tried")
    asked = parser.parse_args()
    asked.record.parent.mkdir(parents=True, exist_ok=True)
    lines = asked.record.read_text("utf-8").splitlines() if asked.record.exists() else []
    tried = {(row["file"], row["site"], row["digest"]): row for row in map(json.loads, lines)}
    limits: dict[tuple[str, ...], float] = {}
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        copy = Path(shutil.copytree(SOURCE, Path(folder) / "src", ignore=shutil.ignore_patterns("__pycache__")))
        for room, file, site in drawn(asked.rooms, asked.n, asked.seed):
            text = (SOURCE / file).read_text("utf-8")
            key = (file, site, f"{len(text)}-{sum(text.encode())}")
            if key not in tried:
                tests = own_tests(file)
                if tuple(tests) not in limits:
                    began = time.monotonic()
                    if not passes(copy, tests, 1800):
                        sys.exit(f"{' '.join(tests)} fail on the source as it is. Mend them first.")
                    limits[tuple(tests)] = 30 + 3 * (time.monotonic() - began)
                changed, told = mutant(text, site)
                (copy / file).write_text(changed, "utf-8")
                row = {"room": room, "file": file, "site": site, "digest": key[2], **told}
                tried[key] = {**row, "survived": passes(copy, tests, limits[tuple(tests)])}
                (copy / file).write_text(text, "utf-8")
                with asked.record.open("a", encoding="utf-8") as record:
                    record.write(json.dumps(tried[key], ensure_ascii=False) + "\n")
            results.append(tried[key])
            print("survived" if results[-1]["survived"] else "seen    ", file, results[-1]["line"], flush=True)
    for room, number in Counter(row["room"] for row in results).items():
        print(f"{room}: {sum(r['survived'] for r in results if r['room'] == room)} of {number} survived")
    for row in results:
        if row["survived"]:
            print(f"src/{row['file']}:{row['line']}  {row['kind']}:  {row['change'][:200]}")


if __name__ == "__main__":
    main()
