"""The house's own laws, read off the source: arrows point one way, no drawers for odds and ends, no big files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from seewhy.catalogue import families

SOURCE = Path(__file__).resolve().parents[1] / "src" / "seewhy"
FILES = sorted(SOURCE.rglob("*.py"))

CORE = (
    "spelling",
    "errors",
    "threads",
    "processes",
    "printable",
    "float32",
    "seeded",
    "clusters",
    "undisturbed",
    "registry",
    "bounds",
    "arguments",
    "parameters",
    "results",
    "types",
    "explanation",
    "progress",
    "storage",
    "pictures",
    "report",
    "encoders",
    "heads",
    "training",
    "attributions",
    "metrics",
    "trust",
    "descriptions",
    "prototypes",
    "keywords",
    "classifiers",
    "evidence",
    "evaluation",
    "api",
    "catalogue",
    "cli",
)
"""From the ground up, each on a floor of its own: it may use those before it, in whatever place an import stands."""

WINGS = (
    "compat", "dense", "generation", "language", "learning", "retrieval", "scale", "service", "sklearn", "studies",
)  # fmt: skip
"""Rooms that the core does not know: they register themselves as another package would, through entry points."""

UPWARD = {
    ("classifiers/base.py", "evidence"): "classifier.explain(…)",
    ("classifiers/base.py", "evaluation"): "classifier.evaluate(…)",
    ("explanation/base.py", "report"): "explanation.save(…), and in a notebook",
}
"""The arrows that point up, so that a result or a classifier can be asked for what is made from it."""

BESIDE = {
    ("learning", "studies"),
    ("dense", "learning"),
    ("dense", "studies"),
    ("language", "studies"),
    ("learning", "language"),
    ("scale", "retrieval"),
    ("service", "language"),
    ("service", "studies"),
    ("studies", "language"),
    ("studies", "learning"),
}
"""Wings that use another wing."""

CORE_USES = {
    ("cli", "dense"),
    ("cli", "generation"),
    ("cli", "language"),
    ("cli", "learning"),
    ("cli", "retrieval"),
    ("cli", "scale"),
    ("cli", "service"),
    ("cli", "studies"),
}
"""To be emptied."""

METHODS = tuple(
    sorted(
        str(path.relative_to(SOURCE).with_suffix(""))
        for room in ("learning/adaptation", "learning/self_explaining")
        for path in (SOURCE / room).iterdir()
        if path.name in ("gist.py", "gpt4image.py", "perceptual.py") or (path.is_dir() and path.name != "__pycache__")
    )
)
FLOOR = {room: floor for floor, room in enumerate(CORE)}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """What of ours a file imports, anywhere in it: ``encoders.base``, and ``encoders`` where names of the room are."""
    package = ["seewhy", *path.relative_to(SOURCE).parts[:-1]]
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            named = {".".join([*module, alias.name]) for alias in node.names}
            found |= named if len(module) < 2 else {".".join(module)}
    return {name.partition(".")[2] for name in found if name.startswith("seewhy.")}


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(p) for p in FILES} - {"__init__", "__main__"}
    assert rooms ^ {*CORE, *WINGS} == set()


def used(path: Path) -> set[str]:
    """The rooms that a file uses, in imports and in texts that name a module."""
    texts = (n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant))
    named = {t.split(".")[1] for t in texts if isinstance(t, str) and re.fullmatch(r"seewhy(\.\w+)+", t)}
    return {name.partition(".")[0] for name in imported(path)} | named


def test_the_core_knows_no_wing_and_a_wing_few_others() -> None:
    core = {(room_of(p), w) for p in FILES if room_of(p) in CORE for w in used(p) if w in WINGS}
    assert core == CORE_USES
    beside = {(room_of(p), w) for p in FILES if room_of(p) in WINGS for w in used(p) if w in WINGS}
    assert {(a, b) for a, b in beside if a != b} == BESIDE


def test_imports_point_down() -> None:
    upward = {
        (str(path.relative_to(SOURCE)), room)
        for path in FILES
        if room_of(path) in FLOOR
        for room in {name.partition(".")[0] for name in imported(path)}
        if FLOOR.get(room, -1) > FLOOR[room_of(path)]
    }
    assert upward == set(UPWARD)


def test_no_method_uses_a_part_of_another() -> None:
    of_others = [
        (str(path.relative_to(SOURCE)), name)
        for method in METHODS
        for path in [*(SOURCE / method).rglob("*.py"), *SOURCE.glob(f"{method}.py")]
        for name in imported(path)
        for other in METHODS
        if other != method and name.startswith(other.replace("/", "."))
    ]
    assert len(METHODS) >= 6
    assert of_others == []


def test_no_drawer_for_odds_and_ends() -> None:
    banned = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert [p for p in FILES if p.stem in banned or p.parent.name in banned] == []


def test_files_and_functions_are_short() -> None:
    long = {}
    for path in FILES:
        text = path.read_text("utf-8")
        name = str(path.relative_to(SOURCE))
        if (n := len(text.splitlines())) >= 450:
            long[name] = n
        functions = (n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef))
        long |= {f"{name}:{f.name}": n for f in functions if (n := _code_lines(f)) >= 50}
    assert long == {}


def _code_lines(function: ast.FunctionDef) -> int:
    """Lines without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def test_shapes_in_signatures_are_texts() -> None:
    """A bare number is taken by new versions of jaxtyping alone."""
    bare = re.compile(r"\b(?:Bool|Complex|Float|Inexact|Int|Integer|Num|Real|Shaped|UInt8)\[[\w. |]+, *\d")
    lines = {path: path.read_text("utf-8").splitlines() for path in FILES}
    assert [f"{path.name}:{i}" for path, of in lines.items() for i, line in enumerate(of, 1) if bare.search(line)] == []
    assert bare.search("def box_iou(boxes: Int[Tensor, 4]) -> None:")


