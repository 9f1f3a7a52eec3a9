"""Writes into the pages what the code already says: methods, commands, defaults, verdict rules, definitions.

``make docs`` writes, the scores of new maps on planted evidence (``src/seewhy/planted.json``) too; ``python
docs/generate.py --check`` fails when a page or they are stale. ``docs/pictures.py`` makes the
pictures again.

A block lies between ``<!-- generated: NAME -->`` and ``<!-- /generated -->``; the text outside is written by hand.
``<!-- generated: json explain -->`` is the table of a JSON output; more names put several into one table.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from json import dumps, loads
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "src/seewhy/cli/settings.json"
PLANTED = {"rise": {"n_masks": 1000}}
"""Settings for scores on planted evidence: fewer masks than the default, to be done in minutes."""
LIMITS = re.compile(r"^\*\*Limits\.?\*\*\.? (.+?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"(<!-- generated: (\w+)((?: [\w-]+)*) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def families(page: Path) -> str:
    """How many methods each family has, in one line."""
    names: dict[str, list[str]] = {}
    for row in _listing():
        names.setdefault(row["family"], []).append(row["name"])
    return " · ".join(f"{family}: {len(found)}" for family, found in names.items()) + "\n"


def methods(page: Path) -> str:
    """Every registered method, with a link to its page."""
    rows = [
        (r["family"], f"[`{r['name']}`](methods/{r['name']}.md)", r["paper"], r["needs"], r["cost"]) for r in _listing()
    ]
    return table(("family", "method", "paper", "needs", "forward passes"), rows)


def attributions(page: Path) -> str:
    """Every map: what it is, costs and needs, and how often its hottest place is where evidence was planted."""
    rows = [
        (
            f"[`{r['name']}`](methods/{r['name']}.md)",
            r["summary"],
            r["cost"],
            r["needs"],
            r["planted"] or "not measured",
        )
        for r in _listing()
        if r["family"] == "where"
    ]
    return table(("method", "what it does", "forward passes", "needs", "planted evidence found"), rows)


def _listing() -> list[dict[str, Any]]:
    from seewhy.catalogue import listing

    return listing()


def facts(page: Path, *family: str) -> str:
    """Paper, needs, cost and parameters of what is registered under the page's name: of one family, or of each."""
    classes, rows = method_classes(page.stem), [row for row in _listing() if row["name"] == page.stem]
    return "\n".join(_facts(r, classes[r["family"]]) for r in rows if not family or r["family"] == " ".join(family))


def _facts(row: dict[str, Any], cls: Any) -> str:
    head = table(("", ""), [(k, row[k]) for k in ("family", "paper", "needs")] + [("forward passes", row["cost"])])
    fields = dataclasses.fields(cls)
    if not fields:
        return f"{head}\nIt has no parameters.\n"
    told = _meanings(cls)
    rows = [(f"`{f.name}`", f"`{_default(f)!r}`", told.get(f.name, "")) for f in fields]
    return f"{head}\n{table(('parameter', 'default', 'meaning'), rows)}"


def _meanings(cls: Any) -> dict[str, str]:
    """What a class and its bases say of each field; the class itself goes first."""
    found: dict[str, str] = {}
    for base in cls.__mro__[:-1]:
        _, *sections = _sections(base)
        told = dict(zip(sections[::2], sections[1::2], strict=True)).get("Args", "")
        for name, meaning in re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", told, flags=re.MULTILINE):
            found.setdefault(name, " ".join(meaning.split()))
    return found


def _sections(cls: Any) -> list[str]:
    """The body of a docstring, then name and text of each section."""
    text = inspect.cleandoc(cls.__doc__ or "")
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).replace("``", "`")
    return re.split(r"^(Args|Raises|Attributes|Examples?|Note):\n", text, flags=re.MULTILINE)


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def docstring(page: Path, *family: str) -> str:
    """What the class of a family says of itself, or the first; ``facts`` has what it says of its fields."""
    classes = method_classes(page.stem)
    cls = classes[" ".join(family)] if family else next(iter(classes.values()))
    return f"{_sections(cls)[0].strip()}\n"


