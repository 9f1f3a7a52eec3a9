"""What changing words changes: accuracy, for classes and groups, and every picture whose decision turns over."""

from __future__ import annotations

from dataclasses import dataclass

from ..classifiers.base import Classifier
from ..classifiers.encoded_set import encode_labelled
from ..classifiers.words import reworded, texts_of
from ..descriptions.base import Descriptions
from ..descriptions.edits import Edit
from ..errors import DataError
from ..pictures.samples import Samples
from ..progress import Progress
from ..report.paging import Answer
from ..storage.features import FeatureStore
from .words_compared import WordsCompared


@dataclass(frozen=True, repr=False)
class EditFindings(Answer):
    """What changed; ``data`` is the documented JSON (docs/json.md)."""

    def to_html(self) -> str:
        from ..report.edit_words import render_edit

        return render_edit(self.data)


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
    ) -> EditFindings:
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
        compared = WordsCompared(self.n_draws, self.level, self.seed)(
            classifier, after, changes, looked.items, looked.pooled
        )
        return EditFindings(
            {
                **compared,
                "model": classifier.provenance(),
                "notes": list(progress.notes),
                "failures": [f.to_json() for f in progress.failures],
            }
        )
