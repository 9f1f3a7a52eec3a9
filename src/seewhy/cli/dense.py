"""``seewhy segment`` and ``seewhy detect``: find segments and objects, by words or with a trained model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from ..bounds import Bound, Part
from ..errors import InputError
from ..parameters import configured
from ..printable import printable
from . import options
from .session import Session, not_both
from .terminal import say

MOST_SAID = 10
"""Maximum number of missing names in a line about a picture."""


def segment(
    session: Session,
    pictures: list[str],
    *,
    model: str | None = None,
    labels: str | None = None,
    method: str = "maskclip",
    output: Path | None = None,
) -> None:
    """Assign one of your class names, or none, to every pixel: by the names alone, or with a trained segmenter."""
    from ..dense import segmenters
    from ..dense.regions import SegmentFolder
    from ..dense.saving import load_segmenter

    if model is not None:
        if labels is not None:
            raise not_both("--model", "--labels", "a saved segmenter has its own classes")
        session.finish_settings()
        with session.terminal.doing(f"Loading {model}"):
            segmenter: Any = load_segmenter(model, encoder=session.own_encoder, engine=session.engine)
    elif labels is None:
        raise InputError('Class names are required. Add --labels "road, car, tree", for example.')
    else:
        segmenter = _by_words(session, segmenters, method, labels)
    folder = None if output is None else SegmentFolder(output, segmenter.classes, force=session.force)
    stream = segmenter.segment_all(session.pictures(pictures, output))
    for found in session.results(stream, "Labelling pixels", session.n_pictures):
        mask = None if folder is None else folder.add(found)
        shares = [f"{s.label} {100 * s.share:.0f} %" for s in found.regions]
        if found.unnamed and shares:
            shares.append(f"no name {100 * found.unnamed:.0f} %")
        data = {**found.to_json(), "mask": None if mask is None else str(mask)}
        session.say(data, _line(found.image, shares, found.not_found))
    if folder is not None and session.n_results:
        page = folder.finish()
        if not session.as_json:
            say(f"page: {page}")
    session.end()


def detect(
    session: Session,
    pictures: list[str],
    *,
    model: str | None = None,
    labels: str | None = None,
    method: str = "word_regions",
    output: Path | None = None,
    format: str = "coco",
    tiles: Annotated[int, Bound(1, 32)] | None = None,
    least_score: Part | None = None,
) -> None:
    """Find objects by name or with a trained detector, and draw a box around each object."""
    from ..dense.regions import BoxFolder

    given: dict[str, Any] = {} if least_score is None else {"least": least_score}
    build: Callable[..., Any] = _detector_by_words if model is None else _saved_detector
    detector = build(session, method if model is None else model, labels, tiles, given)
    folder = None if output is None else BoxFolder(output, detector.classes, format, force=session.force)
    stream = detector.detect_all(session.pictures(pictures, output))
    for found in session.results(stream, "Finding objects", session.n_pictures):
        if folder is not None:
            folder.add(found)
        counts = Counter(d.label for d in found.regions)
        parts = [f"{n} {label}" for label, n in counts.most_common()]
        session.say(found.to_json(), _line(found.image, parts, found.not_found))
    if folder is not None and session.n_results:
        boxes, page = folder.finish()
        if not session.as_json:
            say(f"boxes: {boxes}", f"page: {page}")
    session.end()


def _by_words(session: Session, registry: Any, method: str, labels: str, **given: Any) -> Any:
    from ..dense.by_words import finder_for

    settings = session.take_all()
    made = configured(registry[method.partition(":")[0]], settings) if settings else None
    given |= {name: getattr(made, name) for name in settings} | {"engine": session.engine, "store": session.store}
    names = options.label_names(labels)
    with session.terminal.doing(f"Loading the encoder {session.encoder_name}"):
        return finder_for(registry, method, names, session.encoder_name, **given)


def _detector_by_words(
    session: Session, method: str, labels: str | None, tiles: int | None, given: dict[str, Any]
) -> Any:
    from ..dense import detectors

    if labels is None:
        raise InputError('Class names are required. Add --labels "stamp, platelet", for example.')
    if tiles is not None:
        given |= getattr(detectors[method.partition(":")[0]], "tiled", lambda n: {"tiles": n})(tiles)
    return _by_words(session, detectors, method, labels, **given)


def _saved_detector(session: Session, model: str, labels: str | None, tiles: int | None, given: dict[str, Any]) -> Any:
    from ..dense.saving import load_detector

    if tiles is not None:
        raise InputError(
            "--model and --tiles cannot be combined, because a saved detector uses the tiles it was "
            "fitted with. Use only one of them, or fit the detector with another --set zoom=…."
        )
    if "least_presence" in session.settings:
        raise InputError(
            "--model and --set least_presence cannot be combined, because a saved detector has its "
            "own thresholds. Use only one of them, or --least-score."
        )
    overlap, most = session.take("overlap", "most")
    session.finish_settings()
    given |= {name: value for name, value in (("overlap", overlap), ("most", most)) if value is not None}
    with session.terminal.doing(f"Loading {model}"):
        detector = load_detector(model, encoder=session.own_encoder, engine=session.engine)
    return (detector if labels is None else detector.for_classes(options.label_names(labels))).keeping(**given)


def _line(image: str, parts: Sequence[str], not_found: Sequence[str]) -> str:
    return f"{printable(image)}\t{printable(', '.join(parts)) or 'nothing found'}{left_out(not_found)}"


def left_out(names: Sequence[str]) -> str:
    """Return the text about names that were not found.

    >>> left_out(["sports car", "bus"]), left_out([])
    ('; not found: sports car, bus', '')
    """
    from ..pictures.samples import some

    return f"; not found: {printable(some(names, MOST_SAID))}" if names else ""
