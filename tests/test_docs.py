"""The documentation is under test: what it states is what the code does, and what it shows runs."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer.main
from PIL import Image
from typer.testing import CliRunner

from schemas import check, keys, named
from seewhy.catalogue import listing
from seewhy.cli import app
from seewhy.evaluation.figures import FURTHER
from seewhy.evidence.explain import agree
from seewhy.explanation.similar import Like, Likeness
from seewhy.explanation.verdict import Missing, Verdict
from seewhy.pictures import images
from seewhy.pictures.samples import TABLES
from seewhy.pictures.sources import SUFFIXES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
RUN = (
    "README.md", "docs/start.md", "docs/python.md", "docs/adding_a_method.md", "docs/training.md",
    "docs/coming_from.md", "docs/made_pictures.md", "docs/concepts.md",
)  # fmt: skip


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The script that writes the generated blocks."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_blocks_say_what_the_code_says(generate: ModuleType) -> None:
    assert [str(page.relative_to(ROOT)) for page in generate.stale()] == [], "run: make docs"


def test_every_method_has_a_page_and_every_page_a_method() -> None:
    assert {path.stem for path in (DOCS / "methods").glob("*.md")} == {row["name"] for row in listing()}, "make docs"


def test_every_page_of_a_method_says_what_it_is_for_and_shows_a_call() -> None:
    wrong = []
    for page in sorted((DOCS / "methods").glob("*.md")):
        lines = re.sub(r"<!--.*?-->\n", "", page.read_text("utf-8")).splitlines()
        first = " ".join(lines[1:]).strip().partition(". ")[0].split()
        if (
            not 4 < len(first) <= 25
            or first[0].startswith(("|", "`", "#", "**"))
            or not any(line in ("```bash", "```python") for line in lines)
        ):
            wrong.append(page.stem)
    assert wrong == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 120


def test_every_benchmark_is_listed() -> None:
    folder = ROOT / "benchmarks"
    listed = set(re.findall(r"^\| `(\w+)\.py", (folder / "README.md").read_text("utf-8"), re.MULTILINE))
    assert listed == {path.stem for path in folder.glob("*.py")} - {"side_by_side"}
    run = re.search(r"^BENCHES := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert run is not None
    assert set(run[1].replace("\\", "").split()) <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_pictures_are_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    broken = []
    for target in targets:
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(target)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


def test_the_pictures_are_small() -> None:
    assert [p.name for p in (DOCS / "images").iterdir() if p.stat().st_size > 200_000] == []


def test_commands_and_options_shown_exist() -> None:
    verbs: Any = typer.main.get_command(app)
    wrong = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.rpartition("| ")[2], comments=True)
                if words[:1] != ["seewhy"]:
                    continue
                if page.name == "CHANGELOG.md":  # typed as in its version
                    continue
                verb = verbs.commands[words[1]]
                verb = verb.commands[words[2]] if hasattr(verb, "commands") else verb
                known = {o for p in verb.params for o in (*p.opts, *p.secondary_opts)}
                wrong += [(page.name, line, w) for w in words[2:] if re.match(r"--?\w", w) and w not in known]
    assert wrong == []


def verbs_of(group: Any) -> Iterator[Any]:
    """Every verb, those of groups too."""
    for verb in group.commands.values():
        yield from verbs_of(verb) if hasattr(verb, "commands") else (verb,)


def test_options_named_in_the_text_exist() -> None:
    known = {
        o for verb in verbs_of(typer.main.get_command(app)) for p in verb.params for o in (*p.opts, *p.secondary_opts)
    }
    known |= {"--check", "--version", "--debug", "--help", "--n-classes", "--n-chosen", "--n-texts", "--count"}
    known |= {"--search-networks", "--k", "--m", "--reads", "--generator"}
    for page in (page for page in PAGES if page.name != "CHANGELOG.md"):  # which names what is gone
        named = {
            n for code in re.findall(r"`(--[^`]+)`", page.read_text("utf-8")) for n in re.findall(r"--[\w-]+", code)
        }
        assert named <= known, page.name


def test_dependencies_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    wanted = {_name(r) for r in [*project["build-system"]["requires"], *(r for rs in lists for r in rs)]}
    rows = re.findall(r"^\| ([\w-]+) \|", (DOCS / "dependencies.md").read_text("utf-8"), re.MULTILINE)
    listed = [row for row in rows if row not in ("package", "---")]
    assert sorted(listed) == sorted(wanted - {"seewhy"})


def _name(requirement: str) -> str:
    return re.split(r"[\[><=~! ;]", requirement)[0].lower()


def test_what_data_md_states_is_so() -> None:
    text = (DOCS / "data.md").read_text("utf-8")
    assert [s for s in (*SUFFIXES, *TABLES) if s not in text] == []
    assert f"{images._DEFAULT_MAX_PIXELS:,} pixels" in text


@pytest.mark.parametrize(
    ("same", "says"), [(10, "agrees:"), (7, "agrees:"), (6, "only in part:"), (4, "only in part:"), (3, "disagrees:")]
)
def test_the_bounds_of_agreement_are_those_of_concepts_md(same: int, says: str) -> None:
    verdict = Verdict("believable", "", "")
    box = (0, 0, 1, 1)
    patches = tuple(Likeness("A", "", "a" if i < same else "b", box, box, 1.0, 1.0) for i in range(10))
    like = Like("nearest", patches, 1.0, None, None, verdict)
    found = agree("a", torch.zeros(2, 2), None, like, Missing("", ""), False)
    assert says in found.sentence
    assert found.score == same / 10
    assert ("close to the limit" in found.notes) == (same in (4, 7))
    text = (DOCS / "concepts.md").read_text("utf-8")
    assert "From 0.7 the card says" in text
    assert "from 0.4 that it agrees only in part. Within 0.09 of" in text


# What follows runs the real thing on real pictures.


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages suppose it: a photograph, pictures to fit on, pictures to test on, descriptions."""
    import skimage.data

    folder = tmp_path_factory.mktemp("docs")
    Image.fromarray(skimage.data.chelsea()).save(folder / "photo.jpg")
    for label in ("brick", "grass", "gravel"):
        photo = Image.fromarray(getattr(skimage.data, label)())
        for i in range(12):
            left, top = 128 * (i // 4), 128 * (i % 4)
            path = folder / ("test" if i in (8, 11) else "photos") / label / f"{label}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.crop((left, top, left + 128, top + 128)).save(path)
    classes = {"brick": ["a wall of rectangular blocks"], "grass": ["a lawn"], "gravel": ["small round stones"]}
    (folder / "classes.json").write_text(json.dumps(classes))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.mark.slow
def test_the_numbered_card_says_what_the_rules_say_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts and wording; figures to two digits hang on libraries. The page's text is made of the same file."""
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    monkeypatch.chdir(tmp_path)
    card = pictures.gravel(tmp_path)
    assert pictures.numbered(card).size[0] == 1400, "every part that gets a number is found"

    def worded(told: dict[str, dict[str, str]]) -> dict[str, tuple[str, str]]:
        return {k: (v["verdict"], re.sub(r"[<>−]?\d+(\.\d+)?", "#", v["sentence"])) for k, v in told.items()}

    kept = json.loads((DOCS / "images" / "numbered.json").read_text("utf-8"))
    assert worded(pictures.said(card)) == worded(kept), "run: python docs/pictures.py, then make docs"


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_python_blocks_run(name: str, place: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL)
    assert blocks
    command = [sys.executable, "-W", "error", "-c", "\n".join(blocks)]
    done = subprocess.run(command, cwd=place, capture_output=True, encoding="utf-8", timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


EARS = {"attribute": "ears", "first": "a cat with pointed ears", "second": "a dog with drooping ears"}


@pytest.fixture(scope="module")
def outputs(place: Path) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What the command line prints with ``--json``, by verb."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield told(place)


def told(place: Path) -> dict[str, list[dict[str, Any]]]:
    def run(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
        done = CliRunner().invoke(app, [*arguments, "--json", "--quiet"], catch_exceptions=False)
        assert done.exit_code == code, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    shutil.copy(place / "broken.jpg", place / "photos" / "brick")
    fit = run("fit", "photos", "-o", "model", "--descriptions", "classes.json", "--set", "n_crops=1")
    predict = run("predict", "photo.jpg", "broken.jpg", "-m", "model", code=1)
    unmeasured = run("predict", "photo.jpg", "--labels", "cat,dog")
    explain = run("explain", "test/brick/brick-8.png", "broken.jpg", "-m", "model", "--because", code=1)
    plain = run("explain", "photo.jpg", "--labels", "cat,dog", "--no-measure", "-o", "plain")
    (place / "pairs.json").write_text(json.dumps([{"classes": ["cat", "dog"], "differences": [EARS]}]))
    asked = ["--follow-up", "pairs.json", "--set", "neurons=2", "--no-measure"]
    followed = run("explain", "photo.jpg", "--labels", "cat,dog", *asked, "-o", "followed.json")
    run("fit", "photos", "-o", "without_words", "--set", "n_crops=0")
    wordless = run("explain", "photo.jpg", "-m", "without_words", "-o", "wordless.json")
    how = ["--set", "n_prototypes=4", "--set", "shrinkage=0.2", "--set", "n_rotated=64"]
    prototypes = run("fit", "photos", "--task", "prototypes", "-m", "without_words", *how)
    epic = run("explain", "photo.jpg", "-m", "without_words", "-o", "epic.json", "--because")
    run("fit", "photos", "-o", "knn", "--method", "neighbours")
    voted = run("explain", "photo.jpg", "-m", "knn", "-o", "voted.json", "--no-measure")
    quick = ["memory_steps=2", "judge_epochs=1", "n_copies=2", "width=8", "depth=2"]
    run("fit", "photos", "-o", "perceiver", "--method", "perceptual", *(x for s in quick for x in ("--set", s)))
    seen = run("explain", "photo.jpg", "-m", "perceiver", "--no-measure", "-o", "seen.json")
    (place / "test" / "brick" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(place / "test" / "grass" / "grass-8.png", place / "test" / "brick" / "grass.png")  # a sure confusion
    shutil.copy(place / "photos" / "brick" / "brick-1.png", place / "test" / "brick" / "seen_before.png")
    asked = ["--n-explained", "2", "--unknown", "photos/gravel", "--cards", "wrong"]
    evaluate = run("evaluate", "test", "-m", "model", *asked)
    assert len(list((place / "wrong").glob("*.html"))) >= 2, "a card and the index"
    return {
        "fit": fit,
        "fit-prototypes": prototypes,
        "predict": [*predict, *unmeasured],
        "explain": [*explain, *plain, *followed, *wordless, *epic, *voted, *seen],
        "evaluate": evaluate,
    }


ELSEWHERE = ("part", "typical", "where.outside")
"""What ``explain`` says of boxes, segments, typical pictures and objects: tests/dense/test_part_cards.py and
tests/evidence/test_typical.py and test_outside.py look at these."""


OF_SEVERAL = {
    "predict": {"labels", "answers", "decisions"},
    "explain": {"question"},
    "evaluate": {
        "kind", "level", "labels", "mean_average_precision", "mean_average_precision_interval", "macro_f1", "questions",
        "all_right",
    },
}  # fmt: skip
"""Keys of models that make several decisions: tests/cli/test_several.py looks at these."""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["predict", "explain", "evaluate", "fit", "fit-prototypes"])
def test_json_is_as_documented(verb: str, outputs: dict[str, list[dict[str, Any]]]) -> None:
    """Whether it is as its schema says is seen to for every test; here, that nothing is documented which is not."""
    rare = {
        "explain": {"words[].written_for", "words[].adds"},  # of texts of another class, and of sparse_concepts
        "evaluate": {k for k in named(verb) if k.partition(".")[2].startswith(FURTHER)},  # with --faithfulness
        "fit": {k for k in named(verb) if k.startswith("weak_classes[]")},  # tests/trust/test_groups.py
    }
    check(verb, outputs[verb])
    found = {key for row in outputs[verb] for key in keys(row)}
    of_data = named("retrieval") | named("evaluate-boxes") | named("masks")  # whose own tests look at them
    rare["evaluate"] |= of_data - found
    many = (named("embed") | named("embed-status")) - found  # --parquet: tests/scale
    found_words = named("findings") - found  # --finding: tests/cli/test_findings.py
    rare["explain"] |= {k for k in named(verb) - found if k.startswith(ELSEWHERE)} | many
    rare["evaluate"] |= {
        k for k in named(verb) if k.startswith("faithfulness.outside")
    }  # tests/evidence/test_outside.py
    rare["predict"] = many | found_words
    for of, first in OF_SEVERAL.items():
        rare[of] |= {k for k in named(of) if k.partition(".")[0].removesuffix("[]") in first}
    rare = {of: keys & (named(verb) - found) for of, keys in rare.items()}
    assert named(verb) - found == rare.get(verb, set())


@pytest.mark.slow
def test_boxes_have_an_inside(outputs: dict[str, list[dict[str, Any]]]) -> None:
    shown = [row for row in outputs["explain"] if "error" not in row]
    for row in shown:
        for left, top, right, bottom in (one["box"] for one in (*row["where"]["regions"], *row["like"])):
            assert left < right
            assert top < bottom


def test_the_site_is_laid_out_with_links_that_lead_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page, without Sphinx: ``make docs`` builds it, and ends at a broken link."""
    monkeypatch.syspath_prepend(str(DOCS))
    import build_site

    tmp_path = tmp_path / "pages"
    build_site.lay_out(tmp_path)
    pages = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.md")}
    assert {"index.md", "changelog.md", "contributing.md", "methods/rise.md", "reproductions/epic.md"} <= pages
    for page in sorted(pages):
        text = re.sub(r"```.*?```", "", (tmp_path / page).read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
            assert (tmp_path / page).parent.joinpath(target).exists(), (page, target)
    contents = "".join((tmp_path / page).read_text("utf-8") for page in pages if "/" not in page)
    own = {f"{p.stem}.md" for p in DOCS.glob("*.md")} - {"index.md"}
    assert [name for name in sorted(own) if f"<{name}>" not in contents] == [], "list it in docs/index.md"
    assert "<tutorials/index>" in contents
    first = (tmp_path / "index.md").read_text("utf-8")
    assert len(re.findall(r"^.+ <\S+>$", first, re.MULTILINE)) <= 25, "entries in the side bar before one is opened"
    assert ":hidden:" in first


def test_links_of_the_readme_lead_to_the_repository_on_a_package_page() -> None:
    spec = importlib.util.spec_from_file_location("package_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.whole((ROOT / "README.md").read_text("utf-8"))
    assert re.findall(r'\]\((?!https://)[^)]*|(?:src|href)="(?!https://)[^"]*', text) == []
    assert f'src="{module.PICTURES}docs/images/card.png"' in text
    assert f"]({module.PAGES}docs/start.md)" in text
