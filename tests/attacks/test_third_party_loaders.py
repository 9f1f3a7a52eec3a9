"""Where other libraries load something: read off the source, so that the next loader is held to the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "seewhy"
FILES = {str(p.relative_to(SOURCE)): ast.parse(p.read_text("utf-8")) for p in sorted(SOURCE.rglob("*.py"))}

OWN = {"trust_remote_code": False, "local_files_only": True}
"""What every loader of transformers' is told."""

FENCED = {"create_model", "get_tokenizer", "get_model", "load_file", "from_config"}
"""Loaders that stand behind the fence, unless they are told to load nothing."""

NOTHING = {("pretrained", False), ("weights", None)}

ONLY: dict[str, set[str]] = {
    "snapshot_download": {"encoders/weights.py"},
    "hf_hub_download": set(),
    "urlopen": {"encoders/weights.py"},
    "urlretrieve": set(),
    "download_url_to_file": {"encoders/weights.py"},
    "load_state_dict_from_url": set(),
    "read_index": set(),
    "safe_open": {"encoders/weights.py"},
    "load_file": {"encoders/weights.py"},
    "load_tensors": {"storage/reading.py"},
    "input": set(),
    "read_text": {  # files of the person's, and of the packages
        "language/annotation/formats.py", "classifiers/unfitted.py", "catalogue.py",
        "language/textualize_run.py",
        "descriptions/base.py", "language/captions.py", "cli/annotate.py",
        "cli/options.py", "encoders/engines.py", "encoders/names.py", "studies/inspection/earlier.py",
        "training/memory.py", "storage/marks.py", "report/page.py", "cli/verbs.py",
        "cli/settings.py", "report/palette.py", "language/experts.py", "language/questions.py",
        "language/annotation/records.py", "language/annotation/rounds.py", "language/annotation/store.py",
    },
}  # fmt: skip
"""Calls, by the last part of their name, and the files that may make them."""

NEVER = (
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "marshal.load", "shelve.open", "joblib.load",
    "dill.load", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "yaml.load", "runpy.run_path",
    "importlib.util.spec_from_file_location", "os.system",
)  # fmt: skip

OWN_FILES = ("classifiers/", "index/", "prototypes/", "attributions/", "training.py", "kept.py")
"""Rooms whose files were made by SeeWhy: one reader reads them all."""


def calls() -> Iterator[tuple[str, ast.Call, list[ast.AST]]]:
    """Every call, with the nodes around it, outermost first."""

    def walk(node: ast.AST, above: list[ast.AST]) -> Iterator[tuple[ast.Call, list[ast.AST]]]:
        if isinstance(node, ast.Call):
            yield node, above
        for child in ast.iter_child_nodes(node):
            yield from walk(child, [*above, node])

    for file, tree in FILES.items():
        for call, above in walk(tree, []):
            yield file, call, above


CALLS = [(file, ast.unparse(call.func), call, above) for file, call, above in calls()]


def last(name: str) -> str:
    return name.rpartition(".")[2]


def constants(call: ast.Call) -> set[tuple[str, object]]:
    return {(k.arg, k.value.value) for k in call.keywords if k.arg and isinstance(k.value, ast.Constant)}


def is_fenced(above: list[ast.AST]) -> bool:
    """Whether it stands inside ``with fenced(…)``, or ``with loading(…)``, which stands behind the fence."""
    withs = (item.context_expr for node in above if isinstance(node, ast.With) for item in node.items)
    return any(isinstance(w, ast.Call) and ast.unparse(w.func) in ("fenced", "loading") for w in withs)


