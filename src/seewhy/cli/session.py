"""The options and resources of one CLI command."""

from __future__ import annotations

import json as JSON
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, TypeVar

import typer

from ..bounds import Bound
from ..errors import InputError, UnknownNameError
from ..parameters import configured, settings_of, value_of
from ..progress import LINE, Step
from ..storage.marks import CHECKPOINT
from ..storage.output import check_checkpoint, made_folder, make_folder, remove
from ..types import Failure
from .settings import SETTINGS, Own
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..classifiers.multi_output import MultiOutput
    from ..encoders.base import Encoder
    from ..pictures.answers import Answers
    from ..pictures.samples import Samples
    from ..report.paging import Page
    from ..storage.features import FeatureStore
    from .options import ClassifierChoice

T = TypeVar("T")
PART = r"\.(plain|[0-9.]+(e-?[0-9]+)?)"
COLUMNS = ("image", "label", "text", "split")
DEFAULT_ENCODER = "lite0"
"""Default encoder; a saved classifier uses its own encoder instead."""
N_COUNTED = 50_000
"""Maximum number of pictures that are counted in advance, for the progress bar."""
WORK = {
    "fit": "Making the model", "export": "Exporting the model", "predict": "Predicting", "explain": "Explaining",
    "segment": "Labelling pixels", "detect": "Finding objects", "evaluate": "Evaluating the model",
    "app": "Preparing the page", "serve": "Preparing the service", "check": "Checking the pictures",
    "index": "Indexing pictures", "search": "Searching", "adapt": "Adapting the encoder",
    "pretrain": "Training an encoder", "describe": "Writing descriptions", "study": "Working out the answer",
    "doctor": "Testing this installation", "methods": "Looking up methods",
}  # fmt: skip
"""Text of the progress bar between the counted parts of a command."""
ROW_FOR_EACH = ("predict", "explain", "segment", "detect", "describe images")
"""Commands that owe a result for each picture, so that a broken picture gives the exit code 1."""


