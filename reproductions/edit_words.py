"""What changes when words change: accuracy, for classes and groups, and every picture whose decision flips.

python reproductions/edit_words.py birds/ photos/ --remove wings --replace 'red beak=orange beak'
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scripts import ended, parser, settled

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.encoded_set import encode_labelled
from seewhy.classifiers.words import reworded, texts_of
from seewhy.descriptions.base import Change, Descriptions
from seewhy.errors import DataError, InputError
from seewhy.pictures.samples import Samples
from seewhy.progress import Progress
from seewhy.spelling import nearest
from seewhy.storage.features import FeatureStore
from seewhy.studies.study import Findings, beside
from seewhy.studies.words_compared import compare_words


@dataclass(frozen=True)
class Edit:
    """What to take out and what to say otherwise, in that order.

    Args:
        remove: every description that has one of these phrases goes; in any case, whole words.
        replace: pairs of a phrase and what takes its place inside descriptions.
        label: only descriptions of this class; left out, of all.
    """

    remove: tuple[str, ...] = ()
    replace: tuple[tuple[str, str], ...] = ()
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.remove and not self.replace:
            raise InputError("No change was given. Expected a phrase. Use --remove PHRASE or --replace OLD=NEW.")
        if not all(p.strip() for p in (*self.remove, *(old for old, _ in self.replace))):
            raise InputError("An empty phrase was given. Expected words of a description. Write some of them.")

    def __call__(self, descriptions: Descriptions) -> tuple[Descriptions, list[Change]]:
        """The changed descriptions and every change."""
        if self.label is not None and self.label not in descriptions.texts:
            descriptions.limited_to([self.label])
        unused = {*self.remove, *(old for old, _ in self.replace)}
        changes: list[Change] = []
        texts: dict[str, tuple[str, ...]] = {}
        for label, lines in descriptions.texts.items():
            kept: list[str] = []
            for text in lines:
                after = self._after(text, unused) if self.label in (None, label) else text
                kept += [] if after is None else [after]
                if after != text:
                    changes.append(Change(label, text, after))
            if not kept:
                raise DataError(
                    f"{label!r} would be left without descriptions. Expected at least one. Replace the phrase "
                    "instead, or write another description first."
                )
            texts[label] = tuple(dict.fromkeys(kept))
        if unused:
            raise DataError(_not_found(sorted(unused)[0], descriptions))
        return Descriptions(texts), changes

    def _after(self, text: str, unused: set[str]) -> str | None:
        for phrase in self.remove:
            if _pattern(phrase).search(text):
                unused.discard(phrase)
                return None
        for old, new in self.replace:
            said = _pattern(old).sub(lambda _, new=new: new, text)  # type: ignore[misc]
            if said != text:
                unused.discard(old)
            text = said.strip()
        return text or None


def _pattern(phrase: str) -> re.Pattern[str]:
    """The phrase in any case, with any blanks, not inside longer words."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


def _not_found(phrase: str, descriptions: Descriptions) -> str:
    texts = [t for lines in descriptions.texts.values() for t in lines]
    near = nearest(phrase, texts, cutoff=0.3) or texts[:1]
    return (
        f"No description has {phrase!r}. Expected whole words of a description, in upper or lower case. The nearest is "
        f"{near[0]!r}."
    )


@dataclass(frozen=True)
class EditWordsStudy:
    """Decide on labelled pictures with the words as they are and as they are after an edit.

    Where the words decide (zero_shot, described), the decision is compared; elsewhere what the words alone choose.

    Args:
        edit: the change.
        n_draws: resampled sets of pictures.
        level: of the intervals.
        seed: of the resampling.
    """

    edit: Edit
    n_draws: int = 2000
    level: float = 0.95
    seed: int = 0

    def run(
        self,
        classifier: Classifier,
        samples: Samples,
        *,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """Measure the change.

        Args:
            classifier: with descriptions.
            samples: labelled pictures; ``text`` of each is its group, where groups are asked for.
            store: where looks and sentences are kept.
            progress: hears of progress and failures.

        Raises:
            DataError: no descriptions, a phrase that none has, no label that is known, or no picture that can be read.
        """
        progress = progress or Progress()
        if classifier.words is None:
            raise DataError("This classifier has no descriptions to change. Start with --descriptions FILE.")
        changed, changes = self.edit(Descriptions.of(texts_of(classifier.words)))
        after = reworded(classifier, changed, store)
        looked = encode_labelled(classifier.encoder, classifier.classes, samples, store, progress)
        how = {"n_draws": self.n_draws, "level": self.level, "seed": self.seed}
        compared = compare_words(classifier, after, changes, looked.items, looked.pooled, **how)
        return Findings({**compared, "model": classifier.provenance(), **beside(progress)})


def main(arguments: Sequence[str] | None = None) -> Findings:
    """Change words of a saved classifier and say what that changes."""
    options = parser(__doc__, EditWordsStudy, "model", "data")
    options.add_argument("--remove", action="append", default=[], metavar="PHRASE")
    options.add_argument("--replace", action="append", default=[], metavar="OLD=NEW")
    options.add_argument("--label", help="only this class's words")
    given = options.parse_args(arguments)
    pairs = tuple((old, new) for old, _, new in (one.partition("=") for one in given.replace))
    study = settled(EditWordsStudy(Edit(tuple(given.remove), pairs, given.label)), given.set)
    samples = seewhy.load_samples(given.data)
    return ended(study.run(seewhy.load(given.model), samples, progress=seewhy.Bars()), given.out)


if __name__ == "__main__":
    main()
