"""What ``seewhy explain`` does with a detector or a segmenter: a card for every box or segment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import encoder_given, focused, open_store, picture_names, read_descriptions
from .segment import label_names
from .terminal import Terminal, say

if TYPE_CHECKING:
    from ..evidence.explain import ExplainOptions
    from ..storage.features import FeatureStore

DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector",
        help="word_regions; with a folder of weights owlv2:PATH, grounding_dino:PATH.",
        show_default=False,
    ),
]
SegmenterName = Annotated[
    str | None,
    typer.Option("--segmenter", help="maskclip; with a folder of weights clipseg:PATH.", show_default=False),
]
Known = Annotated[
    Path | None,
    typer.Option(
        help="Pictures with boxes, masks or folders of one class each, that boxes or segments are likened to.",
        show_default=False,
    ),
]
Most = Annotated[
    int,
    typer.Option(
        "--most-cards", min=1, help="Boxes or segments of one picture that get a card: the surest, the largest."
    ),
]


@dataclass(frozen=True)
class PartsAsked:
    """What was asked for.

    Attributes:
        model: a saved segmenter.
        labels: names to find, without a model.
        detector: what finds boxes by them.
        segmenter: what finds segments by them.
        encoder: what looks.
        focus: an instruction to it.
        engine: what runs it.
        descriptions: a file of sentences about the names.
        known: pictures to liken to.
        most: parts of one picture.
    """

    model: str | None
    labels: str | None
    detector: str | None
    segmenter: str | None
    encoder: str
    focus: str | None
    engine: str
    descriptions: Path | None
    known: Path | None
    most: int

    @property
    def wanted(self) -> bool:
        """Whether parts are explained, not whole pictures."""
        if (self.detector, self.segmenter, self.known) != (None, None, None):
            return True
        from ..classifiers.saving import CARD

        # Only where it is no classifier: what finds parts takes long to import.
        if self.model is None or (Path(self.model) / CARD).is_file():
            return False
        from ..dense.saving import is_detector, is_segmenter

        return is_segmenter(self.model) or is_detector(self.model)

    def finder(self, store: FeatureStore | None) -> Any:
        """What finds."""
        from ..dense.by_words import detector_for, segmenter_for
        from ..dense.saving import is_detector, load_detector, load_segmenter
        from ..errors import InputError

        given = [o for o, v in (("--detector", self.detector), ("--segmenter", self.segmenter)) if v is not None]
        if self.known is not None and self.model is None and not given:
            raise InputError(
                "--known was given, and whole pictures are explained. Boxes or segments were expected. Add "
                "--detector or --segmenter, or a saved one with -m."
            )
        if self.model is not None and (given or self.labels is not None):
            raise InputError(
                f"--model and {(given or ['--labels'])[0]} were both given. A saved one has its own names: drop one."
            )
        if len(given) > 1:
            raise InputError("--detector and --segmenter were both given. One of them was expected: drop the other.")
        if self.model is not None:
            load = load_detector if is_detector(self.model) else load_segmenter
            return load(self.model, encoder=encoder_given(self.encoder), engine=self.engine)
        if self.labels is None:
            raise InputError(
                f'{given[0]} was given without names. What to look for was expected. Add --labels "stamp, platelet".'
            )
        names, looks = label_names(self.labels), focused(self.encoder, self.focus)
        if self.detector is not None:
            return detector_for(self.detector, names, looks, engine=self.engine, store=store)
        return segmenter_for(str(self.segmenter), names, looks, engine=self.engine, store=store)


def run_parts(
    asked: PartsAsked,
    options: ExplainOptions,
    pictures: list[str],
    output: Path | None,
    not_taken: Mapping[str, Any],
    *,
    png: bool,
    force: bool,
    as_json: bool,
    store: str | None,
    quiet: bool,
) -> None:
    """Explain, write and say."""
    from ..dense.part_cards import PartBatch
    from ..dense.part_evidence import PartExplainer, with_examples
    from ..errors import InputError
    from .explain import say_results

    if wrong := [name for name, value in not_taken.items() if value]:
        raise InputError(
            f"{wrong[0]} was given, and boxes or segments are explained. It is for whole pictures. Leave it out."
        )
    terminal, kept = Terminal(quiet), open_store(store)
    explainer = PartExplainer.of(asked.finder(kept), read_descriptions(asked.descriptions), kept)
    if asked.known is not None:
        explainer = with_examples(explainer, asked.known, terminal)
    batch = PartBatch(explainer, options, output, most=asked.most, png=png, force=force, progress=terminal)
    say_results(batch.run(picture_names(pictures, output)), terminal, tell_part, as_json)
    if batch.index is not None and batch.n_pictures and not as_json:
        say(f"index: {batch.index}")
    raise typer.Exit(terminal.exit_code(batch.n_pictures))


def tell_part(done: Any) -> None:
    """What a person reads of one part."""
    from .explain import told

    part = done.record["part"]
    say(f"{part['kind']} {part['number']} of {part['n']}, {part['label']}, score {part['score']:.2f}")
    found = None if done.explanation is None else done.explanation.part
    if found is not None and found.outside is not None:
        say(f"  {'inside':<10} {found.outside.verdict.level}: {found.outside.verdict.sentence}")
    told(done)