def dictionaries(tree: ast.AST) -> set[str]:
    """Names of dictionaries in a file that hold all that :data:`OWN` does, or that come from the file that has it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).endswith("fence"):
            found |= {alias.name for alias in node.names if alias.name == "OWN" and alias.asname is None}
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(value, ast.Dict):
            pairs = {
                (k.value, v.value)
                for k, v in zip(value.keys, value.values, strict=True)
                if isinstance(k, ast.Constant) and isinstance(v, ast.Constant)
            }
            if pairs >= set(OWN.items()):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {ast.unparse(target) for target in targets}
    return found


def fenced_functions(file: str) -> set[str]:
    """Functions of a file that are called behind the fence, and nowhere else."""
    own = [(last(name), above) for f, name, _, above in CALLS if f == file]
    inside = {name for name, above in own if is_fenced(above)}
    return inside - {name for name, above in own if not is_fenced(above)}


def told() -> list[tuple[str, str, ast.Call, list[ast.AST]]]:
    return [c for c in CALLS if last(c[1]) == "from_pretrained"]


@pytest.mark.parametrize("call", told(), ids=lambda c: f"{c[0]}:{c[2].lineno}")
def test_transformers_is_told_to_trust_nothing(call: tuple[str, str, ast.Call, list[ast.AST]]) -> None:
    file, name, node, above = call
    names = {n.id for k in node.keywords if k.arg is None for n in ast.walk(k.value) if isinstance(n, ast.Name)}
    assert set(OWN.items()) <= constants(node) or names & dictionaries(FILES[file]), f"{file}:{node.lineno} {name}"
    around = {n.name for n in above if isinstance(n, ast.FunctionDef)}
    assert is_fenced(above) or around & fenced_functions(file), f"{file}:{node.lineno} {name} is not fenced"


def test_there_are_such_calls() -> None:
    assert {file for file, *_ in told()} == {
        "dense/pretrained.py",
        "encoders/huggingface.py",
        "encoders/multimodal.py",
        "encoders/fence.py",
        "language/writers.py",
    }


def test_loaders_stand_behind_the_fence() -> None:
    bare = [
        f"{file}:{node.lineno} {name}"
        for file, name, node, above in CALLS
        if last(name) in FENCED and not is_fenced(above) and not constants(node) & NOTHING
    ]
    assert bare == []


def test_pickles_are_read_as_tensors_alone() -> None:
    for file, name, node, _ in CALLS:
        assert name not in NEVER, f"{file}:{node.lineno} {name}"
        if name == "torch.load":
            assert ("weights_only", True) in constants(node), f"{file}:{node.lineno}"
        if last(name) in ("load", "open_memmap"):
            assert ("allow_pickle", True) not in constants(node), f"{file}:{node.lineno}"
        assert ("trust_remote_code", True) not in constants(node), f"{file}:{node.lineno}"


@pytest.mark.parametrize("name", ONLY)
def test_what_fetches_and_reads_lies_in_one_place(name: str) -> None:
    """The built-in ``input``, and ``read_text`` of paths: storage has a function of that name."""
    other = {"input": lambda called: called != name, "read_text": lambda called: called == name}.get(
        name, lambda _: False
    )
    assert {file for file, called, *_ in CALLS if last(called) == name and not other(called)} <= ONLY[name]


def test_standard_input_is_named_in_one_place() -> None:
    """The decoder and the workers of a run are processes of their own, which are spoken to there."""
    named = {f for f, tree in FILES.items() for n in ast.walk(tree) if ast.unparse(n) == "sys.stdin"}
    assert named == {"cli/terminal.py", "pictures/decoder_process.py", "scale/run.py"}


def test_databases_are_opened_in_one_place() -> None:
    assert {file for file, name, *_ in CALLS if name == "sqlite3.connect"} == {"storage/database.py"}


def test_what_seewhy_made_is_read_by_one_reader() -> None:
    """JSON and bytes of saved things come through storage/reading.py alone."""
    allowed = {
        "classifiers/unfitted.py:json.loads",  # of the package
        "attributions/explainers.py:json.loads",  # of a text just made
    }
    found = {
        f"{file}:{name}"
        for file, name, *_ in CALLS
        if file.startswith(OWN_FILES) and (name in ("json.load", "json.loads") or last(name) in ("read_bytes", "loads"))
    }
    assert found <= allowed


def test_only_a_person_chooses_an_encoder() -> None:
    """Encoders are found by name for the command line, for Python's short way in, and where a file may name one."""
    users = set()
    for file, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("find"):
                users |= {file for alias in node.names if alias.name == "encoder" and "encoders" in (node.module or "")}
                users |= {file for alias in node.names if alias.name == "encoder" and file.startswith("encoders/")}
    assert {u for u in users if not u.startswith("cli/")} == {
        "sklearn.py",
        "api.py",
        "dense/by_words.py",
        "dense/detection/fit.py",
        "generation/generate.py",
        "scale/work.py",
    }