class Session:
    """The options that all commands share; resources are opened on first use."""

    def __init__(
        self,
        verb: str,
        context: Any,
        *,
        encoder: list[str] | None = None,
        json: bool = False,
        set_: list[str] | None = None,
        seed: Annotated[int, Bound(-(2**63), 2**63 - 1)] | None = None,
        group: str | None = None,
        column: list[str] | None = None,
        focus: str | None = None,
        engine: str = "auto",
        store: str | None = None,
        force: bool = False,
        quiet: bool = False,
        strict: bool = False,
    ) -> None:
        self.verb, self.context = verb, context
        self.given = SimpleNamespace()
        self.n_pictures: int | None = None
        self.n_results = 0
        self.resumes: list[Path] = []
        """Files and folders from which the same command continues a stopped run."""
        self.is_server = False
        self.is_strict = strict or verb in ROW_FOR_EACH
        self.encoder_names = [name if focus is None else f"{name}#{focus}" for name in encoder or [DEFAULT_ENCODER]]
        self.engine, self.store_name, self.group, self.force = engine, store, group, force
        self.as_json, self.quiet, self.seed_given = json, quiet, seed
        form = "image, label, text or split, then = and the name of a column"
        self.columns = _joined(assignments("--column", column, form, "--column label=kind", COLUMNS))
        self.settings = settings(set_)

    @property
    def seed(self) -> int:
        return self.seed_given or 0

    @cached_property
    def terminal(self) -> Terminal:
        return Terminal(self.quiet)

    @cached_property
    def store(self) -> FeatureStore | None:
        from . import options

        return options.open_store(self.store_name)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Show a progress bar inside this context; an exception notes how far the work came and what is kept."""
        then, code, before = WORK.get(self.verb.partition(" ")[0], "Working"), 0, LINE.n_done
        LINE.stopped_at = ()
        try:
            with nullcontext() if self.terminal.quiet else LINE.during(Step("Loading SeeWhy", then=then)):
                try:
                    yield
                except typer.Exit as end:
                    code = end.exit_code
        except BaseException as error:
            kept = self._kept()
            if not isinstance(error, Exception) or (kept and LINE.n_done > before):
                error.add_note(self._stopped(kept, failed=isinstance(error, Exception)))
            raise
        if code or (self.is_strict and self.terminal.failures):
            raise typer.Exit(code or 1)

    def ready(self, *lines: str, file: TextIO | None = None) -> None:
        """Remove the progress bar when a page is ready, and print the lines."""
        LINE.rest()
        self.is_server = True
        say(*lines, file=file)

    def _kept(self) -> list[str]:
        kept = [str(one) for path in self.resumes for one in ([path] if path.is_dir() else checkpoints(path))]
        store: FeatureStore | None = self.__dict__.get("store")  # if it was opened
        if store is not None and store.n_used:
            kept.append(f"the features so far, in {store.path}")
        if self.verb.startswith("describe"):
            kept.append("the answers so far")
        return kept

    def _stopped(self, kept: list[str], failed: bool) -> str:
        at = f" ({LINE.reached})" if LINE.reached else ""
        if not kept:
            return f"stopped{at}." + " Run the same command again to start over." * (not self.is_server)
        again = "The next run continues" if failed else "Run the same command again to continue"
        return f"stopped{at}. Kept: {' and '.join(kept)}. {again} from there."

    @property
    def kept(self) -> dict[str, Any]:
        """Keyword arguments with the feature store and the progress reporter."""
        return {"store": self.store, "progress": self.terminal}

    @property
    def encoder_name(self) -> str:
        if len(self.encoder_names) > 1:
            raise InputError(
                f"--encoder must be given once, got {len(self.encoder_names)} encoders. Leave out "
                f"{self.encoder_names[1]}, for example."
            )
        return self.encoder_names[0]

    @property
    def own_encoder(self) -> str | None:
        return None if self.encoder_name == DEFAULT_ENCODER else self.encoder_name

    def encoder(self, name: str | None = None) -> Encoder:
        name = name or self.encoder_name
        with self.terminal.doing(f"Loading the encoder {name}"):
            from ..encoders.find import encoder

            return encoder(name, engine=self.engine)

    def encoders(self) -> dict[str, Encoder]:
        names = self.encoder_names
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise InputError(f"--encoder {twice[0]} was given twice. Give each encoder once.")
        return {name: self.encoder(name) for name in names}

    def saved(self, model: str | Path) -> Classifier:
        with self.terminal.doing(f"Loading {model}"):
            from ..classifiers.saving import load

            return load(model, engine=self.engine, encoder=self.own_encoder)

    def several(self, model: str | None, *refused: str) -> MultiOutput | None:
        """Open a model that makes several decisions, and ``None`` for other models.

        ``refused`` are the options of the command that only one decision can have.
        """
        from ..classifiers.saving import OUTPUTS

        if model is None or not OUTPUTS.is_one(Path(model)):
            return None
        for name in self.was_given(refused):
            first = OUTPUTS.load_card(Path(model))["decisions"][0]["folder"]
            raise InputError(
                f"--{name.rstrip('_').replace('_', '-')} applies to one decision, but {model} makes several. Give the "
                f"folder of one with -m, such as {Path(model) / first}."
            )
        with self.terminal.doing(f"Loading {model}"):
            from ..classifiers.multi_output import load_multi

            return load_multi(model, engine=self.engine, encoder=self.own_encoder)

    def choice(self, model: str | None = None, labels: str | None = None, *others: Any) -> ClassifierChoice:
        """Return the choice of a classifier; ``others`` are its descriptions, follow-up and validation."""
        from .options import ClassifierChoice

        return ClassifierChoice(model, labels, self.encoder_name, self.engine, self.picture_columns, *others)

    def classifier(self, *chosen: Any) -> Classifier:
        """Open the classifier that the options of :meth:`choice` select."""
        return self.choice(*chosen).classifier(*self.kept.values())

    @property
    def picture_columns(self) -> dict[str, str]:
        """The columns of pictures and classes that were given."""
        return {name: self.columns[name] for name in ("image", "label") if name in self.columns}

    def samples(self, place: Any, **more: Any) -> Samples:
        from ..pictures.samples import load_samples

        with self.terminal.doing(f"Reading the list of pictures in {place}"):
            return load_samples(place, **self.picture_columns, **more)

    def answers(self, place: Path, **more: Any) -> Answers:
        from ..pictures.answers import load_answers

        columns: dict[str, Any] = self.picture_columns
        if len(several := columns.get("label", "").split(",")) > 1:
            columns["label"] = several
        with self.terminal.doing(f"Reading the list of pictures in {place}"):
            return load_answers(place, **columns, group=self.group, **more)

    def answers_to(self, model: MultiOutput, place: Path) -> Answers:
        """Read the answers to the decisions of a model."""
        return self.answers(place, **{"names" if model.kind == "labels" else "questions": [*model.decisions]})

    def pair_columns(self) -> dict[str, Any]:
        """Return the column names for pictures with texts; ``None`` for names that were not given."""
        text = self.columns.get("text")
        names = {name: self.columns.get(name) for name in ("image", "label")}
        return {**names, "text": None if text is None else text.split(","), "group": self.group}

    def pictures(self, names: Iterable[str], output: Path | None = None) -> Iterator[str]:
        from .options import picture_names

        asked = list(names)
        found = picture_names(asked, output)
        if "-" in asked:
            return found
        first = list(islice(found, N_COUNTED + 1))
        self.n_pictures = len(first) if len(first) <= N_COUNTED else None
        return chain(first, found)

    def make(self, cls: Any, *, rest: bool = True, **given: Any) -> Any:
        """Make an object from the given fields that are not ``None`` and from the settings of ``--set``.

        If ``rest`` is true, no later object uses settings, so an unknown setting raises an error.
        """
        known = {one.name for one in settings_of(cls)}
        values = {name: value for name, value in given.items() if value is not None}
        if "seed" in known and self.seed_given is not None:
            values.setdefault("seed", self.seed_given)
        mine = {name: self.settings.pop(name) for name in [*self.settings] if rest or name in known}
        for name in values:
            if name in mine:
                raise InputError(f"{name} was given both as an option and with --set. Give it once.")
        with self.options_told():
            read = configured(cls, mine, f"seewhy {self.verb}") if mine else None
        return cls(**values, **{name: getattr(read, name) for name in mine})

    def take(self, *names: str) -> tuple[Any, ...]:
        """Return the values of settings that belong to no class."""
        own: dict[str, Own] = {n: o for part in SETTINGS[self.verb] if isinstance(part, dict) for n, o in part.items()}
        return tuple(
            value_of(f"seewhy {self.verb}", name, self.settings.pop(name), own[name].kind)
            if name in self.settings
            else own[name].preset
            for name in names
        )

    def finish_settings(self) -> None:
        for name in self.settings:
            known: list[str] = []
            for part in SETTINGS.get(self.verb, ()):
                known += part if isinstance(part, dict) else [f.name for f in fields(resolve_name(part)) if f.init]
            if not known:
                raise InputError(f"seewhy {self.verb} has no settings, but --set {name} was given. Leave it out.")
            with self.options_told():
                raise UnknownNameError(f"setting of seewhy {self.verb}", name, known)

    @contextmanager
    def options_told(self) -> Iterator[None]:
        """Add the name of the option to the error if an unknown setting is an option of the command."""
        try:
            yield
        except UnknownNameError as error:
            for one in self.context.command.params:
                if one.name == error.name and one.param_type_name == "option":
                    error.message += f" {error.name} is an option: {one.opts[0]}."
            raise

    def take_all(self) -> dict[str, str]:
        return {name: self.settings.pop(name) for name in [*self.settings]}

    def was_given(self, names: Iterable[str]) -> list[str]:
        """Return the names of options that the user gave on the command line."""
        sources = {name: self.context.get_parameter_source(name) for name in names}
        return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]

    @contextmanager
    def checkpoint(self, output: Path) -> Iterator[Path]:
        """Yield the checkpoint file next to the output; it is deleted when the output is complete."""
        with made_folder(output.parent) as folder:
            checkpoint = check_checkpoint(folder / f".{output.name}.checkpoint")
            self.resumes.append(checkpoint)
            yield checkpoint
            remove_checkpoints(checkpoint)

    def results(
        self, stream: Iterable[T | Failure], what: str, total: int | None = None, *, as_json: bool | None = None
    ) -> Iterator[T]:
        """Yield the results except failures. Failures are reported and, with ``as_json``, printed as JSON."""
        for result in self.terminal.track(stream, what, total):
            if not isinstance(result, Failure):
                self.n_results += 1
                yield result
                continue
            self.terminal.failed(result)
            if self.as_json if as_json is None else as_json:
                self.say(result.to_json())

    def say(self, data: Mapping[str, Any], *lines: str) -> None:
        """Print one JSON object, or lines of text."""
        say(*([JSON.dumps(data, ensure_ascii=False)] if self.as_json else lines), flush=True)

    def report(self, found: Page, place: Path | None, name: str | None = None) -> None:
        page = None
        if place is not None:
            if name is not None:
                make_folder(place)
                found.save(place / f"{name}.json", force=self.force)
                place = place / f"{name}.html"
            page = str(found.save(place, force=self.force))
        if self.as_json:
            say(JSON.dumps({**found.data, "report": page}, ensure_ascii=False))
            return
        _print(found)
        say(*(() if page is None else (f"report: {page}",)))

    def end(self, done: int | None = None) -> NoReturn:
        """Say how many pictures could not be read, and end the command; by default, ``done`` are the results."""
        done = self.n_results if done is None else done
        if failures := self.terminal.failures:
            say(f"seewhy: {done} done, {len(failures)} could not be read (named above)", file=sys.stderr)
        raise typer.Exit


def not_both(first: str, second: str, because: str = "") -> InputError:
    """Return the error for two options that cannot be combined."""
    why = because and f", because {because}"
    return InputError(f"{first} and {second} cannot be combined{why}. Use only one of them.")


def _print(found: Page) -> None:
    from rich.console import Console

    from ..report.terminal import to_terminal

    console, sentence = Console(soft_wrap=True, highlight=False), str(found.data.get("sentence", ""))
    with console.capture() as capture:
        console.print(to_terminal(found.document()))
    text = capture.get().rstrip("\n")
    say(*text.split("\n"), *(() if sentence in " ".join(text.split("\n")) else (sentence,)))


def settings(given: Sequence[str] | None) -> dict[str, str]:
    """Parse ``["n_masks=2000", …]`` to a dictionary; values of a repeated setting are joined by commas.

    >>> settings(["n_masks=2000", "shots=1", "shots=4"])
    {'n_masks': '2000', 'shots': '1,4'}
    """
    pairs = assignments("--set", given, "NAME=VALUE", "--set n_masks=2000")
    return _joined((name.replace("-", "_"), value) for name, value in pairs)


def assignments(
    option: str, given: Sequence[str] | None, form: str, example: str, known: Sequence[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield pairs from ``NAME=VALUE``, after a check that the names are known."""
    for text in given or ():
        name, _, value = (part.strip() for part in text.partition("="))
        if not (name and value) or (known is not None and name not in known):
            raise InputError(f"{option} must be {form}, got {text!r}. For example: {example}")
        yield name, value


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        values[name] = f"{values[name]},{value}" if name in values else value
    return values


def checkpoints(checkpoint: Path) -> list[Path]:
    """Return the checkpoint files of a fit, including those of its stages."""
    folder, wanted = checkpoint.parent, re.escape(checkpoint.name) + f"({PART})?(-folds.jsonl)?"
    names = os.listdir(folder) if folder.is_dir() else []
    return [path for name in names if re.fullmatch(wanted, name) and (path := folder / name).stat().st_size]


def remove_checkpoints(checkpoint: Path) -> None:
    for path in checkpoints(checkpoint):
        remove(path, CHECKPOINT)
