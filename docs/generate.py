"""Writes into the pages what the code says already: method tables, defaults, verdict rules, tolerances, definitions.

``make docs`` writes; ``python docs/generate.py --check`` fails when a page is stale; ``--pictures`` makes the two
card pictures anew through the real command line (a minute).

A block lies between ``<!-- generated: NAME -->`` and ``<!-- /generated -->``; the text outside is written by hand.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 1000
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


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


def _listing() -> list[dict[str, Any]]:
    from seewhy.catalogue import listing

    return listing()


def facts(page: Path) -> str:
    """Paper, needs, cost and defaults of what is registered under the page's name, family by family."""
    classes = method_classes(page.stem)
    return "\n".join(_facts(row, classes[row["family"]]) for row in _listing() if row["name"] == page.stem)


def _facts(row: dict[str, Any], cls: Any) -> str:
    head = table(("", ""), [(k, row[k]) for k in ("family", "paper", "needs")] + [("forward passes", row["cost"])])
    fields = dataclasses.fields(cls)
    if not fields:
        return f"{head}\nIt has no parameters.\n"
    return f"{head}\n{table(('parameter', 'default'), [(f'`{f.name}`', f'`{_default(f)!r}`') for f in fields])}"


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def docstring(page: Path) -> str:
    """What the class says of itself, for pages without a text of their own."""
    text = inspect.cleandoc(next(iter(method_classes(page.stem).values())).__doc__ or "")
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).replace("``", "`")
    body, *sections = re.split(r"^(Args|Raises|Attributes|Examples?|Note):\n", text, flags=re.MULTILINE)
    said = dict(zip(sections[::2], sections[1::2], strict=True))
    arguments = re.sub(r"\n {8,}", " ", said.get("Args", ""))
    items = re.sub(r"^ {4}(\w+): ", r"- `\1`: ", arguments, flags=re.MULTILINE)
    return "\n\n".join(part.strip() for part in (body, items) if part.strip()) + "\n"


def method_classes(name: str) -> dict[str, Any]:
    """The classes registered under a name, by family."""
    from seewhy.attributions import attributions
    from seewhy.classifiers import classifiers
    from seewhy.metrics import metrics
    from seewhy.objectives import objectives
    from seewhy.prototypes import prototypes, reasons

    registries: dict[str, Any] = {"classifier": classifiers, "where": attributions, "metric": metrics}
    registries |= {"like what": prototypes, "because": reasons, "objective": objectives}
    return {family: registry[name] for family, registry in registries.items() if name in registry}


def rules(page: Path) -> str:
    """When an evidence counts as believable."""
    from seewhy.evidence import like, perceived, voters, where, words

    stated = [("where", where.RULE), ("like what", like.RULE), ("in words", words.RULE)]
    stated += [("like what, by EPIC", like.EPIC_RULE), ("like what, by a ProtoPNet", like.PROTOPNET_RULE)]
    stated += [("like what, by a vote", voters.VOTERS_RULE), ("what a perceiver saw", perceived.RULE)]
    return table(("evidence", "rule"), stated)


def decision(page: Path) -> str:
    """When a decision is called sure, one of few, or of nothing known."""
    from seewhy.decision import RULE

    return f"{RULE}\n"


def terms(page: Path) -> str:
    """The definitions every number on a card links to."""
    from seewhy.card.glossary import REPORT_TERMS, SEEN_TERMS, TERMS

    return table(("number", "definition"), [(t.name, t.text) for t in (*TERMS, *SEEN_TERMS, *REPORT_TERMS)])


def tolerances(page: Path) -> str:
    """How far engines may differ."""
    from seewhy.encoders.precision import TOLERANCE

    return table(("precision", "largest difference"), [(k, f"{v:g}") for k, v in TOLERANCE.items()])