def method_classes(name: str) -> dict[str, Any]:
    """The classes registered under a name, by family."""
    from seewhy.catalogue import families

    return {family: registry[name] for family, registry in families().items() if name in registry}


def rules(page: Path) -> str:
    """When an evidence counts as believable."""
    from seewhy.evidence import explain, faithfulness, words
    from seewhy.prototypes import Prototypes, prototypes
    from seewhy.registry import spelling

    stated = [("where", faithfulness.RULE), ("like what", Prototypes.rule), ("in words", words.RULE)]
    own = [name for name in prototypes if prototypes[name].rule != Prototypes.rule]
    stated += [(f"like what, by {spelling(name)}", prototypes[name].rule) for name in own]
    stated += [("what a perceiver saw", explain.RULE_OF_PERCEIVED)]
    return table(("evidence", "rule"), stated)


def decision(page: Path) -> str:
    """When a decision is called sure, not sure, or unlike anything known."""
    from seewhy.explanation.prediction import RULE

    return f"{RULE}\n"


def terms(page: Path) -> str:
    """The definitions every number on a card links to."""
    from seewhy.report.page import terms as every

    return table(("number", "definition"), [(t.name, t.text) for t in every()])


def tolerances(page: Path) -> str:
    """How far engines may differ."""
    from seewhy.encoders.engines import TOLERANCE

    return table(("precision", "largest difference"), [(k, f"{v:g}") for k, v in TOLERANCE.items()])


def reproductions(page: Path) -> str:
    """How many claims of each paper showed here, from ``reproductions/results/``; each paper has a page of its own."""
    verdicts, reports = _reports()
    return _beside("docs", "reproduction_pages").counts(reports, verdicts, page.with_suffix(""), table)


def reproduction(page: Path) -> str:
    """What one paper claims and what showed here."""
    report = next(r for r in _reports()[1] if r.name == page.stem)
    return _beside("docs", "reproduction_pages").page(report, duration(report.seconds), table)


def headlines(page: Path) -> str:
    """The claim of each paper's abstract: the paper's figure, ours and the verdict."""
    return _beside("docs", "reproduction_pages").headlines(_reports()[1], table)


def _reports() -> tuple[tuple[str, ...], list[Any]]:
    """The verdicts there are, and every report."""
    claims = _beside("reproductions", "claims")
    return claims.VERDICTS, [
        claims.read_report(path) for path in sorted((ROOT / "reproductions" / "results").glob("*.json"))
    ]


