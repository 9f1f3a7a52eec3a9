"""A picture goes in, an :class:`~seewhy.explanation.base.Explanation` comes out: each question with its evidence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..attributions import Attribution, attributions
from ..classifiers.certainty import check_level
from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..errors import InputError
from ..explanation.base import Explanation
from ..parameters import configured
from ..pictures.object_masks import MaskSource
from ..storage.features import FeatureStore
from ..threads import each_beside
from ..trust.base import LEVEL
from ..types import Failure
from .agreement import agreement_of
from .case import Case, Question, cases, runner_up
from .like import show_like
from .perceived import show_perceived
from .where import show_where
from .words import show_words

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..encoders.base import Encoder

__all__ = ["EVIDENCE", "ExplainOptions", "explain_all", "explain_seen", "reads_layer", "runner_up"]


@dataclass(frozen=True)
class ExplainOptions:
    """What to explain and how.

    Attributes:
        where: registered attribution, or one made by hand, as :mod:`seewhy.compat` makes them; left out, the
            classifier's own, or Grad-CAM.
        layer: inner layer of the trunk that the map is read from; left out, the encoder's last map.
        target: class to explain, by its name or its number; left out, the predicted one.
        contrast: class to explain the target against, by its name or its number; left out, none.
        target_text: sentence whose similarity to the picture is explained by *where*, not a class.
        contrast_text: sentence the target sentence is explained against.
        settings: fields of the method that *where* names, for example ``{"n_masks": 2000}``; kept as sorted pairs.
        like: registered way of finding likenesses; left out, EPIC where the classifier has its prototypes, else its
            own: a ProtoPNet's, the pictures that voted, or nearest patches.
        prototypes: where EPIC's prototypes lie; left out, the classifier's own folder.
        because: strengths of the changes that show what likenesses rest on, ``"calibrated"`` or ``"paper"``; left
            out, this is not measured.
        neurons: how many channels that speak most for the target, and against it, are listed with their names.
        measure: whether deletion and insertion are run.
        n_regions: lettered regions.
        top: classes listed.
        level: how often the true class is to be among those named by the decision.
        typical: the folder of a generator that makes typical pictures of the class, once for
            each class; left out, none are made.
        judge: a second network that says what is on them: a classifier, or an encoder with words.
        seed: of shuffled maps and ties.
        objects: who says where the object is, for the part of the heat outside it; left out, this is not measured.
    """

    where: str | Attribution | None = None
    target: str | int | None = None
    contrast: str | int | None = None
    measure: bool = True
    n_regions: int = 3
    top: int = 5
    seed: int = 0
    layer: str | None = None
    target_text: str | None = None
    contrast_text: str | None = None
    settings: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()
    neurons: int = 0
    like: str | None = None
    prototypes: str | Path | None = None
    because: str | None = None
    level: float = LEVEL
    typical: Any = None
    judge: Classifier | Encoder | None = None
    objects: MaskSource | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_level(self.level)
        object.__setattr__(self, "settings", tuple(sorted(dict(self.settings).items())))
        if self.objects is not None and not callable(getattr(self.objects, "mask", None)):
            raise InputError(
                f"objects={self.objects!r} was given. Who says where the object is, such as MaskFiles of "
                "seewhy.pictures.object_masks, was expected. Give one, or leave it out."
            )
        if self.judge is not None and self.typical is None:
            raise InputError(
                "A judge was given, and no generator. It judges typical pictures of the class, which a generator "
                "makes. Give typical=FOLDER, or --typical FOLDER, or leave the judge out."
            )

    def opened(self, classifier: Classifier) -> ExplainOptions:
        """The same, with the generator read, so that all that follows makes each class once."""
        if not isinstance(self.typical, str | Path):
            return self
        from ..classifiers.base import Classifier
        from ..encoders.base import Encoder

        if self.judge is not None and not isinstance(self.judge, Classifier | Encoder):
            raise InputError(
                f"The judge is {type(self.judge).__name__!r}. A classifier, or an encoder with words, was expected. "
                "Load one with seewhy.load or seewhy.encoder."
            )
        (made,) = entry_points(group="seewhy.evidence", name="typical")
        return replace(self, typical=made.load().open(self.typical, classifier, self.judge), judge=None)

    def method(self, own: str = "grad_cam") -> Attribution:
        """What *where* names, with the settings and at the layer asked for; ``own`` where it names nothing."""
        given = dict(self.settings)
        if isinstance(self.where, Attribution):
            if self.layer is not None:
                raise InputError("An attribution made by hand and a layer were given. Make it with its layer.")
            return configured(self.where, given)
        name = own if self.where is None else self.where
        found: Any = attributions[name]
        if self.layer is None:
            return configured(found, given)
        if "layer" in given:
            raise InputError(f"The layer was given twice, as {self.layer!r} and as a setting. Drop one of them.")
        if not reads_layer(found):
            able = ", ".join(name for name in attributions if reads_layer(attributions[name]))
            raise InputError(f"{name} reads no layer, and {self.layer!r} was given. These do: {able}.")
        return configured(found, {**given, "layer": self.layer})

    def label(self, method: Attribution) -> str:
        """The method's name with its layer and its settings, for cards."""
        place = "" if self.layer is None else f" at {self.layer}"
        settings = ", ".join(f"{name}={value}" for name, value in dict(self.settings).items())
        return f"{method.name}{place}{f' with {settings}' if settings else ''}"


