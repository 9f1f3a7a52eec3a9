"""JSON Schemas of the outputs: each is one, each verb has one, and outputs are held to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import typer.main
from typer.testing import CliRunner

import seewhy
from schemas import check, keys, named, printed
from seewhy.cli import app
from seewhy.errors import UnknownNameError
from seewhy.results import list_schemas

PICTURE = {"image": "a.png", "label": "wren", "score": 1.0, "top": [{"label": "wren", "score": 1.0}]}
FAILED = {"image": "b.png", "error": "It is empty."}
FREE = {"settings", "objects", "explanation"}
"""Keys that hold what no schema says: a method's or a study's own settings, what annotators wrote, and chosen parts."""


def parts(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, with the key it stands at."""
    if not isinstance(node, dict):
        return
    yield key, node
    for name, inner in (*node.get("properties", {}).items(), *node.get("$defs", {}).items()):
        yield from parts(inner, name)
    for inner in (node.get("items"), node.get("additionalProperties"), *node.get("anyOf", ())):
        yield from parts(inner, key)


@pytest.mark.parametrize("name", list_schemas())
def test_each_is_a_schema_that_says_all(name: str) -> None:
    whole = seewhy.schema(name)
    jsonschema.Draft202012Validator.check_schema(whole)
    for key, part in parts(whole):
        if "$ref" in part:
            assert part["$ref"].removeprefix("#/$defs/") in whole["$defs"], part
        assert {"type", "$ref", "anyOf", "const", "enum"} & set(part) or key in FREE, (key, part)
        assert set(part.get("required", ())) <= set(part.get("properties", ())), (key, part)
        assert part.get("type") != "array" or {"items", "prefixItems"} & set(part), (key, part)


def verbs(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, verb in group.commands.items():
        if hasattr(verb, "commands"):
            yield from verbs(verb, (*before, name))
        else:
            yield "-".join((*before, name)), verb


def test_every_verb_has_a_schema() -> None:
    named = {name for name, _ in verbs(typer.main.get_command(app))}
    assert len(named) >= 19
    assert named - set(list_schemas()) == {"describe-write", "study-generate", "app", "serve"}, "of other names"
    others = {"failure", "prediction", "explanation", "dry-run", "annotation", "retrieval", "training-cost", "findings"}
    others |= {"pretrain-pictures", "corrected", "audit", "drift", "pairs-check", "pairs-clean"}
    others |= {"describe-classes", "describe-pairs", "generate"}
    others |= {"fit-answers", "fit-prototypes", "fit-explainer", "fit-segmenter", "fit-detector"}
    others |= {"embed", "embed-status", "verify"}
    others |= {"segmentation", "detections", "masks", "evaluate-boxes"}
    rest = set(list_schemas()) - named - others
    assert {name.partition("-")[0] for name in rest} == {"app", "annotate", "serve"}, "pages"


def test_users_may_find_more_keys_and_tests_may_not() -> None:
    more = {**PICTURE, "colour": "brown"}
    jsonschema.validate(more, seewhy.schema("predict"))
    for verb in ("predict", "explain"):
        jsonschema.validate(FAILED, seewhy.schema(verb))
        check(verb, [FAILED])
    check("predict", [PICTURE])
    with pytest.raises(AssertionError, match=r"not as the schema of predict says: .*'colour' was unexpected"):
        check("predict", [more])
    with pytest.raises(AssertionError, match="'colour' was unexpected"):
        check("predict", [{**PICTURE, "top": [{"label": "wren", "score": 1.0, "colour": "brown"}]}])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"score": 1.5}, r"\$.score: 1.5 is greater than the maximum of 1"),
        ({"score": None}, r"\$.score: None is not of type 'number'"),
        ({"top": [{"label": "wren"}]}, r"\$.top\[0\]: 'score' is a required property"),
        ({"decision": {"verdict": "surely"}}, r"\$.decision.verdict: 'surely' is not one of"),
    ],
)
def test_what_is_wrong_is_told(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check("prediction", [{**PICTURE, **changed}])
    with pytest.raises(AssertionError, match=says):
        check("predict", [{**PICTURE, **changed}])


def test_what_a_command_prints_is_held_to_its_schema() -> None:
    line = json.dumps({"n_prompts": 0})
    printed(["python", "-m", "seewhy", "describe", "match", "photos", "--json"], line)
    printed(["explain", "--json"], None)
    printed(["predict", "a.png"], "a.png: wren")
    with pytest.raises(AssertionError, match=r"not as the schema of index says"):
        printed(["python", "-m", "seewhy", "index", "photos", "--json"], line.encode())


def test_keys_are_written_as_in_the_documentation() -> None:
    decided = {"decision.unknowns.near", "top[].score", "image", "error"}
    assert decided <= named("predict")
    assert set(keys(PICTURE)) == {"image", "label", "score", "top", "top[].label", "top[].score"}


def test_schemas_are_on_the_command_line() -> None:
    done = CliRunner().invoke(app, ["methods", "--json-schema", "all"])
    assert done.stdout.splitlines() == list_schemas()
    done = CliRunner().invoke(app, ["methods", "--json-schema", "study faithfulness"])
    assert json.loads(done.stdout) == seewhy.schema("study-faithfulness")


def test_a_name_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        seewhy.schema("explan")
    assert str(caught.value) == (
        "There is no JSON output called 'explan'. Did you mean 'explain' or 'explanation' or 'fit-explainer'?"
    )
    with pytest.raises(UnknownNameError, match="shared"):
        seewhy.schema("shared")


def test_a_schema_that_is_edited_changes_no_later_one() -> None:
    first = seewhy.schema("failure")
    first["properties"].clear()
    first["required"].append("mine")
    assert set(seewhy.schema("failure")["required"]) < {*first["required"]}
    assert seewhy.schema("failure")["properties"]["image"]["type"] == "string"
