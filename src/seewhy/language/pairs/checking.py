"""Apply rules to image-text pairs, and write a cleaned set."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from ...encoders.base import Encoder
from ...errors import DataError, InputError
from ...explanation.result import EXACT, Result
from ...pictures.pairs import read_pairs
from ...pictures.samples import Samples, gathered
from ...progress import Progress
from ...results import Count, Doc
from ...spelling import first_repeated
from ...storage.features import FeatureStore
from ...storage.output import check_file, write
from .filters import Corpus, Rule, rules


def beside(path: Path) -> Path:
    """Return the path of the file with the removed pairs."""
    return path.with_name(f"{path.stem}.removed.jsonl")


def check_place(path: Path, *, force: bool = False) -> None:
    """Check that both files of a cleaned set can be written."""
    if path.suffix.lower() != ".jsonl":
        raise DataError(f"The name of a file of cleaned pairs must end in .jsonl, got {path}.")
    check_file(path, force=force)
    check_file(beside(path), force=force)


@dataclass(frozen=True)
class Example(Result):
    """A pair that breaks a rule."""

    image: Annotated[str, Doc("the picture")]
    text: Annotated[str, Doc("its text")]
    reason: Annotated[str, Doc("how it breaks the rule")]


@dataclass(frozen=True)
class Finding(Result):
    """The result of one rule."""

    rule: Annotated[str, Doc("name of the rule")]
    settings: Annotated[dict[str, float | str], Doc("parameters of the rule"), EXACT]
    n_pairs: Annotated[Count, Doc("pairs that break it")]
    n_pictures: Annotated[Count, Doc("pictures of these pairs")]
    examples: Annotated[tuple[Example, ...], Doc("the first `--set n_examples` of them")] = ()
    missing: Annotated[str, Doc("what the rule needs but was not given; empty if it was applied")] = ""


@dataclass(frozen=True)
class Checked(Result):
    """The results of all rules: the JSON object of ``seewhy check --texts --json``."""

    n_pictures: Annotated[Count, Doc("pictures of the set")]
    n_pairs: Annotated[Count, Doc("pairs of a picture and a text")]
    n_kept: Annotated[Count, Doc("pairs that break no rule")]
    findings: Annotated[tuple[Finding, ...], Doc("one per rule")]
    notes: Annotated[tuple[str, ...], Doc("what was skipped or truncated")] = ()

    def __str__(self) -> str:
        lines = [f"{self.n_pictures} pictures with {self.n_pairs} texts; {self.n_kept} pairs break no rule"]
        for found in self.findings:
            if found.missing:
                lines.append(f"{found.rule}\tnot applied: needs {found.missing}")
                continue
            lines.append(f"{found.rule}\t{found.n_pairs} pairs of {found.n_pictures} pictures")
            lines += [f"\t{e.image}\t{e.text[:80]!r} {e.reason}" for e in found.examples]
        return "\n".join(lines)


@dataclass(frozen=True)
class Removed:
    """A removed pair."""

    image: str
    text: str
    label: str
    group: str | None
    reasons: dict[str, str]


@dataclass(frozen=True)
class Cleaned:
    """A set without the pairs that break a rule."""

    kept: Samples
    removed: tuple[Removed, ...]

    def save(self, path: str | Path, *, force: bool = False) -> tuple[Path, Path]:
        """Write the kept pairs as JSONL, and the removed pairs to ``NAME.removed.jsonl``."""
        path = Path(path)
        if not self.kept.items:
            raise DataError(
                "Every pair breaks a rule, so there is nothing to write. Remove a rule, or change its setting."
            )
        check_place(path, force=force)
        for s in self.kept.items:
            if s.pixels is not None and ".tar" not in s.image:
                raise DataError(
                    f"{s.image} must be in a file or shard, because a table can only name files. Save it first."
                )
        rows = [{"image": s.image, "texts": list(s.texts), "label": s.label, "group": s.group} for s in self.kept.items]
        write(beside(path), _lines(map(asdict, self.removed), path.parent), force=force)
        write(path, _lines(rows, path.parent), force=force)
        return path, beside(path)


def _lines(rows: Iterable[dict[str, Any]], folder: Path) -> str:
    """Return JSON lines with file names relative to ``folder``, without empty labels and groups."""
    kept = ("text", "texts", "reasons", "label", "group")
    lines = []
    for row in rows:
        known = {name: row[name] for name in kept if name in row and (row[name] or name not in ("label", "group"))}
        lines.append(json.dumps({"image": os.path.relpath(row["image"], folder), **known}, ensure_ascii=False) + "\n")
    return "".join(lines)


def check(
    source: Any,
    *,
    with_rules: Sequence[Rule] | None = None,
    encoder: Encoder | None = None,
    store: FeatureStore | None = None,
    n_examples: int = 3,
    progress: Progress | None = None,
    **columns: Any,
) -> Checked:
    """Count the image-text pairs that break a rule, without changing them.

    Args:
        source: pictures with texts, as for :func:`seewhy.load_pairs`.
        with_rules: rules to apply; default: all, with their default settings.
        encoder: encoder for rules on the match of text and picture; it runs once per picture.
        store: cache of encoded pictures.
        n_examples: number of examples per rule.
        progress: callback for progress.
        columns: ``image``, ``text``, ``label`` and ``group``, as for :func:`seewhy.load_pairs`.
    """
    corpus = Corpus(read_pairs(source, **columns), encoder, store, progress or Progress())
    chosen, reasons = _apply(corpus, with_rules)
    findings = []
    for rule in chosen:
        broken = reasons.get(rule.name, {})
        shown = [(*corpus.pairs[i], reason) for i, reason in list(broken.items())[:n_examples]]
        examples = tuple(Example(corpus.samples.items[p].image, text, reason) for p, text, reason in shown)
        n_pictures, missing = len({corpus.pairs[i][0] for i in broken}), "" if rule.name in reasons else rule.needs
        findings.append(Finding(rule.name, dict(vars(rule)), len(broken), n_pictures, examples, missing))
    gone = set().union(*reasons.values())
    n_pairs, notes = len(corpus.pairs), list(corpus.samples.notes)
    n_cut = getattr(encoder.text, "n_cut", None) if encoder is not None else None
    if n_cut is not None and (n := n_cut([text for _, text in corpus.pairs])):
        notes.append(f"{n} text(s) are longer than the encoder reads, and are cut")
    return Checked(len(corpus.samples), n_pairs, n_pairs - len(gone), tuple(findings), tuple(notes))


def clean(
    source: Any,
    *,
    with_rules: Sequence[Rule] | None = None,
    encoder: Encoder | None = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    **columns: Any,
) -> Cleaned:
    """Remove the pairs that break a rule; the arguments are those of :func:`check`."""
    corpus = Corpus(read_pairs(source, **columns), encoder, store, progress or Progress())
    _, reasons = _apply(corpus, with_rules)
    kept: dict[int, list[str]] = {}
    removed = []
    for i, (picture, text) in enumerate(corpus.pairs):
        why = {name: broken[i] for name, broken in reasons.items() if i in broken}
        if why:
            sample = corpus.samples.items[picture]
            removed.append(Removed(sample.image, text, sample.label, sample.group, why))
        else:
            kept.setdefault(picture, []).append(text)
    items = [replace(corpus.samples.items[p], texts=tuple(texts)) for p, texts in kept.items()]
    return Cleaned(gathered(items, corpus.samples.notes), tuple(removed))


def _apply(corpus: Corpus, given: Sequence[Rule] | None) -> tuple[list[Rule], dict[str, dict[int, str]]]:
    """Return all rules, and the pairs that break each applicable rule."""
    chosen = [rules[name]() for name in rules] if given is None else list(given)
    if twice := first_repeated([rule.name for rule in chosen]):
        raise InputError(f"`with_rules` must have each rule once, got {twice!r} twice.")
    able = [rule for rule in chosen if rule.needs != "an encoder" or corpus.encoder is not None]
    return chosen, {rule.name: dict(rule.broken(corpus)) for rule in able}