def test_no_assert_guards_what_a_user_gives() -> None:
    """Input is checked with errors of the tree; an assert may only narrow a type for mypy."""
    kinds = (ast.Compare, ast.Call, ast.BoolOp)
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Assert):
                assert isinstance(node.test, kinds)
                assert node.msg is None, f"{path.name}:{node.lineno} asserts with a message; raise an error instead"


def test_nothing_loads_a_pickle_as_code() -> None:
    for path in FILES:
        for node in ast.walk(tree(path)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"), path
            if called == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path


WRITES_BY_METHOD = {
    "write_text", "write_bytes", "unlink", "rmdir", "mkdir", "touch", "rename", "symlink_to", "hardlink_to",
    "save_file",    "to_csv", "to_parquet", "open_memmap", "write_index", "save_model", "savefig", "extractall",
}  # fmt: skip
WRITES_BY_NAME = re.compile(
    r"os\.(replace|rename|renames|remove|unlink|truncate|mkdir|makedirs|link|symlink|rmdir|removedirs)|"
    r"shutil\.(?!which|disk_usage|get_terminal_size)\w+|tempfile\.\w+|sqlite3\.connect|np\.(save|savez\w*|savetxt)|"
    r"torch\.(save|onnx\.export)|joblib\.dump|pickle\.dump"
)
MAY_WRITE = {
    ("encoders/engines.py", "save_model"): "OpenVINO writes itself, into a new folder of the storage's",
    ("encoders/convert.py", "torch.onnx.export"): "ONNX as well",
    ("prototypes/cells.py", "np.memmap"): "mapped, in the cache, under a name that nobody has",
}


def writing_calls(tree: ast.Module) -> Iterator[str]:
    """Calls that write, empty, rename or delete something on the disk, or open a database."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        modes = [a.value for a in (*node.args[:3], *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
        writes = any(isinstance(m, str) and re.fullmatch(r"[rwaxbt+]{1,3}", m) and set(m) & set("wax+") for m in modes)
        if last in WRITES_BY_METHOD:
            yield last
        elif WRITES_BY_NAME.fullmatch(name) or (name in ("np.memmap", "numpy.memmap") and "c" not in modes):
            yield name
        elif (last == "open" and writes) or (name == "os.open" and "O_WRONLY" in ast.unparse(node)):
            yield "open"
        elif last == "save" and node.args and ".fromarray(" in name and ast.unparse(node.args[0]) not in IN_MEMORY:
            yield "Image.save"


IN_MEMORY = ("file", "buffer")
"""What pictures are encoded into."""


def test_only_the_storage_writes() -> None:
    """Whatever else would write goes through it, and so never over a file that SeeWhy did not make."""
    found = {
        (str(path.relative_to(SOURCE)), call)
        for path in FILES
        if room_of(path) != "storage"
        for call in writing_calls(tree(path))
    }
    assert found - {("cli/__init__.py", "open")} == set(MAY_WRITE)  # that one closes standard output


@pytest.mark.parametrize(
    "line",
    [
        "open(p, 'w')", "open(p, mode='ab')", "p.open('r+b')", "p.write_text('')", "p.unlink()", "os.replace(a, b)",
        "shutil.rmtree(p)", "sqlite3.connect(p)", "tempfile.mkdtemp()", "np.save(p, a)", "torch.save(a, p)",
        "save_file(a, p)", "np.memmap(p, 'f4', 'w+')", "Image.fromarray(a).save(p)", "os.truncate(p, 0)", "p.mkdir()",
    ],
)  # fmt: skip
def test_a_call_that_writes_is_seen(line: str) -> None:
    assert list(writing_calls(ast.parse(line)))


def test_a_call_that_reads_is_none_that_writes() -> None:
    reads = "open(p); open(p, 'rb'); p.open(); shutil.which('x'); p.read_text('utf-8'); 'a'.replace('b', 'c')"
    assert list(writing_calls(ast.parse(reads))) == []


def test_errors_of_the_operating_system_are_quoted_without_their_numbers() -> None:
    """``[Errno 28] No space left on device: 'x/y'`` names a number, and the file twice."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for handler in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(handler, ast.ExceptHandler) or "OSError" not in ast.dump(handler.type or ast.Pass()):
                continue
            raised = [part for one in handler.body if isinstance(one, ast.Raise) for part in ast.walk(one)]
            values = [part.value for part in raised if isinstance(part, ast.FormattedValue) and part.conversion < 0]
            if any(isinstance(value, ast.Name) and value.id == handler.name for value in values):
                found.append(f"{path.relative_to(SOURCE)}:{handler.lineno}")
    assert found == [], "quote it by storage.reading.reason"


def test_nothing_is_printed_past_what_makes_lines_whole() -> None:
    """Names and texts of others are shown through ``say``, which escapes what would steer a terminal."""
    for path in FILES:
        if room_of(path) == "cli" and path.name != "terminal.py":
            for node in ast.walk(tree(path)):
                assert not (isinstance(node, ast.Call) and ast.unparse(node.func) == "print"), path


SAME_WORD = {
    ("learning/adaptation/gpt4image.py", "linear"): "a projection's form",
    ("learning/objectives/pairs.py", "clip"): "a form of a loss",
    ("encoders/diffusion.py", "linear"): "a schedule's form",
    ("encoders/huggingface.py", "siglip"): "an architecture of transformers'",
    ("retrieval/catalogue.py", "look"): "a key of what an index says of itself",
}
"""Literals that are no method's name, whatever they look like."""


def compared_literals(tree: ast.Module) -> Iterator[str]:
    """Texts that something is compared with, or looked for among, in comparisons, ``match`` and ``startswith``."""
    for node in ast.walk(tree):
        sides: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            (".startswith", ".endswith", ".removeprefix")
        ):
            sides = [*node.args]
        for side in sides:
            for one in side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]:
                if isinstance(one, ast.Constant) and isinstance(one.value, str):
                    yield one.value


