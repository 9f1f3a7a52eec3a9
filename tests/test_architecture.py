"""The house's own laws, read off the source: arrows point one way, no drawers for odds and ends, no big files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "seewhy"
FILES = sorted(SOURCE.rglob("*.py"))

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "registry", "subject", "types"),
    ("cache", "colours", "decoding", "files", "listener", "seeded", "storage"),
    ("decoder_process", "images", "kept", "listing", "page", "thumbnails"),
    ("data", "store"),
    ("encoders",),
    ("features", "training_pictures"),
    ("classifiers", "attributions", "prototypes", "descriptions", "metrics", "objectives", "training"),
    ("explanation", "index", "likeness", "perceived", "planted"),
    ("card",),
    ("evidence",),
    ("evaluation",),
    ("annotation", "api", "compat", "foreign", "studies"),
    ("app",),
    ("cli",),
)
"""Rooms from the ground up; a room may use its own floor and those below it."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0]


def at_module_level(tree: ast.Module) -> Iterator[ast.ImportFrom | ast.Import]:
    """Imports that run when the module is loaded; those for type checkers and inside functions do not."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            yield node


def rooms_imported(path: Path) -> set[str]:
    package = ["seewhy", *path.relative_to(SOURCE).parts[:-1]]
    found = set()
    for node in at_module_level(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = [".".join([*module, alias.name]) for alias in node.names] if len(module) < 2 else [".".join(module)]
        found |= {n.split(".")[1] for n in names if n.startswith("seewhy.")}
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(p) for p in FILES} - {"__init__", "__main__"}
    assert rooms - set(FLOOR) == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    upward = {r for r in rooms_imported(path) if FLOOR.get(r, -1) > FLOOR[room]}
    assert upward == set(), f"{path.relative_to(SOURCE)} imports {upward}, which is above it"


def test_no_drawer_for_odds_and_ends() -> None:
    banned = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert [p for p in FILES if p.stem in banned or p.parent.name in banned] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 400
    functions = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef))
    long = {f.name: n for f in functions if (n := _code_lines(f)) >= 50}
    assert long == {}


def _code_lines(function: ast.FunctionDef) -> int:
    """Lines without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def test_no_assert_guards_what_a_user_gives() -> None:
    """Input is checked with errors of the tree; an assert may only narrow a type for mypy."""
    kinds = (ast.Compare, ast.Call, ast.BoolOp)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Assert):
                assert isinstance(node.test, kinds)
                assert node.msg is None, f"{path.name}:{node.lineno} asserts with a message; raise an error instead"


def test_nothing_loads_a_pickle_as_code() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"), path
            if called == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