def _beside(folder: str, name: str) -> Any:
    """A script of the repository as a module."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def commands(page: Path) -> str:
    """The shared options, then each command with its arguments, options and settings, from the parsers."""
    import typer.main

    from seewhy.cli import app

    group: Any = typer.main.get_command(app)
    shared = table(("option", "meaning", "default"), _rows(group.commands["fit"], of_every=True))
    return "\n".join([f"## Options of every command\n\n{shared}", *_verbs(group, "seewhy")])


def _rows(verb: Any, of_every: bool) -> list[tuple[str, str, str]]:
    from seewhy.cli.verbs import EVERY

    shown = [p for p in verb.params if not p.hidden and (p.rich_help_panel == EVERY) is of_every]
    return [(_called(p), p.help or "", _preset(p)) for p in shown]


def _verbs(group: Any, before: str) -> Iterator[str]:
    for name, verb in group.commands.items():
        if hasattr(verb, "commands"):
            yield from _verbs(verb, f"{before} {name}")
        else:
            yield _verb(verb, f"{before} {name}")


def _verb(verb: Any, name: str) -> str:
    """One verb: what it does, its arguments and options, what ``--set`` sets, and examples to copy."""
    rows = _rows(verb, of_every=False)
    examples = [line.strip() for line in (verb.epilog or "").splitlines() if line.strip() and "Examples:" not in line]
    parts = [f"## {name}\n", f"{inspect.cleandoc(verb.help or '')}\n", table(("option", "meaning", "default"), rows)]
    settings = loads(SETTINGS.read_text("utf-8")).get(name.removeprefix("seewhy "), [])
    if settings:
        listed = [(f"`{row['name']}`", row["kind"], row["help"], f"`{row['default']}`") for row in settings]
        parts.append(table(("`--set`", "takes", "meaning", "default"), listed))
    if examples:
        parts.append("```bash\n" + "\n".join(examples) + "\n```\n")
    return "\n".join(parts)


def _called(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    return ", ".join(f"`{n.upper() if parameter.param_type_name == 'argument' else n}`" for n in names)


def _preset(parameter: Any) -> str:
    value = parameter.default
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""
    return f"`{value}`" if plain and parameter.param_type_name == "option" else ""


def json(page: Path, *names: str) -> str:
    """The keys of a JSON output, from its schema."""
    rows = [row for name in names for row in _beside("docs", "json_tables").rows(name)]
    return table(("key", "type", "meaning"), rows)


def outputs(page: Path) -> str:
    """The keys of every JSON output."""
    from seewhy.results import list_schemas, schema

    return "\n".join(f"## {n}\n\n{_sentence(schema(n).get('description', ''))}{json(page, n)}" for n in list_schemas())


def _sentence(text: str) -> str:
    return f"{text}\n\n" if text else ""


def duration(seconds: float) -> str:
    """In words.

    >>> duration(43), duration(620)
    ('43 seconds', '10 minutes')
    """
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def contract(page: Path) -> str:
    """Every figure of an audit with the limit that is written for it."""
    from seewhy.studies.auditing.contract import CHECKS

    rows = [(f"`{c.name}`", c.told, c.limit.told, "yes" if c.limit.required else "no") for c in CHECKS.values()]
    return table(("figure", "what", "limit that is written", "required"), rows)


def numbered_card(page: Path) -> str:
    """What the card with numbers says, by the rules as they were when docs/pictures.py drew it."""
    told = loads((ROOT / "docs/images/numbered.json").read_text("utf-8"))
    rows = [(name, row["verdict"].lower(), row["sentence"]) for name, row in told.items()]
    return table(("on this card", "verdict", "its words"), rows)


BLOCKS: dict[str, Callable[..., str]] = {f.__name__: f for f in (families, methods, attributions)}
BLOCKS |= {f.__name__: f for f in (facts, docstring, rules, decision, terms, tolerances, headlines)}
BLOCKS |= {f.__name__: f for f in (reproductions, reproduction, commands, json, outputs, contract, numbered_card)}


def rendered(page: Path) -> str:
    """The page as it should be."""
    return BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]](page, *m[3].split()) + m[4], page.read_text("utf-8"))


def stale() -> list[Path]:
    """Pages that differ from what the code says."""
    return [page for page in pages() if rendered(page) != page.read_text("utf-8")]


def write_missing() -> list[Path]:
    """A page for every method and reproduction without one; add by hand what a reader needs."""
    wanted = {ROOT / f"docs/methods/{name}.md": _method_page(name) for name in {r["name"] for r in _listing()}}
    wanted |= {
        ROOT / f"docs/reproductions/{r.name}.md": f"# {r.title}\n\n{_empty('reproduction')}" for r in _reports()[1]
    }
    missing = [page for page in wanted if not page.exists()]
    for page in missing:
        page.parent.mkdir(exist_ok=True)
        page.write_text(wanted[page], "utf-8")
    return missing


def _method_page(name: str) -> str:
    """The first text of a page; a name with several kinds has a heading for each."""
    kinds = list(method_classes(name))
    if len(kinds) == 1:
        return f"# {name}\n\n{_empty('docstring')}\n{_empty('facts')}"
    parts = (f"\n## The {kind}\n\n{_empty(f'docstring {kind}')}\n{_empty(f'facts {kind}')}" for kind in kinds)
    return f"# {name}\n{''.join(parts)}"


def _published() -> dict[str, list[dict[str, Any]]]:
    """Method → its scores in the package."""
    from seewhy.catalogue import published

    rows: dict[str, list[dict[str, Any]]] = {}
    for row in published():
        rows.setdefault(row["method"], []).append(row)
    return rows


def _scores(name: str, **how: Any) -> list[Any]:
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    try:
        from planting import score_methods
    finally:
        sys.path.pop()
    return score_methods([name], **how)


def unscored() -> list[str]:
    """Maps to score on planted evidence, and scored maps that no longer exist; a trained map refuses each model."""
    from seewhy.attributions import attributions

    known = _published()
    new = [name for name in attributions if name not in known and _scores(name, n=1)]
    return [*new, *(name for name in known if name not in attributions)]


def write_scores(names: list[str]) -> None:
    """Score these on planted evidence; all other scores stay."""
    from seewhy.attributions import attributions
    from seewhy.catalogue import published

    found = {name: rows for name, rows in _published().items() if name in attributions}
    for name in set(names) & set(attributions):
        found[name] = [dataclasses.asdict(row) for row in _scores(name, settings=PLANTED)]
    scores = [row for name in sorted(found) for row in found[name]]
    kept = {"command": "make docs", "settings": PLANTED, "scores": scores}
    place = ROOT / "src/seewhy/planted.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(dumps(kept, indent=1) + "\n", "utf-8")
    published.cache_clear()


def _empty(block: str) -> str:
    return f"<!-- generated: {block} -->\n<!-- /generated -->\n"


def settings_text() -> str:
    """``settings.json``: each setting that can be written as text, with its type, preset and meaning, a line each."""
    from seewhy.cli.settings import SETTINGS as VERBS

    verbs = []
    for verb, parts in VERBS.items():
        rows = [dumps(row, ensure_ascii=False) for part in parts for row in setting_rows(part)]
        verbs.append(f"{dumps(verb)}: [\n " + ",\n ".join(rows) + "\n]")
    return "{\n" + ",\n".join(verbs) + "\n}\n"


def setting_rows(part: Any) -> list[dict[str, str]]:
    """Of a class by its full name, or of settings that are fields of nothing."""
    from pkgutil import resolve_name

    from seewhy.bounds import typed
    from seewhy.parameters import documented, settings_of, written

    if isinstance(part, dict):
        rows = [(name, typed(own.kind), written(own.preset), own.help) for name, own in part.items()]
    else:
        cls = resolve_name(part)
        meanings = documented(cls)[1]
        rows = [(s.name, s.kind, s.default, meanings.get(s.name, ("", ""))[1]) for s in settings_of(cls)]
    keys = ("name", "kind", "default", "help")
    return [dict(zip(keys, row, strict=True)) for row in rows if row[1] != "a value made in Python"]


def main() -> int:
    new = unscored()
    if new and "--check" in sys.argv:
        print(f"src/seewhy/planted.json lacks or should lack {', '.join(new)}; run make docs")
    if "--check" not in sys.argv:
        if new:
            write_scores(new)
            print("src/seewhy/planted.json written")
        write_missing()
    if SETTINGS.read_text("utf-8") != settings_text():
        print(f"{SETTINGS.relative_to(ROOT)} {'is stale; run make docs' if '--check' in sys.argv else 'written'}")
        if "--check" in sys.argv:
            return 1
        SETTINGS.write_text(settings_text(), "utf-8")
    old = stale()
    for page in old:
        print(f"{page.relative_to(ROOT)} {'is stale; run make docs' if '--check' in sys.argv else 'written'}")
        if "--check" not in sys.argv:
            page.write_text(rendered(page), "utf-8")
    return int(bool(old or new) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