def reads_layer(method: type[Attribution]) -> bool:
    """Whether a method can be told an inner layer."""
    return "layer" in {f.name for f in fields(method)}  # type: ignore[arg-type]


def _typical(case: Case, _: Mapping[str, Any]) -> Any:
    typicals: Any = case.options.typical
    return None if typicals is None else typicals.of(case.target)


EVIDENCE: dict[str, Callable[[Case, Mapping[str, Any]], Any]] = {
    "where": lambda case, _: show_where(case),
    "like": lambda case, _: show_like(case),
    "words": lambda case, _: show_words(case.classifier, case.pooled, case.target, case.other, case.scores),
    "agreement": agreement_of,
    "seen": lambda case, _: show_perceived(case),
    "typical": _typical,
}
"""Question, as a field of the explanation is called → its evidence, from the picture and the answers before it."""


def explain_all(
    classifier: Classifier,
    sources: Iterable[Any],
    options: ExplainOptions,
    *,
    store: FeatureStore | None = None,
    batch_size: int = 16,
) -> Iterator[Explanation | Failure]:
    """Explain pictures as a stream, in order."""
    options = options.opened(classifier)
    question = Question.of(classifier, options)
    request = EncodeRequest(features=lambda _index: True, pictures=True)
    stream = encode_stream(classifier.encoder, sources, store=store, request=request, batch_size=batch_size)
    while batch := list(itertools.islice(stream, batch_size)):
        good = [s for s in batch if isinstance(s, Encoded)]
        made = _answers(question, good) if good else iter(())
        for one in batch:
            yield one if isinstance(one, Failure) else next(made)


def explain_seen(classifier: Classifier, seen: Sequence[Encoded], options: ExplainOptions) -> Iterator[Explanation]:
    """Explain pictures that were encoded already, with their feature maps and pixels; no trunk runs but to measure."""
    options = options.opened(classifier)
    return _answers(Question.of(classifier, options), seen)


def _answers(question: Question, encoded: Sequence[Encoded]) -> Iterator[Explanation]:
    made = _each(question, encoded)
    return each_beside(question.classifier.encoder.engine.name, made)


def _each(question: Question, encoded: Sequence[Encoded]) -> Generator[Explanation, None, None]:
    for case in cases(question, encoded):
        yield explanation_of(case)


def explanation_of(case: Case) -> Explanation:
    """Every question answered about one picture."""
    answers: dict[str, Any] = {}
    for name, answer in EVIDENCE.items():
        answers[name] = answer(case, answers)
    return Explanation(
        case.prediction,
        case.picture.pixels,
        **answers,
        model=case.classifier.provenance(),
        subject=case.subject,
    )
