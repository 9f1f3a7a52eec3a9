"""Options of every verb that asks a language model: declared once, given to a verb as one thing."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from .terminal import say

if TYPE_CHECKING:
    from ..language.writers import Estimate, WriterSession
    from ..progress import Progress

WHO = "Who is asked: a name at --base-url (or at OpenAI), a folder or .gguf file, or smollm2, the small local one."


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a user said about who is asked, and how."""

    writer: Annotated[str | None, typer.Option("--writer", "-w", help=WHO, show_default=False)]
    base_url: Annotated[
        str | None,
        typer.Option(help="An OpenAI-compatible service: vLLM, Ollama, llama.cpp, Azure, …", show_default=False),
    ] = None
    key_variable: Annotated[str, typer.Option(help="Environment variable with the service's key.")] = "OPENAI_API_KEY"
    leave_out: Annotated[
        str,
        typer.Option(
            help="Parameters that the service refuses, separated by commas: max_tokens, temperature, seed, or "
            "response_format, which then goes into the question in words.",
            show_default=False,
        ),
    ] = ""
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of every answer; left out, as many as it needs.", show_default=False)
    ] = None
    per_minute: Annotated[float, typer.Option(min=0, help="Requests a minute at most; 0 does not hold back.")] = 0.0
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one answer may take, all in all.")] = 120.0
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and stop. Nobody is asked.")] = (
        False
    )
    price_in: Annotated[float, typer.Option(min=0, help="Price of a million tokens read, for --dry-run.")] = 0.0
    price_out: Annotated[float, typer.Option(min=0, help="Price of a million tokens written, for --dry-run.")] = 0.0

    def desk(self, progress: Progress) -> WriterSession | None:
        """The one writer's desk, with answers kept in the cache folder; ``None`` where none was named.

        There is never another writer in its place.
        """
        from ..language.local_writer import SMOLLM2, LocalWriter
        from ..language.service_writer import ServiceWriter
        from ..language.writers import WriterSession, Written

        name = self.writer
        if name is None:
            return None
        if self.base_url is None and (name == SMOLLM2 or name.endswith(".gguf") or Path(name).is_dir()):
            return WriterSession(LocalWriter(name), Written(), max_tokens=self.max_tokens, progress=progress)
        service = ServiceWriter(
            name,
            self.base_url,
            self.key_variable,
            left_out=tuple(p.strip() for p in self.leave_out.split(",") if p.strip()),
            per_minute=self.per_minute,
            timeout_s=self.timeout,
        )
        return WriterSession(service, Written(), max_tokens=self.max_tokens, progress=progress)

    def say(self, estimate: Estimate | None, as_json: bool) -> None:
        """Print what a run would ask, for ``--dry-run``; ``None`` where nobody would be asked."""
        if estimate is None:
            say(json.dumps({"n_prompts": 0}) if as_json else "nobody is asked: no --writer was named")
        elif as_json:
            say(json.dumps({**vars(estimate), "cost": round(estimate.cost(self.price_in, self.price_out), 6)}))
        else:
            say(self._line(estimate))

    def _line(self, estimate: Estimate) -> str:
        left = estimate.n_prompts - estimate.n_known
        line = (
            f"{left} questions to ask, {estimate.n_known} answered before; about {estimate.tokens_in:,} tokens read "
            f"and at most {estimate.tokens_out:,} written"
        )
        if self.price_in or self.price_out:
            line += f"; at most {estimate.cost(self.price_in, self.price_out):.2f} at these prices"
        return line


def asking(required: bool, how: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of :class:`Asked`; it gets them as its parameter ``asked``.

    Args:
        required: whether ``--writer`` must be given.
        how: what ``--writer`` does in this verb.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(verb, include_extras=True)
        parameters = [
            p.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, p in inspect.signature(verb).parameters.items()
            if name != "asked"
        ]
        parameters += _parameters(required, how)

        @functools.wraps(verb)
        def with_options(**given: Any) -> None:
            verb(asked=Asked(**{f.name: given.pop(f.name) for f in fields(Asked)}), **given)

        # The command line is made from these two.
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _parameters(required: bool, how: str) -> list[inspect.Parameter]:
    hints = get_type_hints(Asked, include_extras=True)
    hints["writer"] = Annotated[
        str if required else str | None,
        typer.Option("--writer", "-w", help=f"{WHO} {how}".strip(), show_default=False),
    ]
    found = []
    for f in fields(Asked):
        default = f.default if f.name != "writer" else inspect.Parameter.empty if required else None
        found.append(
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[f.name])
        )
    return found
