"""Colours stand in one place: what a page, a style sheet or a still picture shows comes from there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from seewhy.report import canvas, palette
from seewhy.report.page import environment
from seewhy.report.palette import COLOURS

SOURCE = Path(palette.__file__).parents[1]
SHEETS = sorted(path for room in ("report", "service/app") for path in (SOURCE / room / "templates").iterdir())
SHADOWS = {"rgb(0 0 0", "rgb(255 255 255"}
"""Black and white that only darken and lighten what is below them."""


@pytest.mark.parametrize("path", SHEETS, ids=lambda path: path.name)
def test_no_template_has_a_colour_of_its_own(path: Path) -> None:
    text = re.sub(r'(href="|url\()#[^")]*', "", path.read_text("utf-8"))
    hexadecimal = r"#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b"
    of_declarations = rf":[^;{{}}]*?{hexadecimal}[^{{}}]*[;}}]"  # an id in a selector may look like one
    assert re.findall(of_declarations if path.suffix == ".css" else hexadecimal, text) == []
    assert {found.rsplit(" / ")[0] for found in re.findall(r"rgba?\([^)]*", text)} <= SHADOWS


def test_no_still_picture_has_a_colour_of_its_own() -> None:
    for path in sorted((SOURCE / "report").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Tuple) and len(node.elts) in (3, 4):
                whole = [e.value for e in node.elts if isinstance(e, ast.Constant) and type(e.value) is int]
                assert len(whole) < 3 or max(whole) < 100, f"{path.name}:{node.lineno} {ast.unparse(node)}"


def test_pages_are_given_the_palette() -> None:
    style = str(environment().globals["style"])
    light, dark, paper = re.findall(r":root \{(.*?)(?:--sans|\})", style, re.DOTALL)
    for block, colours in ((light, palette.LIGHT), (dark, palette.DARK), (paper, palette.LIGHT)):
        given = dict(re.findall(r"--(\w+): (#\w+);", block))
        assert colours.items() <= given.items()
    assert set(palette.LIGHT) == set(palette.DARK)
    every = style + "".join(path.read_text("utf-8") for path in SHEETS)
    assert set(re.findall(r"var\(--(\w+)\)", every)) <= set(re.findall(r"--(\w+)(?::|\", )", every)), (
        "each is given somewhere"
    )
    assert re.findall(r"/\* (?:light|dark|print|heat) \*/", style) == []


def test_the_scale_has_the_colours_of_the_heat() -> None:
    stops = re.findall(r"(#\w{6}) (\d+)%", palette.heat_gradient())
    assert [palette.rgb(colour) for colour, _ in stops] == [tuple(COLOURS[i].tolist()) for i in (0, 66, 128, 194, 255)]
    assert [int(at) for _, at in stops] == [0, 26, 50, 76, 100]
    assert f"linear-gradient(90deg, {palette.heat_gradient()})" in str(environment().globals["style"])


def test_the_still_draws_with_the_colours_of_the_day() -> None:
    names = ("paper", "sheet", "ink", "quiet", "line", "well", "idle", "ember", "good", "part", "bad")
    assert [getattr(canvas, name.upper()) for name in names] == [palette.rgb(palette.LIGHT[name]) for name in names]
    assert (canvas.MARK, canvas.EDGE) == ((255, 255, 255), (20, 18, 16))