def is_own(path: Path, name: str) -> bool:
    """Whether a file is the method's own: called after it, or in a folder that is."""
    return path.stem.startswith(name) or name in path.relative_to(SOURCE).parts


def test_nothing_branches_on_the_name_of_a_method() -> None:
    names = {name for registry in families().values() for name in registry}
    assert {"epic", "linear", "grad_cam", "road"} <= names
    found = {
        (str(path.relative_to(SOURCE)), literal)
        for path in FILES
        for literal in compared_literals(tree(path))
        if literal in names and not is_own(path, literal)
    }
    assert found == set(SAME_WORD)


@pytest.mark.parametrize(
    "line",
    [
        "m.name == 'epic'", "'epic' != m", "m in ('x', 'epic')", "m not in ['epic']", "m.startswith('epic')",
        "'epic' in prototypes", "match m:\n    case 'epic': pass", "match m:\n    case 'x' | 'epic': pass",
    ],
)  # fmt: skip
def test_a_branch_on_a_name_is_seen(line: str) -> None:
    assert "epic" in list(compared_literals(ast.parse(line)))


def test_what_only_takes_a_method_by_its_name_is_no_branch() -> None:
    reads = "prototypes['epic']; d['epic'] is None; f(mode='epic') > 0; method = 'epic'"
    assert list(compared_literals(ast.parse(reads))) == []
