"""``seewhy describe``: write descriptions with a language model."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..bounds import Bound, Checked, Count, NotNegative
from ..errors import DataError, InputError
from ..storage.output import check_file
from . import options
from .session import Session
from .terminal import say
from .verbs import register

if TYPE_CHECKING:
    from ..language.writers import Estimate, WriterSession


@dataclass(frozen=True, kw_only=True)
class Writing(Checked):
    """The language model, with the settings of its requests.

    Args:
        writer: name of a model of the service, a folder, a .gguf file, or smollm2.
        base_url: address of an OpenAI-compatible service.
        key_variable: environment variable with the service's API key.
        leave_out: parameters that the service does not accept, separated by commas: max_tokens, temperature, seed or
            response_format. Without response_format, the prompt describes the format of the answer.
        max_tokens: maximum tokens per answer; default: no limit.
        timeout: maximum seconds per answer.
        price_in: price of a million input tokens, for --dry-run.
        price_out: price of a million output tokens, for --dry-run.
    """

    noun = "describe"

    writer: str | None = None
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    leave_out: str = ""
    max_tokens: Count | None = None
    timeout: Annotated[float, Bound(1)] = 120.0
    price_in: NotNegative = 0.0
    price_out: NotNegative = 0.0

    def desk(self, session: Session) -> WriterSession | None:
        """Return a session with the language model, whose answers are cached; ``None`` without ``writer``."""
        from ..language.service_writer import ServiceWriter
        from ..language.writers import SMOLLM2, LocalWriter, WriterSession, Written

        name = self.writer
        if name is None:
            return None
        if self.base_url is None and (name == SMOLLM2 or name.endswith(".gguf") or Path(name).is_dir()):
            writer: Any = LocalWriter(name)
        else:
            left_out = tuple(p.strip() for p in self.leave_out.split(",") if p.strip())
            limits: dict[str, Any] = {"left_out": left_out, "timeout_s": self.timeout}
            writer = ServiceWriter(name, self.base_url, self.key_variable, **limits)
        return WriterSession(writer, Written(), max_tokens=self.max_tokens, progress=session.terminal)

    def needed_desk(self, session: Session) -> WriterSession:
        desk = self.desk(session)
        if desk is None:
            raise InputError("A language model is required. Give it with --writer.")
        return desk

    def say(self, session: Session, estimate: Estimate | None) -> NoReturn:
        """Print the estimate of ``--dry-run``, and exit."""
        if estimate is None:
            session.say({"n_prompts": 0}, "no --writer was named, so there is no language model to ask")
            raise typer.Exit
        cost = estimate.cost(self.price_in, self.price_out)
        line = (
            f"{estimate.n_prompts - estimate.n_known} questions to ask, {estimate.n_known} answered before; about "
            f"{estimate.tokens_in:,} input tokens and at most {estimate.tokens_out:,} output tokens"
        )
        if self.price_in or self.price_out:
            line += f"; at most {cost:.2f} at these prices"
        session.say({**vars(estimate), "cost": round(cost, 6)}, line)
        raise typer.Exit


def write(
    session: Session,
    data: str,
    *,
    output: Path,
    writer: str | None = None,
    kind: str = "",
    pairs: bool = False,
    model: str | None = None,
    labels: str | None = None,
    base_url: str | None = None,
    dry_run: bool = False,
) -> None:
    """Write descriptions of each class with a language model. Check and edit them before use."""
    from ..descriptions.base import Descriptions
    from ..language.questions import class_prompt, write_classes
    from ..language.writers import WriterError

    if pairs:
        _write_pairs(session)
    (n_texts,) = session.take("n_texts")
    n_texts = 6 if n_texts is None else n_texts
    if n_texts < 2:
        raise InputError(f"`n_texts` must be at least 2, got {n_texts}.")
    writing = session.make(Writing, writer=writer, base_url=base_url)
    check_file(output, force=session.force)
    names = _names(data)
    desk = writing.needed_desk(session)
    if dry_run:
        writing.say(session, desk.estimate(class_prompt(name, kind, n_texts) for name in names))
    written = list(
        session.terminal.track(write_classes(desk, names, kind, n_texts), "Asking for descriptions", len(names))
    )
    answered = {name: texts for name, texts in written if not isinstance(texts, WriterError)}
    failed = {name: str(texts) for name, texts in written if isinstance(texts, WriterError)}
    if answered:
        Descriptions(answered).write(output, force=session.force)
    _report(session, output, len(answered), failed)


def _write_pairs(session: Session) -> NoReturn:
    from ..language.questions import Pair, confusable_pairs, pair_prompt, write_pairs, write_pairs_file
    from ..pictures.sources import list_pictures

    o = session.given
    output, kind = o.output, o.kind
    n_texts, most, top = session.take("n_texts", "most", "top")
    n_texts = 5 if n_texts is None else n_texts
    if n_texts < 1 or most < 1 or top < 2:
        raise InputError(
            f"`n_texts` and `most` must be at least 1 and `top` at least 2, got n_texts={n_texts}, most={most} and "
            f"top={top}."
        )
    check_file(output, force=session.force)
    writing = session.make(Writing, writer=o.writer, base_url=o.base_url)
    desk = writing.needed_desk(session)  # a mistake in its options is found before the pictures are looked at
    classifier = session.classifier(o.model, o.labels)
    pictures = list(list_pictures([Path(o.data)]))
    stream = classifier.predict_all(pictures, store=session.store, top=top)
    predictions = [prediction for _, prediction in session.terminal.results(pictures, stream, "Looking at pictures")]
    if not predictions:
        raise DataError(f"None of the {len(pictures)} pictures in {o.data} can be read. Give another folder.")
    chosen = confusable_pairs(predictions, most)
    if o.dry_run:
        writing.say(session, desk.estimate(pair_prompt(a, b, kind, n_texts) for a, b in chosen))
    written = list(
        session.terminal.track(write_pairs(desk, chosen, kind, n_texts), "Asking for descriptions", len(chosen))
    )
    answered = [pair for _, pair in written if isinstance(pair, Pair)]
    failed = {" and ".join(names): str(pair) for names, pair in written if not isinstance(pair, Pair)}
    if answered:
        write_pairs_file(output, answered, force=session.force)
    _report(session, output, len(answered), failed)


def _names(given: str) -> list[str]:
    from ..classifiers.base import check_names
    from ..pictures.samples import load_samples

    path = Path(given)
    if path.is_dir():
        return list(load_samples(path).classes)
    return list(check_names(options.label_names(given)))


def _report(session: Session, output: Path, n: int, failed: dict[str, str]) -> NoReturn:
    for label, reason in failed.items():
        say(f"seewhy: no text for {label!r}: {reason}", file=sys.stderr)
    lines = [f"{output}: {n} written. Check and edit these texts before you rely on them."] if n else []
    session.say({"file": str(output) if n else None, "written": n, "failed": failed}, *lines)
    raise typer.Exit(int(bool(failed)))


def match(
    session: Session,
    data: Path,
    *,
    output: Path,
    descriptions: Path,
    writer: str | None = None,
    base_url: str | None = None,
    dry_run: bool = False,
) -> None:
    """Find, for each picture, the descriptions of its class that fit it best."""
    from ..descriptions.base import Descriptions
    from ..language.matching import Match, match_to_file, short_prompt, specificity
    from ..language.matching import say as told

    how = session.make(Match, rest=False)
    writing = session.make(Writing, writer=writer, base_url=base_url)
    check_file(output, force=session.force)
    samples, texts = session.samples(data), Descriptions.read(descriptions)
    desk = writing.desk(session)
    if dry_run:
        prompts = (short_prompt(t) for c in texts.limited_to(samples.classes).texts.values() for t in c)
        writing.say(session, None if desk is None else desk.estimate(prompts))
    session.terminal.note_all(samples.notes)
    stream = match_to_file(
        output, session.encoder(), samples, texts, how, desk=desk, store=session.store, force=session.force
    )
    written = list(session.results(stream, "Matching", len(samples), as_json=False))
    specific = specificity(written)
    session.say(
        {"file": str(output), "written": len(written), **specific},
        f"{output}: {len(written)} pictures with texts. {told(specific)}.",
    )
    session.end()


def images(
    session: Session,
    pictures: list[str],
    *,
    output: Path,
    model: str | None = None,
    labels: str | None = None,
    drafts: Path | None = None,
    check: bool = True,
    writer: str | None = None,
    base_url: str | None = None,
    dry_run: bool = False,
) -> None:
    """Describe pictures in detail (Image Textualization). Resumes a stopped run."""
    from ..language.textualize import DESCRIPTIONS, Drafter, estimate, offline, read_drafts, textualize_all
    from ..storage.journal import Journal

    (threshold,) = session.take("threshold")
    writing = session.make(Writing, writer=writer, base_url=base_url)
    session.resumes.append(output)
    Journal(output, DESCRIPTIONS, force=session.force)  # somebody else's file is told before the work begins
    texts = None if drafts is None else dict(read_drafts(drafts))
    desk = writing.desk(session)
    if dry_run:
        writing.say(session, None if desk is None else estimate(session.pictures(pictures), desk, texts))
    classifier = session.classifier(model, labels)
    textualizer = offline(classifier, desk=desk, check=check, threshold=threshold)
    by = [classifier.recipe, classifier.encoder.fingerprint[:12], *classifier.classes, check, threshold, texts]
    by.append(None if desk is None else [desk.writer.model, desk.max_tokens])
    made_by = hashlib.sha256(json.dumps(by, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    drafter = Drafter(classifier, desk, texts)
    stream = textualize_all(session.pictures(pictures), textualizer, drafter, output, made_by, force=session.force)
    for record in session.results(stream, "Describing", as_json=False):
        if session.as_json or not session.quiet:
            session.say(record, f"{record['image']}: {record['description'] or '(no description)'}")
    if not session.as_json:
        say(f"{output}: {session.n_results} described. Read them before you rely on them.")
    session.end()


app = typer.Typer(help="Write descriptions with a language model of your choice.", no_args_is_help=True)
for verb in (write, match, images):
    register(app, verb)
