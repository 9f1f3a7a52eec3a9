"""Image Textualization over many pictures: one line a picture, gone on from where it was stopped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import DataError, ImageError
from ..pictures.images import read_picture
from ..pictures.thumbnails import encode_thumbnail
from ..storage.files import json_lines
from ..storage.journal import Journal
from ..storage.marks import Lines, Record
from ..storage.reading import read_file
from ..types import Failure, Transform
from .experts import CONTROLS, BoxSegmenter, CellDetector, CellVerifier, Scene, look_at
from .llm import Estimate, NoWriterError, WriterError, WriterSession
from .textualize import Textualizer
from .textualize_prompts import draft_prompt, objects_prompt, read_text, rewrite_prompt
from .textualize_words import article

if TYPE_CHECKING:
    from ..attributions.base import Deciding

DESCRIPTIONS = Lines((Record(("image", "digest", "width", "height", "draft", "obj_from_desc"), None),))
LONGEST = 1024
"""Pixels of the longer side of a picture that a writer sees."""


@dataclass(frozen=True)
class Drafter:
    """Phase 1: a description from the file it is in, from a writer that sees, or from the classifier's decision.

    Args:
        classifier: says what the picture is where nobody else does.
        desk: of a writer that sees.
        drafts: picture's file name → text; they come first.
    """

    classifier: Deciding
    desk: WriterSession | None = None
    drafts: Mapping[str, str] | None = None

    def __call__(self, scene: Scene) -> str:
        if self.drafts is not None:
            return self.drafts.get(Path(scene.name).name, "")
        if self.desk is not None:
            return self.desk.ask(draft_prompt(jpeg(scene)), read_text)
        return self._decided(scene)

    def _decided(self, scene: Scene) -> str:
        """The decision as a sentence, with the descriptor that fits best; nothing where it is a guess."""
        seen = look_at(self.classifier, scene.name)
        with torch.no_grad():
            probabilities = self.classifier.head.probabilities(seen.pooled[:1])[0]
        best = int(probabilities.argmax())
        if float(probabilities[best]) < 0.5:
            return ""
        return f"A photo of {article(self.classifier.classes[best].replace('_', ' '))}."


def offline(
    classifier: Deciding, *, desk: WriterSession | None = None, check: bool = True, threshold: float = 0.5
) -> Textualizer:
    """The pipeline with SeeWhy's own experts.

    Args:
        classifier: whose classes are found; its words, if it has a text half, check the draft.
        desk: of a writer that rewrites; left out, rules do.
        check: whether phrases of the draft that nothing bears out are removed.
        threshold: probability a place needs to be an object.

    Raises:
        DataError: ``check`` without a text half.
    """
    verifier = CellVerifier(classifier) if check else None
    vocabulary = tuple(dict.fromkeys([*classifier.classes, *CONTROLS])) if len(classifier.classes) <= 500 else CONTROLS
    detector = CellDetector(classifier, threshold)
    return Textualizer(detector, verifier, BoxSegmenter(), desk=desk, vocabulary=vocabulary)


def textualize_all(
    names: Iterable[str],
    textualizer: Textualizer,
    drafter: Drafter,
    output: Path,
    made_by: str,
    *,
    force: bool = False,
) -> Iterator[dict[str, Any] | Failure]:
    """Describe pictures as a stream; each line is on the disk before the next picture is looked at.

    A picture whose bytes have a line by the same ``made_by`` in the file is not described again.
    """
    journal = Journal(output, DESCRIPTIONS, force=force, sync=True)
    done = {row["digest"]: row for row in journal.rows if row["made_by"] == made_by}
    try:
        with journal:
            for name in names:
                try:
                    scene = Scene.read(name)
                    if scene.digest in done:
                        yield {**done[scene.digest], "image": name, "known": True}
                        continue
                    record = {**textualizer(scene, drafter(scene)).to_json(), "made_by": made_by}
                except ImageError as error:
                    yield Failure(name, error.reason)
                    continue
                except NoWriterError:
                    raise
                except WriterError as error:
                    yield Failure(name, str(error))
                    continue
                journal.add(record)
                done[scene.digest] = record
                yield record
    except OSError as error:
        raise DataError(f"{output} could not be written: {error}. Free some space or give another place.") from error


def read_drafts(path: Path) -> dict[str, str]:
    """File name → text, from lines of ``{"image": …, "description": …}``."""
    try:
        rows = json_lines(read_file(path).decode("utf-8-sig"))
        return {Path(str(row["image"])).name: str(row["description"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{path} cannot be read: {error!r}. Lines of {{"image": …, "description": …}} were expected.'
        ) from error


def jpeg(scene: Scene) -> bytes:
    """The picture as a writer sees it: upright, in its own proportions."""
    scale = min(1.0, LONGEST / max(scene.width, scene.height))
    size = (max(1, round(scene.height * scale)), max(1, round(scene.width * scale)))
    return encode_thumbnail(read_picture(scene.name, Transform(size, size, "bilinear", (0, 0, 0), (1, 1, 1))).pixels)


def estimate(names: Iterable[str], desk: WriterSession, drafts: Mapping[str, str] | None = None) -> Estimate:
    """What a run would ask a writer: a draft, its objects and a rewrite a picture, at most; nobody is asked.

    The second and third question hold the draft, which is not there yet, so 1,600 characters are taken for it.
    """
    n_known = n = tokens_in = tokens_out = 0
    typical = "x" * 1600
    for name in names:
        try:
            scene = Scene.read(name)
        except ImageError:
            continue
        text = typical if drafts is None else drafts.get(Path(name).name, "")
        later = [desk.as_asked(p) for p in (objects_prompt(text), rewrite_prompt(text, (), ()))]
        if drafts is None:
            first = desk.estimate([draft_prompt(jpeg(scene))])
            n, n_known = n + first.n_prompts, n_known + first.n_known
            tokens_in, tokens_out = tokens_in + first.tokens_in, tokens_out + first.tokens_out
        n += len(later)
        tokens_in += sum(p.n_tokens for p in later)
        tokens_out += sum(p.max_tokens for p in later)
    return Estimate(n, n_known, tokens_in, tokens_out)
