"""``seewhy serve``: classifiers behind HTTP."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..classifiers.base import Classifier

EXAMPLES = """
Examples:\n
  seewhy serve -m birds\n
  seewhy serve -m birds -m plants=models/plants-3 --port 8080\n
  seewhy serve -m birds --host 0.0.0.0 --token-file token --rate 600\n
  seewhy serve -m birds --host 0.0.0.0 --no-token --name birds.example.org
"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
STDOUT = 1


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A saved model. A classifier; NAME=FOLDER gives it a name, else its folder does; may be given again.",
            show_default=False,
        ),
    ] = None,
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    host: options.Host = "127.0.0.1",
    port: options.Port = 8000,
    name: options.HostNames = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="The token that clients must send stands in this file. Left out, in SEEWHY_TOKEN.", show_default=False
        ),
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Let other machines ask without a token.")] = False,
    max_upload: options.MaxUpload = 20.0,
    max_pictures: Annotated[int, typer.Option(min=1, help="Pictures of one request.")] = 32,
    max_batch: Annotated[int, typer.Option(min=1, help="Pictures of all clients that are looked at together.")] = 16,
    max_wait: Annotated[
        float, typer.Option(min=0, max=1000, help="Milliseconds that a picture waits for others being decoded.")
    ] = 5.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Pictures that may wait; one more is refused.")] = 256,
    rate: Annotated[
        float | None,
        typer.Option(min=0.01, help="Requests a minute from one address; left out, any number.", show_default=False),
    ] = None,
    request_seconds: Annotated[float, typer.Option(min=0.1, help="Time until a request is given up.")] = 60.0,
    decode_seconds: options.DecodeSeconds = 10,
    measure: options.Measure = True,
    reload_seconds: Annotated[
        float, typer.Option(min=0, help="How often folders are looked at for a new model; 0 waits for SIGHUP.")
    ] = 5.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="Time that running requests get to end after SIGTERM.")
    ] = 30.0,
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="A line of JSON per request on standard output.")
    ] = True,
    quiet: options.Quiet = False,
) -> None:
    """Serve classifiers to programs: several pictures a request, evidence on demand, metrics, reload, drain."""
    from ..classifiers.saving import load
    from ..service.app.settings import MEGABYTE, Settings
    from ..service.serve import ServiceSettings, make_service
    from ..service.serve import serve as run
    from ..service.serve.settings import read_token

    web = Settings(
        host=host,
        port=port,
        names=tuple(name or ()),
        max_upload=round(max_upload * MEGABYTE),
        request_seconds=request_seconds,
        decode_seconds=decode_seconds,
        measure=measure,
        n_waiting=max_waiting,
        batch=max_batch,
        gather_seconds=max_wait / 1000,
    )
    settings = ServiceSettings(
        web,
        token=None if no_token else read_token(token_file),
        open_without_token=no_token,
        n_pictures=max_pictures,
        rate=rate,
        reload_seconds=reload_seconds,
        drain_seconds=drain_seconds,
    )
    _ = Terminal(quiet)  # sets what is noted
    sources: dict[str, Classifier | Path] = dict(named(model or []))
    if not sources:
        sources["imagenet"] = options.resolve(None, None, encoder, engine, None, None)
    app = make_service(
        sources,
        settings,
        load=lambda folder: load(folder, engine=engine, encoder=options.encoder_given(encoder)),
        log_to=STDOUT if access_log else None,
    )
    listed = ", ".join(sources)
    run(app, lambda url: say(f"SeeWhy serves {listed} at {url} (SIGTERM or Ctrl-C stops it)", file=sys.stderr))


def named(models: list[str]) -> dict[str, Path]:
    """Name → folder of what ``-m`` gives.

    Raises:
        InputError: a name cannot stand in an address, or two models have one.

    >>> named(["birds", "plants=models/plants-3"])
    {'birds': PosixPath('birds'), 'plants': PosixPath('models/plants-3')}
    """
    from ..errors import InputError

    found: dict[str, Path] = {}
    for one in models:
        name, is_named, folder = one.partition("=")
        if not is_named or Path(one).exists():
            name, folder = Path(one).resolve().name, one
        if not NAME.fullmatch(name) or not folder:
            raise InputError(
                f"-m {one!r} gives the model the name {name!r}. Up to 64 letters, digits, points and dashes were "
                "expected. Give -m NAME=FOLDER."
            )
        if name in found:
            raise InputError(f"Two models are called {name!r}. Each needs a name of its own. Give -m NAME=FOLDER.")
        found[name] = Path(folder)
    return found
