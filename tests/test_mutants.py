"""The changes that ``make mutants`` makes are those it says, and nothing beside them."""

from __future__ import annotations

import ast

import pytest

from mutants import drawn, kind_of, mutant, own_tests, running


@pytest.mark.parametrize(
    ("line", "kind", "changed"),
    [
        ("a + b", "operator", "a - b"),
        ("a / b", "operator", "a * b"),
        ("a < b", "comparison", "a <= b"),
        ("a is not b", "comparison", "a is b"),
        ("a and b", "and, or", "a or b"),
        ("x = 3", "constant", "x = 4"),
        ("x = True", "constant", "x = False"),
        ("f(a)", "dropped call", "None"),
        ("x = f(a, b, c)", "swapped arguments", "x = f(b, a, c)"),
    ],
)
def test_one_change_of_a_kind(line: str, kind: str, changed: str) -> None:
    nodes = list(running(ast.parse(line)))
    (site,) = [i for i, node in enumerate(nodes) if kind_of(node)]
    text, told = mutant(line, site)
    assert (text, told["kind"], told["line"]) == (changed, kind, 1)


@pytest.mark.parametrize(
    "line", ["x: f(a, 3)", "def g(a: f(a, 3)) -> h(a, 3): pass", "x = 'a'", "f(*a, b)\nreturn_ = x"]
)
def test_what_does_not_run_is_left(line: str) -> None:
    kinds = {kind_of(node) for node in running(ast.parse(line))} - {None}
    assert kinds <= {"dropped call"}


def test_the_same_seed_draws_the_same_and_each_room_has_its_share() -> None:
    chosen = drawn(["trust", "retrieval"], 30, 0)
    assert chosen == drawn(["trust", "retrieval"], 30, 0)
    assert chosen != drawn(["trust", "retrieval"], 30, 1)
    assert abs(len(chosen) - 30) <= 2
    assert {room for room, _file, _site in chosen} == {"trust", "retrieval"}
    assert all(file.startswith(f"seewhy/{room}") for room, file, _site in chosen)


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("trust/folds.py", ["tests/trust"]),
        ("retrieval/catalogue.py", ["tests/index"]),
        ("learning/adaptation/prompts.py", ["tests/adaptation"]),
        ("learning/way.py", ["tests/adaptation", "tests/objectives", "tests/training"]),
        ("bounds.py", ["tests/test_bounds.py"]),
        ("printable.py", []),
    ],
)
def test_a_change_is_met_by_the_nearest_tests(file: str, tests: list[str]) -> None:
    assert own_tests(f"seewhy/{file}") == tests
