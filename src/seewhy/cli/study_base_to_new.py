"""``seewhy study base-to-new``: what learning some classes by their names brings these, and costs all others."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import options
from .outputs import StudyFolder, answer, check_both
from .study_options import HeldOut, Labelled, NSeeds, TestPictures, learnt_and_tested
from .study_transfer import PER_CLASS, print_comparison
from .terminal import Terminal

BASE_TO_NEW_EXAMPLES = """
Examples:\n\n
  seewhy study base-to-new photos/ --method coop,ogen\n\n
  seewhy study base-to-new train/ --test test/ --method coop --per-class 1 --per-class 4 -o study\n\n
  seewhy study base-to-new photos/ --method coop,promptsrc,ogen --n-seeds 5 --json
"""


def base_to_new(
    data: Labelled,
    method: Annotated[str, options.method("Several of those of adapt, separated by commas.")] = "coop",
    encoder: options.EncoderName = "lite0",
    engine: options.EngineName = "auto",
    test: TestPictures = None,
    held_out: HeldOut = 0.2,
    per_class: Annotated[
        list[int] | None, typer.Option(min=1, help=f"{PER_CLASS} Left out, 1, 4 and 16.", show_default=False)
    ] = None,
    n_seeds: NSeeds = 3,
    output: StudyFolder = None,
    group: options.Group = None,
    image_column: options.ImageColumn = "image",
    label_column: options.LabelColumn = "label",
    seed: Annotated[int, options.seed("Test pictures, subsets and resampling.")] = 0,
    force: options.Force = False,
    as_json: options.Json = False,
    store: options.Store = None,
    quiet: options.Quiet = False,
) -> None:
    """What does learning half of the classes by name bring these, and cost the others? Goes on where it was stopped."""
    from ..encoders.find import encoder as find
    from ..studies.base_to_new import BaseToNewStudy

    terminal = Terminal(quiet)
    check_both(output, "base-to-new", force)
    study = BaseToNewStudy(
        tuple(name.strip() for name in method.split(",") if name.strip()),
        tuple(sorted(set(per_class or (1, 4, 16)))),
        n_seeds,
        held_out,
        seed=seed,
    )
    samples, tested = learnt_and_tested(data, test, image=image_column, label=label_column, group=group)
    looked = find(encoder, engine=engine)
    found = study.run(looked, samples, output, test=tested, store=options.open_store(store), progress=terminal)
    answer(found, output, "base-to-new", force, as_json, _print)
    raise typer.Exit(terminal.exit_code(found.data["n"]))


def _print(data: dict[str, Any]) -> None:
    print_comparison({**data, "encoders": [{"name": name} for name in data["methods"]]})
