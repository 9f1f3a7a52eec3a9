"""``seewhy describe`` as people run it, with a service that answers as a test tells it to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fake_service import Refusal, Service, serving
from schemas import check
from seewhy.cli import main

KEY = "sk-verysecretindeed42"
BULLETS = "- red beak\n- black cap\n- long tail"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, a key, and nothing else of the environment."""
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


def seewhy(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["seewhy", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def printed_json(capsys: pytest.CaptureFixture[str], verb: str) -> Any:
    """The one line that it printed, as its schema says."""
    found = json.loads(capsys.readouterr().out)
    check(verb, [found])
    return found


def classes(service: Service, *more: object) -> tuple[object, ...]:
    return ("describe", "write", "wren, robin", "-o", "b.json", "-w", "m", "--base-url", service.url, *more)


def test_classes_are_written_kept_and_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda request: BULLETS) as service:
        assert seewhy(monkeypatch, *classes(service, "--dry-run", "--set", "price_in=2", "--set", "price_out=4")) == 0
        assert service.requests == []
        assert capsys.readouterr().out.startswith("2 questions to ask, 0 answered before; about ")
        assert seewhy(monkeypatch, *classes(service, "--json", "--set", "max_tokens=50")) == 0
        assert printed_json(capsys, "describe-classes") == {"file": "b.json", "written": 2, "failed": {}}
        assert json.loads(Path("b.json").read_text())["wren"] == ["red beak", "black cap", "long tail"]
        assert [r["max_tokens"] for r in service.requests] == [50, 50]
        assert seewhy(monkeypatch, *classes(service, "--set", "max_tokens=50")) == 0
        assert len(service.requests) == 2
        capsys.readouterr()
        assert seewhy(monkeypatch, *classes(service, "--set", "max_tokens=50", "--dry-run", "--json")) == 0
    told = printed_json(capsys, "describe-classes")
    assert told == {"n_prompts": 2, "n_known": 2, "tokens_in": 0, "tokens_out": 0, "cost": 0.0}


def test_what_failed_is_named_and_the_rest_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: dict[str, Any]) -> str:
        return BULLETS if "robin" in request["messages"][1]["content"] else "I would rather not."

    with serving(answer) as service:
        assert seewhy(monkeypatch, *classes(service)) == 1
    said = capsys.readouterr()
    assert said.out == "b.json: 1 written. Check and edit these texts before you rely on them.\n"
    assert "seewhy: no text for 'wren': m at " in said.err
    assert "gave 3 invalid answers, the last because it has 0 lines" in said.err
    assert "Use a larger model, or write these descriptions by hand.\n" in said.err


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_a_key_is_shown_nowhere_and_kept_nowhere(
    debug: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with serving(lambda request: 401) as service:
        monkeypatch.setattr(sys, "argv", ["seewhy", *map(str, classes(service)), *debug])
        with pytest.raises((SystemExit, Exception)) as ended:
            main()
    import traceback

    trace = "".join(traceback.format_exception(ended.value))
    said = capsys.readouterr()
    assert service.keys == [f"Bearer {KEY}"]
    assert "verysecret" not in said.out + said.err + trace
    assert debug == () or "NoWriterError" in trace
    kept = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert kept
    assert all(b"verysecret" not in p.read_bytes() for p in kept)
    assert not Path("b.json").exists()


def test_a_refused_parameter_is_left_out_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def picky(request: dict[str, Any]) -> str | Refusal:
        return Refusal(400, "Unsupported value: temperature") if "temperature" in request else BULLETS

    with serving(picky) as service:
        assert seewhy(monkeypatch, *classes(service)) == 2
        assert "Add --set leave_out=temperature, or change the value." in capsys.readouterr().err
        assert seewhy(monkeypatch, *classes(service, "--set", "leave_out=temperature, seed")) == 0
    assert "seed" not in service.requests[-1]


def test_a_stopped_run_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = True

    def answer(request: dict[str, Any]) -> str:
        return BULLETS

    with serving(answer) as service:
        from seewhy.language.service_writer import ServiceWriter

        whole = ServiceWriter.write

        def write(self: ServiceWriter, prompt: Any) -> str:
            if stop and "robin" in prompt.user:
                raise KeyboardInterrupt
            return whole(self, prompt)

        monkeypatch.setattr(ServiceWriter, "write", write)
        assert seewhy(monkeypatch, *classes(service)) == 130
        said = capsys.readouterr().err
        assert "seewhy: stopped (Asking for descriptions: 1 of 2). Kept: " in said
        assert said.endswith("the answers so far. Run the same command again to continue from there.\n")
        assert len(service.requests) == 1
        stop = False
        assert seewhy(monkeypatch, *classes(service)) == 0
    assert len(service.requests) == 2
    assert set(json.loads(Path("b.json").read_text())) == {"wren", "robin"}


def test_mistakes_in_options_are_one_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def err(*arguments: object) -> str:
        assert seewhy(monkeypatch, *arguments) == 2
        return capsys.readouterr().err

    said = err("describe", "write", "wren, robin", "-o", "b.json", "-w", "m", "--base-url", "localhost:1")
    assert said == ("seewhy: --base-url must be a URL like http://localhost:11434/v1, got 'localhost:1'.\n")
    said = err("describe", "write", "wren, robin", "-o", "b.json", "-w", "m", "--set", "leave_out=top_p")
    assert "seewhy: --set leave_out must name parameters from" in said
    assert "A language model is required. Give it with --writer." in err(
        "describe", "write", "wren, robin", "-o", "b.json"
    )
    said = err("describe", "write", "wren", "-o", "b.json", "-w", "m")
    assert said == "seewhy: At least two class names are required, got 1. Separate the names by commas.\n"
    said = err("describe", "write", "wren, robin", "-o", "b.json", "-w", "m", "--base-url", "http://localhost:1/v1")
    assert said == (
        "seewhy: m at http://localhost:1/v1 did not answer: Connection error. Check --base-url, --writer and the key.\n"
    )


def test_answers_that_cannot_be_kept_stop_the_run_before_anything_is_paid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache" / "written.sqlite"
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("no database " * 100)
    with serving(lambda request: BULLETS) as service:
        assert seewhy(monkeypatch, *classes(service)) == 2
    assert service.requests == []
    assert capsys.readouterr().err.startswith(f"seewhy: Answers cannot be saved in {cache}: ")


def test_a_verb_that_may_do_without_a_writer_says_that_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert seewhy(monkeypatch, "describe", "images", tmp_path, "-o", "d.jsonl", "--dry-run") == 0
    assert capsys.readouterr().out == "no --writer was named, so there is no language model to ask\n"
    assert seewhy(monkeypatch, "describe", "images", tmp_path, "-o", "d.jsonl", "--dry-run", "--json") == 0
    assert printed_json(capsys, "describe-images") == {"n_prompts": 0}
