"""What changing words changes: accuracy, for classes and groups, and every picture whose decision turns over."""

from __future__ import annotations

from dataclasses import dataclass

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.encoded_set import encode_labelled
from seewhy.classifiers.words import reworded, texts_of
from seewhy.descriptions.base import Descriptions
from seewhy.descriptions.edits import Edit
from seewhy.errors import DataError
from seewhy.pictures.samples import Samples
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from seewhy.studies.study import Findings, beside
from seewhy.studies.words_compared import WordsCompared


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
        compared = WordsCompared(self.n_draws, self.level, self.seed)(
            classifier, after, changes, looked.items, looked.pooled
        )
        return Findings({**compared, "model": classifier.provenance(), **beside(progress)})
