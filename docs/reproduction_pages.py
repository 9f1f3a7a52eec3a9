"""The page of a reproduction, and the tables of docs/reproductions.md, from the reports in ``reproductions/results/``.

A report is the record of a run and is not rewritten. On the pages, ``reproduction_words.toml`` replaces some of its
words and none of its numbers (``tests/test_reproduction_pages.py``).
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

JUDGED = "shown: above 0 with its whole interval; not shown: below 0 with its whole interval; too small to tell: else"
USUAL = (
    "Usual rule: *shown* if the whole interval lies above 0, *not shown* if it lies below 0, "
    "otherwise *too small to tell*."
)
FEW = 2.5
"""Claims per section, below which the sections have one table."""
WORDS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("reproduction_words.toml").read_text("utf-8"))
"""Pattern and replacement: of single pages by the report's name, of rules, and of every text."""


def page(report: Any, duration: str, table: Any) -> str:
    """What one paper claims and what showed here: results by section, how they were measured, what differs."""
    rules, defined = _letters(report.claims, report.name)
    parts = ["## Results\n"]
    sections = [tuple(claims) for _, claims in groupby(report.claims, key=lambda c: c.section)]
    few = len(report.claims) < FEW * len(sections)
    for claims in [report.claims] if few else sections:
        if claims[0].section and not few:
            parts.append(f"### {heading(plain(claims[0].section, report.name))}\n")
        parts.append(_table(report.name, claims, rules, table, named=few))
    if defined:
        parts.append("Rules that decide the verdicts:\n\n" + "".join(defined))
    about = {
        "Paper": report.paper,
        "Pictures": plain(report.data, report.name),
        "Model": plain(report.model, report.name),
        "Run": f"{report.machine}, {duration}, seed {report.seed}, commit {report.commit}",
        "Script": f"[`{report.name}.py`](../../reproductions/{report.name}.py)",
    }
    parts.append("## How it was measured\n\n" + "".join(f"- {key}: {text}\n" for key, text in about.items()))
    parts.append(f"```bash\n{report.command}\n```\n")
    if report.differences:
        rows = "".join(f"- {heading(plain(text, report.name).rstrip('.'))}.\n" for text in report.differences)
        parts.append("## What differs from the paper, and what was not tried\n\n" + rows)
    return "\n".join(parts)


def _table(name: str, claims: tuple[Any, ...], rules: dict[str, str], table: Any, named: bool) -> str:
    """Claims, what was measured, and the verdicts; the section before each claim where the table has several."""
    one = len({c.n for c in claims}) == 1
    rows = [
        (
            _claim(c, name, named),
            plain(c.measured, name) + f"; n = {c.n}" * (not one),
            rules[c.rule],
            f"**{c.verdict}**",
        )
        for c in claims
    ]
    return table(("claim", f"measured, n = {claims[0].n}" if one else "measured", "rule", "verdict"), rows)


def _claim(claim: Any, name: str, named: bool) -> str:
    section = f"*{plain(claim.section, name)}*: " if named and claim.section else ""
    paper = f". *Paper: {claim.paper}*" if claim.paper else ""
    return section + heading(plain(claim.claim, name)).rstrip(".") + paper


def counts(reports: list[Any], verdicts: tuple[str, ...], folder: Path, table: Any) -> str:
    """How many claims of each paper showed, under the headings of the pages."""
    rows = [
        (
            f"[{title(r, folder)}](reproductions/{r.name}.md)",
            r.paper,
            *(sum(c.verdict == v for c in r.claims) for v in verdicts),
        )
        for r in reports
    ]
    return table(("question", "paper", *verdicts), rows)


def headlines(reports: list[Any], table: Any) -> str:
    """The claim of each paper's abstract: the paper's figure, ours and the verdict."""
    rows = []
    for r in reports:
        claim = plain(r.headline.claim, r.name).rstrip(".")
        figure, ours = r.headline.paper or "not verified", plain(r.headline.measured, r.name)
        rows.append((f"[{claim}](reproductions/{r.name}.md)", figure, ours, r.headline.verdict))
    return table(("claim", "the paper's figure", "ours", "verdict"), rows)


def title(report: Any, folder: Path) -> str:
    """The page's own heading; the report's where there is no page yet."""
    path = folder / f"{report.name}.md"
    return path.read_text("utf-8").partition("\n")[0].removeprefix("# ") if path.exists() else report.title


def heading(text: str) -> str:
    """With a capital, unless it begins with a name of the code."""
    return text if "_" in text.partition(" ")[0] else text[:1].upper() + text[1:]


def plain(text: str, name: str) -> str:
    """The text in the words of the pages."""
    for pattern, words in (WORDS.get(name, {}) | WORDS["every"]).items():
        text = re.sub(pattern, words, text)
    return text


def rule_words(rule: str, name: str, letter: str = "") -> str:
    """A rule as sentences; in the place of its verdicts the letter under which they are explained, where one is given.

    >>> rule_words("the lead; shown: above 0; too small to tell: else", "x")
    'The difference. *Shown*: above 0. Otherwise *too small to tell*.'
    >>> rule_words("the lead; shown: above 0; too small to tell: else", "x", "A")
    'The difference. A.'
    """
    what, verdicts = _split(rule)
    return _sentences((*what, *([letter] if letter else verdicts)), name)


def _split(rule: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is measured, and what gives which verdict."""
    parts = rule.removeprefix("difference ").rstrip(".").split("; ")
    i = next((i for i, part in enumerate(parts) if part.startswith("shown:")), None)
    if i is None:
        return (), (f"shown: {parts[0]}", *parts[1:])
    return tuple(parts[:i]), ("usual rule",) if "; ".join(parts[i:]) == JUDGED else tuple(parts[i:])


def _letters(claims: tuple[Any, ...], name: str) -> tuple[dict[str, str], list[str]]:
    """What the table has for each rule, and the lines that explain its letters."""
    rules = Counter(c.rule for c in claims)
    tails = Counter(_split(rule)[1] for rule in rules)
    names = iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    known = {("usual rule",): "usual rule"}
    known |= {tail: next(names) for tail, n in tails.items() if n > 1 and tail not in known}
    lines = [f"- **{letter}**: {_sentences(tail, name)}\n" for tail, letter in known.items() if letter != "usual rule"]
    shown = {}
    for rule, n in rules.items():
        what, tail = _split(rule)
        if n == 1 or (not what and tail in known):
            shown[rule] = rule_words(rule, name, known.get(tail, ""))
        else:
            shown[rule] = next(names)
            lines.append(f"- **{shown[rule]}**: {rule_words(rule, name, known.get(tail, ''))}\n")
    return shown, lines + [f"- {USUAL}\n"] * (("usual rule",) in tails)


def _sentences(parts: tuple[str, ...], name: str) -> str:
    return " ".join(_sentence(part, name) for part in sorted(parts, key=lambda part: part.endswith(": else")))


def _sentence(part: str, name: str) -> str:
    for pattern, words in WORDS["rules"].items():
        part = re.sub(pattern, words, part)
    verdict, _, condition = part.partition(": ")
    if condition == "else":
        return f"Otherwise *{verdict}*."
    if verdict in ("shown", "partly", "not shown", "too small to tell"):
        return f"*{heading(verdict)}*: {plain(condition, name)}."
    return heading(plain(part, name)) + "."
