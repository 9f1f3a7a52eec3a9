"""What does an encoder keep before its projection head, and lose behind it? On your pictures, for each head.

python reproductions/projection_head_study.py photos/ -e lite0 --heads none,linear --folder heads/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from scripts import ended, parser, settled

import seewhy
from seewhy.encoders.base import Encoder
from seewhy.errors import InputError
from seewhy.learning.encoders.adapted import Adaptation
from seewhy.learning.encoders.image_copy import ImageCopy
from seewhy.learning.encoders.projection import Form
from seewhy.learning.pretrain import Pretrain
from seewhy.pictures.samples import Samples, gathered
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from seewhy.storage.output import make_folder
from seewhy.studies.material import look_with_each
from seewhy.studies.study import Findings
from seewhy.studies.transfer import TransferStudy
from seewhy.training.augmentation import Augmentation

START = "start"
PLAIN: Form = "none"
"""The head that is none: what stands before it is what stands behind it."""


@dataclass(frozen=True)
class ProjectionHeadStudy:
    """Train the encoder with each kind of head, as much and from the same start, and probe before and behind it.

    Xue et al. 2024 (arXiv:2403.11391): what the objective has no use for fades most behind the head. Trained and probed
    on the same pictures to learn from, tested on others; probes and comparisons are those of
    :class:`.transfer.TransferStudy`, between before and behind each head, and before each and the encoder trained
    without a head. The encoder as it began stands beside them and is not compared.

    Args:
        objective: over pictures alone, by its registered name.
        heads: kinds, see :class:`seewhy.learning.encoders.projection.Projection`.
        epochs: times each picture is seen.
        batch_size: pictures compared with one another.
        lr: highest learning rate; left out, the encoder's own.
        augmentation: what is done to views, or its name.
        probes: what is asked of each.
    """

    objective: str = "simclr"
    heads: tuple[Form, ...] = get_args(Form)
    epochs: int = 20
    batch_size: int = 256
    lr: float | None = None
    augmentation: Augmentation | str = "simclr"
    probes: TransferStudy = field(default_factory=lambda: TransferStudy(shots=(4, 16), parts=(0.1,), n_corrupted=0))

    def __post_init__(self) -> None:
        unknown = [head for head in self.heads if head not in get_args(Form)]
        if unknown or not self.heads or len(set(self.heads)) < len(self.heads):
            raise InputError(
                f"The heads {', '.join(map(repr, self.heads)) or 'none at all'} were given. Expected one or more of "
                f"{', '.join(map(repr, get_args(Form)))}, each once. Change them."
            )
        _ = self.way(self.heads[0])

    def way(self, head: Form) -> Pretrain:
        """How an encoder is trained with a head."""
        return Pretrain(
            self.objective, projection=head, keep_head=head != PLAIN, augmentation=self.augmentation,
            epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, seed=self.probes.seed,
        )  # fmt: skip

    def run(
        self,
        encoder: Encoder,
        samples: Samples,
        folder: Path | None = None,
        *,
        test: Samples | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """Train, look, probe and compare; a stopped run goes on from its checkpoints and its journal."""
        progress, probes = progress or Progress(), self.probes
        if test is None:
            looked = look_with_each(
                {START: encoder}, samples, probes.recipe, held_out=probes.held_out, seed=probes.seed, store=store,
                progress=progress,
            )[START].pictures  # fmt: skip
            each = list(zip(looked.items, looked.held.tolist(), strict=True))
            samples, test = (gathered([item for item, out in each if out is side]) for side in (False, True))
        if folder is not None:
            make_folder(folder)
        encoders = {START: encoder}
        for head in self.heads:
            encoders |= self._trained(head, encoder, samples, test, folder, store, progress)
        found = probes.run(
            encoders, samples, folder, test=test, store=store, progress=progress, pairs=self._pairs(list(encoders))
        )
        return Findings(self._findings(found.data))

    def _trained(
        self, head: Form, on: Encoder, samples: Samples, test: Samples, folder: Path | None,
        store: FeatureStore | None, progress: Progress,
    ) -> dict[str, Encoder]:  # fmt: skip
        """The encoder before its head, and behind it where there is one."""
        checkpoint = None if folder is None else folder / f"{head}.checkpoint"
        done = self.way(head).fit(
            on, samples.items, validation=test.items, store=store, progress=progress, checkpoint=checkpoint
        )
        whole = done.adaptation
        if head == PLAIN:
            return {PLAIN: whole.encoder(PLAIN)}
        assert isinstance(whole.trained, ImageCopy)
        before = Adaptation(on, ImageCopy(whole.trained.trunk, whole.trained.pool))
        names = before_name(head), behind_name(head)
        return {names[0]: before.encoder(names[0]), names[1]: whole.encoder(names[1])}

    def _pairs(self, names: Sequence[str]) -> list[tuple[str, str]]:
        pairs = [(before_name(head), behind_name(head)) for head in self.heads if head != PLAIN]
        if PLAIN in names:
            pairs += [(before, PLAIN) for before, _ in pairs]
        return pairs

    def _findings(self, data: Mapping[str, Any]) -> dict[str, Any]:
        kept = [kept_and_lost(data["measures"], head) for head in self.heads if head != PLAIN]
        n = data["settings"]["n_compared"]
        parts = [
            f"behind the {one['head']} head {len(one['lost'])} of {one['n_compared']} measures are really worse than "
            f"before it, {len(one['gained'])} better"
            for one in kept
        ]
        said = "; ".join(parts) or "no head was compared"
        said = said[:1].upper() + said[1:]
        settings = {
            **data["settings"], "objective": self.objective, "epochs": self.epochs, "batch_size": self.batch_size,
        }  # fmt: skip
        return {
            **data, "study": "projection-head", "heads": kept, "settings": settings,
            "sentence": f"{said} ({data['settings']['level']:.0%}, corrected for {n} comparisons).",
        }  # fmt: skip


def before_name(head: str) -> str:
    return f"before {head}"


def behind_name(head: str) -> str:
    return f"behind {head}"


def kept_and_lost(measures: Sequence[Mapping[str, Any]], head: str) -> dict[str, Any]:
    """Measures that are really worse behind the head than before it, and really better."""
    names = before_name(head), behind_name(head)
    own = [(t["measure"], d) for t in measures for d in t["differences"] if (d["a"], d["b"]) == names]
    return {
        "head": head,
        "lost": [measure for measure, d in own if d["better"] == names[0]],
        "gained": [measure for measure, d in own if d["better"] == names[1]],
        "n_compared": len(own),
    }


def main(arguments: Sequence[str] | None = None) -> Findings:
    """Train with each head and probe before and behind it."""
    options = parser(__doc__, ProjectionHeadStudy, "data")
    options.add_argument("-e", "--encoder", default="lite0")
    options.add_argument("--heads", default=",".join(get_args(Form)), help="kinds, separated by commas")
    given = options.parse_args(arguments)
    study, test = (
        settled(ProjectionHeadStudy(heads=tuple(given.heads.split(","))), given.set),
        given.test and seewhy.load_samples(given.test),
    )
    encoder, samples = seewhy.encoder(given.encoder), seewhy.load_samples(given.data)
    return ended(study.run(encoder, samples, given.folder, test=test, progress=seewhy.Bars()), given.out)


if __name__ == "__main__":
    main()
