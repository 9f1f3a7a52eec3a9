"""Which pictures are generated? The best of the paper's 36 small networks, also on pictures saved again.

python reproductions/real_or_generated.py pictures/ --set generated=FAKE --folder search/
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import background_claim
import numpy as np
import torch
from made_judges import NUMBERS, PERTURBATIONS, Judge, OfClassifier, OfNumbers, Pixels, Table, frozen, perturbed
from scripts import ended, parser, settled
from small_cnn import SmallCNN, Topology, pixels_of, reader
from topology_search import Material, Search, best_of
from torch import Tensor

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.encoded_set import EncodedSet, HoldOut, encode_samples, hold_out
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.errors import DataError, InputError
from seewhy.pictures.object_masks import mask_beside
from seewhy.pictures.samples import Samples, load_pictures
from seewhy.progress import Progress
from seewhy.studies.study import Findings, beside

WORDS = ("fake", "generated", "synthetic", "made", "ai")
"""By which the class of made pictures is known, where it is not named."""
FEWEST_MASKS = 10
"""Below which nothing is said of the background."""


@dataclass(frozen=True, repr=False)
class RealOrGeneratedFindings(Findings):
    """What the study found, and the best network, of the first seed."""

    classifier: Classifier | None = field(default=None, compare=False)


@dataclass(frozen=True)
class RealOrGeneratedStudy:
    """CIFAKE's question (Bird & Lotfi 2023, arXiv:2303.14126), with what its answer rests on.

    36 topologies are trained on a part of the pictures and the best is chosen on another part of them; test pictures
    are looked at once, in the end. Beside the network stand what sees colours alone, what sees the spectrum alone, and
    a linear layer on a frozen encoder; all of them are told on the pictures as they are *and* saved again, blurred and
    resampled, by the rule that was learnt on the pictures as they are.

    Args:
        generated: the class of made pictures; left out, the one whose name says so.
        search: what is tried.
        n_epochs: of the chosen network.
        n_seeds: chosen networks, of which the first is kept and all are told.
        selection: part of the pictures learnt from by which a topology is chosen.
        held_out: part of all pictures that is tested on, where no others are given.
        seed: of divisions, first weights and resampling.
    """

    generated: str | None = None
    search: Search = field(default_factory=lambda: Search(SmallCNN(n_epochs=4, n_bank=1, split="random")))
    n_epochs: int = 20
    n_seeds: int = 3
    selection: float = 0.2
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_seeds < 1 or not 0 < self.selection < 0.9 or not 0 < self.held_out < 0.9:
            raise InputError(
                f"The study was given n_seeds={self.n_seeds}, selection={self.selection:g}, held_out={self.held_out:g}."
                " Expected a number of seeds above zero and parts above 0 and below 0.9. Change them."
            )

    def run(
        self,
        encoder: Encoder,
        samples: Samples,
        folder: Path | None = None,
        *,
        test: Samples | None = None,
        unseen: Mapping[str, Samples] | None = None,
        masks: Path | None = None,
        progress: Progress | None = None,
    ) -> RealOrGeneratedFindings:
        """Search, train, test once.

        Args:
            encoder: what looks for the frozen judge.
            samples: photographs and made pictures, as two classes.
            folder: where the search is kept, so that a stopped one goes on.
            test: pictures to test on, without those that are in ``samples`` too; left out, a part of ``samples``.
            unseen: made pictures of other generators, by name; all that is asked of them is whether they are called so.
            masks: a folder with a mask of the object for test pictures, named like them.
            progress: hears of progress, notes and failures.

        Raises:
            DataError: other than two classes, or none of which is known to be made.
        """
        progress = progress or Progress()
        made = made_class(samples, self.generated)
        side = self.search.recipe.side
        how = HoldOut(self.held_out, self.seed, test, "random")
        pictures = encode_samples(reader(side), samples, how, store=None, progress=progress, features=True)
        learn, tested = pictures.subset(pictures.trained), pictures.subset(pictures.held.nonzero()[:, 0].tolist())
        objects = self._objects(tested, masks, progress)
        again = HoldOut(self.selection, self.seed + 1, None, "random")
        tried, chosen_on = self._searched(hold_out(learn.items, learn.encoded, again, Progress()), folder, progress)
        best = best_of(tried)
        table, finals = self._table(encoder, learn, tested, best, made, progress)
        data: dict[str, Any] = {
            "study": "real-or-generated",
            "n": len(tested.labels),
            "n_train": len(learn.labels),
            "n_selection": chosen_on,
            "classes": {"generated": made, "real": next(c for c in samples.classes if c != made)},
            "topologies": tried,
            "chosen": best["topology"],
            **table.told(self.seed),
            "files_alone": files_alone(learn, tested),
            "unseen": self._unseen(unseen or {}, table, side, progress),
            "background": self._background(finals[0], tested, objects),
            "settings": self._settings(),
            "model": finals[0].provenance(),
            **beside(progress),
        }
        return RealOrGeneratedFindings({"sentence": sentence(data), **data}, classifier=finals[0])

    def _settings(self) -> dict[str, Any]:
        own = {k: v for k, v in vars(self).items() if k != "search"}
        search = {k: v for k, v in vars(self.search).items() if k != "recipe"}
        return {**own, "search": {**search, "n_epochs": self.search.recipe.n_epochs}, "side": self.search.recipe.side}

    def _searched(self, learn: EncodedSet, folder: Path | None, progress: Progress) -> tuple[list[dict[str, Any]], int]:
        told = hashlib.sha256()
        for seen, label, held in zip(learn.encoded, learn.labels.tolist(), learn.held.tolist(), strict=True):
            told.update(f"|{seen.digest} {label} {held}".encode())
        material = Material(pixels_of(learn), learn.labels, learn.held, told.hexdigest())
        return self.search.run(material, folder, progress), int(learn.held.sum())

    def _table(
        self,
        encoder: Encoder,
        learn: EncodedSet,
        tested: EncodedSet,
        best: Mapping[str, Any],
        made: str,
        progress: Progress,
    ) -> tuple[Table, list[Classifier]]:
        """Everyone who judges, on every version of the test pictures; and the chosen networks."""
        topology = Topology(*(best[name] for name in ("n_convs", "n_filters", "n_dense", "n_units")))
        recipe = replace(self.search.recipe, **vars(topology), n_epochs=self.n_epochs, held_out=0.1, n_bank=200)
        own = Samples(tuple(learn.items), learn.classes)
        seeds = range(self.seed, self.seed + self.n_seeds)
        finals = [replace(recipe, seed=seed).fit(encoder, own, progress=progress) for seed in seeds]
        pixels, truth = shown(learn), learn.labels == learn.classes.index(made)
        judges: dict[str, tuple[Judge, ...]] = {"small CNN": tuple(OfClassifier(one, made) for one in finals)}
        judges[f"frozen {encoder.name} + linear"] = (frozen(encoder, pixels, truth, self.seed),)
        for name, measure in NUMBERS.items():
            judges[name] = (OfNumbers.fit(measure, pixels, truth, self.seed),)
        real = tested.labels == tested.classes.index(made)
        versions = {name: perturbed(shown(tested), name) for name in PERTURBATIONS}
        return Table.of(judges, versions, real, progress), finals

    def _unseen(
        self, unseen: Mapping[str, Samples], table: Table, side: int, progress: Progress
    ) -> list[dict[str, Any]]:
        found = []
        for name, samples in unseen.items():
            pixels = read(samples, side, progress)
            said = {judge: float((who[0](pixels) > 0.5).float().mean()) for judge, who in table.judges.items()}
            called = {judge: round(part, 4) for judge, part in said.items()}
            found.append({"name": name, "n": len(pixels), "called_generated": called})
        return found

    def _objects(self, tested: EncodedSet, masks: Path | None, progress: Progress) -> dict[int, Tensor]:
        """Masks of the test pictures that have one, asked for before the work begins."""
        if masks is None:
            return {}
        transform = reader(self.search.recipe.side).transform
        found = {i: mask_beside(masks, item.image, transform) for i, item in enumerate(tested.items)}
        known = {i: mask for i, mask in found.items() if mask is not None}
        if len(known) < FEWEST_MASKS:
            raise DataError(
                f"{len(known)} of {len(found)} test pictures have a mask in {masks}. Expected at least {FEWEST_MASKS}, "
                "named like the pictures and neither empty nor full. Add some, or leave the masks out."
            )
        if len(known) < len(found):
            progress.note(
                f"{len(found) - len(known)} test picture(s) have no mask and are left out of the background test"
            )
        return known

    def _background(
        self, classifier: Classifier, tested: EncodedSet, objects: Mapping[int, Tensor]
    ) -> dict[str, Any] | None:
        if not objects:
            return None
        pixels = pixels_of(tested.subset([*objects]))
        return background_claim.claim(classifier, pixels, torch.stack([*objects.values()]), seed=self.seed)


def made_class(samples: Samples, named: str | None) -> str:
    """Which of two classes is of made pictures."""
    classes = samples.classes
    if len(classes) != 2:
        raise DataError(
            f"{len(classes)} classes were given: {', '.join(map(repr, classes[:5]))}. Expected two, photographs "
            "and generated pictures. Put each into a folder of its own."
        )
    if named is not None:
        if named not in classes:
            raise DataError(
                f"There is no class {named!r}. Expected one of {', '.join(map(repr, classes))}. Name the generated one."
            )
        return named
    called = [c for c in classes if c.lower().replace("-", " ").split() and _says_so(c)]
    if len(called) != 1:
        raise DataError(
            f"Neither or both of the classes {classes[0]!r} and {classes[1]!r} are called generated. Expected one "
            f"whose name has {', '.join(WORDS)}. Name it with --generated."
        )
    return called[0]


def _says_so(name: str) -> bool:
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    return any(word in words or (len(word) > 3 and word in name.lower()) for word in WORDS)


def shown(pictures: EncodedSet) -> Pixels:
    """The pictures as the reader saw them, in whole numbers again."""
    return (pixels_of(pictures) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def read(samples: Samples, side: int, progress: Progress) -> Pixels:
    """Pictures of one side.

    Raises:
        DataError: none can be read.
    """
    request = EncodeRequest(pictures=True)
    found = []
    for seen in encode_stream(reader(side), [s.source for s in samples.items], store=None, request=request):
        if isinstance(seen, Encoded) and seen.picture is not None:
            found.append(seen.picture.pixels)
        elif not isinstance(seen, Encoded):
            progress.failed(seen)
    if not found:
        raise DataError(
            f"None of the {len(samples)} pictures can be read. Expected readable pictures. Give other files."
        )
    return np.stack(found)


def files_alone(learn: EncodedSet, tested: EncodedSet) -> float | None:
    """How often size, format and JPEG tables of the file tell the class, without any pixel; ``None`` for no files."""
    from PIL import Image

    def facts(pictures: EncodedSet) -> list[str]:
        found = []
        for item in pictures.items:
            if item.pixels is not None:
                return []
            with Image.open(item.image) as image:
                found.append(f"{image.format} {image.mode} {image.size} {getattr(image, 'quantization', '')}")
        return found

    own, other = facts(learn), facts(tested)
    if not own or not other:
        return None
    votes: dict[str, Tensor] = {}
    for fact, label in zip(own, learn.labels.tolist(), strict=True):
        votes.setdefault(fact, torch.zeros(2))[label] += 1
    default = learn.labels.bincount(minlength=2)
    said = torch.tensor([int(votes.get(fact, default).argmax()) for fact in other])
    return round(float((said == tested.labels).float().mean()), 4)


def sentence(data: Mapping[str, Any]) -> str:
    """The accuracy, with what becomes of it, in one sentence; never the one without the other."""
    first, frozen_row = data["judges"][0], data["judges"][1]
    clean, *others = first["cells"]
    worst = min(others, key=lambda cell: cell["right"]["value"])
    beside = next(c for c in frozen_row["cells"] if c["version"] == worst["version"])
    alone = max(row["cells"][0]["right"]["value"] for row in data["judges"][2:])
    best = f"the best of {len(data['topologies'])} small networks ({data['chosen']})"
    text = (
        f"On {data['n']:,} test pictures {best} is right on {clean['right']['value']:.1%}, and on "
        f"{worst['right']['value']:.1%} once they are {_done(worst['version'])}; it calls {clean['false_alarms']:.1%} "
        f"of photographs made and misses {clean['missed']:.1%} of made ones, then {worst['false_alarms']:.1%} and "
        f"{worst['missed']:.1%}. {frozen_row['judge'].capitalize()} is right on "
        f"{frozen_row['cells'][0]['right']['value']:.1%}, then {beside['right']['value']:.1%}; colours and spectrum "
        f"alone on up to {alone:.1%}. Were one picture in a hundred made, {data['wrong_alarms']:.0%} of the network's "
        "alarms would be wrong."
    )
    if data["background"] is not None:
        text += f" On {data['background']['n']:,} pictures with a mask {background_claim.sentence(data['background'])}."
    return text


def _done(version: str) -> str:
    return f"saved as {version}" if version.startswith("JPEG") else version.replace("blur ", "blurred by ")


def main(arguments: Sequence[str] | None = None) -> Findings:
    """Search, train, test once."""
    options = parser(__doc__, RealOrGeneratedStudy, "data")
    options.add_argument("-e", "--encoder", default="lite0", help="of the frozen judge")
    options.add_argument("--masks", type=Path, help="masks of the object, named like the test pictures")
    options.add_argument("--unseen", action="append", default=[], help="made pictures of another generator")
    given = options.parse_args(arguments)
    study, test = settled(RealOrGeneratedStudy, given.set), given.test and seewhy.load_samples(given.test)
    unseen = {Path(place).name: load_pictures(place) for place in given.unseen}
    encoder, samples = seewhy.encoder(given.encoder), seewhy.load_samples(given.data)
    how = {"test": test, "unseen": unseen, "masks": given.masks, "progress": seewhy.Bars()}
    return ended(study.run(encoder, samples, given.folder, **how), given.out)


if __name__ == "__main__":
    main()
