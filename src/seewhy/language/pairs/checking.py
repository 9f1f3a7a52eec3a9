"""Rules applied: what each finds, and a set without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...encoders.base import Encoder
from ...errors import DataError, InputError
from ...pictures.pairs import read_pairs
from ...pictures.samples import Samples, gathered
from ...progress import Progress
from ...storage.features import FeatureStore
from . import files, rules
from .base import Corpus, Rule


@dataclass(frozen=True)
class Example:
    """A pair that breaks a rule.

    Attributes:
        image: its picture.
        text: what is said of it.
        reason: how it breaks the rule.
    """

    image: str
    text: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Attributes:
        rule: its name.
        settings: its fields.
        n_pairs: pairs that break it.
        n_pictures: pictures that these belong to.
        examples: the first of them.
        missing: what it needs and was not given; empty where it was asked.
    """

    rule: str
    settings: dict[str, Any]
    n_pairs: int
    n_pictures: int
    examples: tuple[Example, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Checked:
    """What every rule found.

    Attributes:
        n_pictures: of the set.
        n_pairs: of the set.
        n_kept: pairs that break no rule.
        findings: one per rule.
        notes: what a user should know.
    """

    n_pictures: int
    n_pairs: int
    n_kept: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.n_pictures} pictures with {self.n_pairs} texts; {self.n_kept} pairs break no rule"]
        for found in self.findings:
            if found.missing:
                lines.append(f"{found.rule}\tnot asked: needs {found.missing}")
                continue
            lines.append(f"{found.rule}\t{found.n_pairs} pairs of {found.n_pictures} pictures")
            lines += [f"\t{e.image}\t{e.text[:80]!r} {e.reason}" for e in found.examples]
        return "\n".join(lines)


@dataclass(frozen=True)
class Removed:
    """A pair that was taken out.

    Attributes:
        image: its picture.
        text: what was said of it.
        label: the picture's class; empty where it has none.
        group: what it belongs to.
        reasons: by the rules that it breaks.
    """

    image: str
    text: str
    label: str
    group: str | None
    reasons: dict[str, str]


@dataclass(frozen=True)
class Cleaned:
    """A set without the pairs that break a rule.

    Attributes:
        kept: pictures with the texts that are left; those without any are gone.
        removed: the others, in order.
    """

    kept: Samples
    removed: tuple[Removed, ...]

    def save(self, path: str | Path, *, force: bool = False) -> tuple[Path, Path]:
        """Write the kept pairs as JSONL, and beside them ``NAME.removed.jsonl`` with the others."""
        if not self.kept.items:
            raise DataError(
                "Every pair breaks a rule, so nothing is left to write. Pairs that break none were expected. Leave a "
                "rule out, or change its setting."
            )
        return files.save(Path(path), self.kept, [asdict(one) for one in self.removed], force=force)


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
    """What each rule finds in pictures with texts; nothing is changed.

    Cost: every picture is read once, for the rules about pictures; with an encoder a pass for each.

    Args:
        source: as for :func:`seewhy.load_pairs`.
        with_rules: instances of rules; left out, all with their defaults.
        encoder: scores how well text and picture fit.
        store: where what the encoder saw is kept.
        n_examples: of each rule.
        progress: hears of progress.
        columns: ``image``, ``text``, ``label`` and ``group``, as for :func:`seewhy.load_pairs`.

    Raises:
        DataError: as :func:`seewhy.load_pairs`.
    """
    corpus = Corpus(read_pairs(source, **columns), encoder, store, progress or Progress())
    chosen, reasons = _apply(corpus, with_rules)
    findings = []
    for rule in chosen:
        broken = reasons.get(rule.name)
        if broken is None:
            findings.append(Finding(rule.name, _settings(rule), 0, 0, (), rule.needs))
            continue
        shown = [(*corpus.pairs[i], reason) for i, reason in list(broken.items())[:n_examples]]
        examples = tuple(Example(corpus.samples.items[p].image, text, reason) for p, text, reason in shown)
        n_pictures = len({corpus.pairs[i][0] for i in broken})
        findings.append(Finding(rule.name, _settings(rule), len(broken), n_pictures, examples))
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
    """The pairs that break no rule, and the others with the reasons; the source stays as it is.

    Args:
        source: as for :func:`seewhy.load_pairs`.
        with_rules: instances of rules; left out, all with their defaults.
        encoder: scores how well text and picture fit.
        store: where what the encoder saw is kept.
        progress: hears of progress.
        columns: as for :func:`check`.

    Raises:
        DataError: as :func:`seewhy.load_pairs`.
    """
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
    """The rules, and by name what those say whose needs are met."""
    chosen = [rules[name]() for name in rules] if given is None else list(given)
    twice = [rule.name for i, rule in enumerate(chosen) if rule.name in [r.name for r in chosen[:i]]]
    if twice:
        raise InputError(f"The rule {twice[0]!r} was given twice. Each once was expected. Keep one of them.")
    able = [rule for rule in chosen if rule.needs != "an encoder" or corpus.encoder is not None]
    return chosen, {rule.name: dict(rule.broken(corpus)) for rule in able}


def _settings(rule: Rule) -> dict[str, Any]:
    return asdict(rule)  # type: ignore[call-overload]
