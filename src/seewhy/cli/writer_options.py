"""Options of every verb that asks a language model, and what stands behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..descriptions.llm import Desk, Estimate, Writer

WriterName = Annotated[
    str,
    typer.Option(
        "--writer",
        "-w",
        help="A model's name at --base-url (or at OpenAI), a folder or .gguf file, or smollm2, the small local one.",
        show_default=False,
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(help="An OpenAI-compatible service: vLLM, Ollama, llama.cpp, Azure, …", show_default=False),
]
KeyVariable = Annotated[str, typer.Option(help="Environment variable with the service's key.")]
PerMinute = Annotated[float, typer.Option(min=0, help="Requests a minute at most; 0 does not hold back.")]
Structured = Annotated[
    bool, typer.Option(help="Whether the service keeps to a JSON schema; otherwise it is asked in words.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Ask nobody; say what would be asked and what it may cost.")]
PriceIn = Annotated[float, typer.Option(min=0, help="Price of a million tokens read, for --dry-run.")]
PriceOut = Annotated[float, typer.Option(min=0, help="Price of a million tokens written, for --dry-run.")]


def writer_of(
    name: str, base_url: str | None, key_variable: str, per_minute: float, structured: bool, sees: bool = True
) -> Writer:
    """The one writer the options name; there is never another in its place."""
    from pathlib import Path

    from ..descriptions.local import SMOLLM2, LocalWriter
    from ..descriptions.service import ServiceWriter

    if base_url is None and (name == SMOLLM2 or name.endswith(".gguf") or Path(name).is_dir()):
        return LocalWriter(name)
    return ServiceWriter(name, base_url, key_variable, sees_pictures=sees, structured=structured, per_minute=per_minute)


def desk_of(writer: Writer) -> Desk:
    """The writer's desk, with the answers kept in the cache folder."""
    from ..descriptions.llm import Desk
    from ..descriptions.written import Written

    return Desk(writer, Written())


def told(estimate: Estimate, price_in: float, price_out: float) -> str:
    """What a run would ask, as a person would say it."""
    left = estimate.n_prompts - estimate.n_known
    line = (
        f"{left} questions to ask, {estimate.n_known} answered before; about {estimate.tokens_in:,} tokens read and "
        f"at most {estimate.tokens_out:,} written"
    )
    if price_in or price_out:
        line += f"; at most {estimate.cost(price_in, price_out):.2f} at these prices"
    return line