def reproductions(page: Path) -> str:
    """What each paper claims and what showed here, from ``reproductions/results/``: a summary, then paper by paper."""
    sys.path.insert(0, str(ROOT / "reproductions"))
    try:
        from claims import VERDICTS, read_report
    finally:
        sys.path.pop(0)
    reports = [read_report(path) for path in sorted((ROOT / "reproductions" / "results").glob("*.json"))]
    counts = [
        (
            f"[{r.title}](#{anchor(r.title)})",
            f"[`{r.name}`](../reproductions/{r.name}.py)",
            r.paper,
            *(sum(c.verdict == v for c in r.claims) for v in VERDICTS),
        )
        for r in reports
    ]
    return "\n".join([table(("question", "script", "paper", *VERDICTS), counts), *map(_reproduction, reports)])


def _reproduction(report: Any) -> str:
    """One paper's section."""
    rows = [
        (f"*{c.section}*: {c.claim}" if c.section else c.claim, c.rule, f"{c.measured}; n = {c.n}", f"**{c.verdict}**")
        for c in report.claims
    ]
    about = {
        "Pictures": report.data,
        "Model": report.model,
        "Run": f"{report.machine}, {duration(report.seconds)}, seed {report.seed}",
    }
    parts = [
        f"## {report.title}\n\n{report.paper}.\n\n```bash\n{report.command}\n```\n",
        "".join(f"- {key}: {text}\n" for key, text in about.items()),
        table(("the paper's claim", "rule", "measured", "verdict"), rows),
    ]
    if report.differences:
        parts.append("Other than in the paper:\n\n" + "".join(f"- {text}\n" for text in report.differences))
    return "\n".join(parts)


def anchor(title: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def duration(seconds: float) -> str:
    """In words.

    >>> duration(43), duration(620)
    ('43 seconds', '10 minutes')
    """
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


BLOCKS: dict[str, Callable[[Path], str]] = {
    f.__name__: f for f in (families, methods, facts, docstring, rules, decision, terms, tolerances, reproductions)
}


def rendered(page: Path) -> str:
    """The page as it should be."""
    return BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]](page) + m[3], page.read_text("utf-8"))


def stale() -> list[Path]:
    """Pages that differ from what the code says."""
    return [page for page in pages() if rendered(page) != page.read_text("utf-8")]


def write_missing() -> list[Path]:
    """A page for every method that has none yet, out of its docstring; add to it by hand what a reader needs."""
    missing = [ROOT / f"docs/methods/{row['name']}.md" for row in _listing()]
    missing = [page for page in missing if not page.exists()]
    for page in missing:
        page.write_text(f"# {page.stem}\n\n{_empty('docstring')}\n{_empty('facts')}", "utf-8")
    return missing


def _empty(block: str) -> str:
    return f"<!-- generated: {block} -->\n<!-- /generated -->\n"


def pictures() -> None:
    """The cards shown in README.md and docs/start.md, in 256 colours."""
    import skimage.data
    from PIL import Image

    sys.path.insert(0, str(ROOT / "examples"))
    from fit_and_explain import main as fit

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        Image.fromarray(skimage.data.coffee()).save(folder / "coffee.png")
        fit(folder)
        gravel = ["test/gravel/gravel-11.png", "-m", "surfaces"]
        for name, arguments in (("card", ["coffee.png"]), ("fitted", gravel)):
            command = [sys.executable, "-m", "seewhy", "explain", *arguments, "-o", f"{name}.png"]
            subprocess.run(command, cwd=folder, check=True)
            card = Image.open(folder / f"{name}.png").convert("RGB")
            card = card.resize((WIDTH, round(WIDTH * card.height / card.width)), Image.Resampling.LANCZOS)
            card = card.quantize(256, Image.Quantize.FASTOCTREE)  # the one method that keeps rare colours
            card.save(ROOT / f"docs/images/{name}.png", optimize=True)


def main() -> int:
    if "--pictures" in sys.argv:
        pictures()
    if "--check" not in sys.argv:
        write_missing()
    old = stale()
    for page in old:
        print(f"{page.relative_to(ROOT)} {'is stale; run make docs' if '--check' in sys.argv else 'written'}")
        if "--check" not in sys.argv:
            page.write_text(rendered(page), "utf-8")
    return int(bool(old) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
