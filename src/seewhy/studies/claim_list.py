"""Claims of papers about zero-shot classification, prompts, explanations and captions."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ..classifiers.follow_up import FollowUp
from ..classifiers.unfitted import Described, ZeroShot
from ..descriptions.base import Descriptions, name_only, random_words
from ..errors import DataError, ModelError
from ..learning.contrast import ranks
from ..learning.pooled import encode_pairs, joint_vectors
from ..learning.way import AGREES
from .base_to_new import BEFORE, LEARNT, NEW, BaseToNewStudy
from .claims import ClaimMaterial, Compared, Interval, PaperClaim
from .faithfulness import FaithfulnessStudy
from .study import Findings, Row

ONE = ("a photo of a {}.",)
SEVEN = (
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.",
)  # fmt: skip
"""The seven prompt templates that CLIP's authors recommend (in their notebook)."""


def _by_name(m: ClaimMaterial, templates: tuple[str, ...] = ONE) -> Tensor:
    return m.right(ZeroShot(templates).build(m.encoder, m.classes, m.store))


def _names(m: ClaimMaterial) -> Compared:
    return Compared.of("names", _by_name(m), "chance", torch.full((len(m.labels),), 1 / len(m.classes)).double())


def _four_labels(m: ClaimMaterial) -> Compared:
    least = int(m.seen.labels[~m.seen.held].bincount(minlength=len(m.classes)).min())
    if least < 4:
        raise DataError(f"Every class must have at least four training pictures, and one has {least}.")
    return Compared.of("names", _by_name(m), "a linear classifier on 4 labels of each class", m.probe(4))


def _before_projection(m: ClaimMaterial) -> Compared:
    def joint(pooled: Tensor) -> Tensor:
        return normalize(m.encoder.text.project(pooled), dim=1)

    if m.encoder.text.project(m.tested).equal(m.tested):
        raise ModelError(
            f"This claim needs an encoder with a projection of image features, such as CLIP, got {m.encoder.name}."
        )
    return Compared.of("before", m.probe(of=partial(normalize, dim=1)), "behind", m.probe(of=joint))


def _neighbours(m: ClaimMaterial) -> Compared:
    learn = ~m.seen.held
    near = normalize(m.tested, dim=1) @ normalize(m.seen.pooled[learn], dim=1).T
    owner = m.seen.labels[learn]
    chance = owner.bincount(minlength=len(m.classes)).double()[m.labels] / len(owner)
    return Compared.of("nearest", (owner[near.argmax(1)] == m.labels).double(), "chance", chance)


def _words(m: ClaimMaterial) -> Descriptions:
    assert m.data.descriptions is not None  # checked by the study
    return m.data.descriptions.limited_to(m.classes)


def _by_words(m: ClaimMaterial, texts: Descriptions) -> Tensor:
    return m.right(Described().build(m.encoder, texts, m.store))


def _descriptions(m: ClaimMaterial) -> Compared:
    name = m.right(Described(with_names=False).build(m.encoder, Descriptions(name_only(_words(m))), m.store))
    return Compared.of("names with descriptions", _by_words(m, _words(m)), "names", name)


def _swapped(m: ClaimMaterial) -> Compared:
    """Compare the descriptions with those of the next class."""
    texts, drawn = _words(m), []
    for seed in range(m.study.n_seeds):
        order = random.Random(seed).sample(list(texts.texts), len(texts.texts))
        circle = zip(order, [*order[1:], order[0]], strict=True)
        drawn.append(_by_words(m, Descriptions({to: texts.texts[of] for to, of in circle})))
    return Compared.of("own descriptions", _by_words(m, texts), "another class's", torch.stack(drawn).mean(0))


def _meaning(m: ClaimMaterial) -> Compared:
    texts = _words(m)
    noise = [Descriptions(dict(random_words(texts, seed))) for seed in range(m.study.n_seeds)]
    without = [m.right(Described(with_names=False).build(m.encoder, n, m.store)) for n in noise]
    return Compared.of("descriptions", _by_words(m, texts), "as many random words", torch.stack(without).mean(0))


def _follow_up(m: ClaimMaterial) -> Compared:
    pairs = m.data.follow_up or ()
    made = FollowUp(k=min(10, len(m.classes))).build(m.encoder, m.classes, pairs, m.store)
    return Compared.of("follow-up captions", m.right(made), "one template", _by_name(m))


def _prompts(better: str, worse: str, measure: str, m: ClaimMaterial) -> Compared:
    """Compare two methods of prompt learning by the base-to-new study."""
    names = ("coop", "promptsrc", "ogen")

    def run(folder: Path) -> Findings:
        study = BaseToNewStudy(names, (m.study.shots,), m.study.n_seeds, m.study.held_out, settings=m.study.settings)
        return study.run(m.encoder, m.data.samples, folder, test=m.data.test, store=m.store, progress=m.progress)

    table = next(t for t in m.study_of("prompts", run)["measures"] if t["measure"] == measure)
    return _difference(table, (better, better), (worse, worse))


def _difference(table: Row, better: tuple[str, str], worse: tuple[str, str]) -> Compared:
    """Return the value of the first method minus the value of the second."""
    d = next(d for d in table["differences"] if {d["a"], d["b"]} == {better[0], worse[0]})
    sign = 1 if d["a"] == better[0] else -1
    ours = Interval(sign * d["difference"] + 0.0, *sorted(sign * end + 0.0 for end in d["interval"]))  # no minus zero
    value = {row["method"]: row["value"] for row in table["rows"]}
    told = ", ".join(f"{said} {value[name]:.3f}" for name, said in (better, worse))
    return Compared(ours, f"{told}; difference {ours}", d.get("n", table.get("n")))


def _explained(m: ClaimMaterial) -> Row:
    """Return the metrics of Grad-CAM and the controls on some test pictures, by name."""

    def run(folder: Path) -> Findings:
        study = FaithfulnessStudy.of("grad_cam", "deletion,model_randomisation", seed=m.study.seed)
        held = [s.source for s, out in zip(m.seen.items, m.seen.held.tolist(), strict=True) if out]
        random.Random(m.study.seed).shuffle(held)
        classifier = ZeroShot(ONE).build(m.encoder, m.classes, m.store)
        return study.run(classifier, held[: m.study.n_explained], folder, m.progress)

    return {table["metric"]: table for table in m.study_of("explained", run)["metrics"]}


def _sanity(m: ClaimMaterial) -> Compared:
    row = {r["method"]: r for r in _explained(m)["model_randomisation"]["rows"]}["grad_cam"]
    low, high = row["interval"]
    ours = Interval(0.5 - row["value"], 0.5 - high, 0.5 - low)
    return Compared(ours, f"rank correlation {row['value']:.3f}; 0.5 minus this is {ours}", row["n"])


def _chance(pairs: Int[Tensor, "k 2"], n: int) -> Float[Tensor, " n"]:
    """Return the R@1 that is expected by chance for each picture; a text of several pictures counts as wrong."""
    pairs = pairs.unique(dim=0)
    owners = pairs[:, 1].bincount()
    alone = pairs[owners[pairs[:, 1]] == 1, 0]
    return alone.bincount(minlength=n).double() / int((owners > 0).sum())


def _captions(m: ClaimMaterial) -> Compared:
    assert m.data.captions is not None  # checked by the study
    pairs = encode_pairs(m.encoder, m.data.captions.items, m.store, m.progress)
    chance = _chance(pairs.pairs, len(pairs))
    if not chance.any():
        raise DataError(
            "Captions must distinguish pictures, and each of these belongs to several pictures. Give others with "
            "--captions."
        )
    found = ranks(*joint_vectors(m.encoder, pairs), pairs.owner).image_to_text
    return Compared.of("R@1, picture to text", (found < 1).double(), "chance", chance)


def _instructions(m: ClaimMaterial) -> Compared:
    from ..learning.api import adapt

    given = dict(m.data.instructions or {})
    made = adapt(
        m.data.table, m.encoder, objective="focallens", instructions=given, keep=1.0, held_out=m.study.held_out,
        store=m.store, progress=m.progress,
    )  # fmt: skip
    judged = [j for measure, j in made.judged.items() if measure != AGREES]
    after, before = (
        torch.cat([j.right(getattr(j, when))[:, 0].double() for j in judged]) for when in ("after", "before")
    )
    return Compared.of("under its instruction", after, "without one", before)


PROMPTS: Final = "learning prompts"
EXPLAINS: Final = "explaining"
CLIP, CLIP_TABLE = "Radford et al. 2021, arXiv:2103.00020", "arXiv:2102.05918, Table"
MENON, ROTH = "Menon & Vondrick 2022, arXiv:2210.07183", "result files of arXiv:2306.07282"
COOP, PROMPTSRC = "Zhou et al. 2022, arXiv:2109.01134", "PromptSRC's README, mean of 11 data sets"
GRAD_CAM = "Selvaraju et al. 2017, arXiv:1610.02391"
CLAIMS = (
    PaperClaim("names", "Zero-shot classification is better than chance", CLIP, _names,
        f"ImageNet 76.2 %, ViT-L/14 at 336 pixels ({CLIP_TABLE} 4)"),
    PaperClaim("templates", "Several prompt templates are better than one", CLIP,
        lambda m: Compared.of("seven templates", _by_name(m, SEVEN), "one", _by_name(m)),
        "+2.9 points on ImageNet (arXiv:2102.05918, section 5.2)", 0.029),
    PaperClaim("four_labels", "Zero-shot classification is better than a linear classifier on 4 labels per class", CLIP,
        _four_labels),
    PaperClaim("labels", "A linear classifier on all labels is better than zero-shot classification", CLIP,
        lambda m: Compared.of("a linear classifier on all labels", m.probe(), "names", _by_name(m)),
        f"ImageNet 85.4 % against 76.2 % ({CLIP_TABLE}s 4 and 5)", 0.092),
    PaperClaim("neighbours", "The nearest labelled picture has the right class more often than by chance",
        "Jia et al. 2021, arXiv:2102.05918", _neighbours, f"ImageNet 69.3 %, EfficientNet-B7 ({CLIP_TABLE} 9)"),
    PaperClaim("before_projection", "Features distinguish classes better before the projection head than after it",
        "Xue et al. 2024, arXiv:2403.11391", _before_projection),
    PaperClaim("descriptions", "Class names with descriptions are better than class names alone", MENON, _descriptions,
        f"ImageNet, ViT-B/32: 63.12 % against 62.00 % ({ROTH})", 0.011, "descriptions"),
    PaperClaim("swapped", "Descriptions of the right class are better than descriptions of another class",
        "Roth et al. 2023, arXiv:2306.07282", _swapped,
        f"ImageNet, ViT-B/32: 63.12 % against 59.63 % ({ROTH})", 0.035, "descriptions"),
    PaperClaim("meaning", "Descriptions are better than as many random words", "Roth et al. 2023, arXiv:2306.07282",
        _meaning, f"not so: ImageNet, ViT-B/32: 63.12 % against 63.31 % ({ROTH})", 0.0, "descriptions"),
    PaperClaim("follow_up", "Captions that distinguish the most probable classes are better than one prompt template",
        "Esfandiarpoor & Bach 2023, arXiv:2311.07593", _follow_up,
        "ImageNet, ViT-B/32: 64.19 % against 61.87 % (tables of arXiv:2412.11917)", 0.023, "follow_up"),
    PaperClaim("coop_learns", "A learnt prompt is better than a written one on learnt classes", COOP,
        partial(_prompts, "coop", BEFORE, LEARNT), f"82.69 % against 69.34 % ({PROMPTSRC})", 0.133, work=PROMPTS),
    PaperClaim("coop_forgets", "A learnt prompt is worse than a written one on new classes",
        "Zhou et al. 2022, arXiv:2203.05557",
        partial(_prompts, BEFORE, "coop", NEW), f"74.22 % against 63.22 % ({PROMPTSRC})", 0.11, work=PROMPTS),
    PaperClaim("promptsrc_keeps", "PromptSRC is better than CoOp on new classes",
        "Khattak et al. 2023, arXiv:2307.06948", partial(_prompts, "promptsrc", "coop", NEW),
        f"76.10 % against 63.22 % ({PROMPTSRC})", 0.128, work=PROMPTS),
    PaperClaim("ogen_keeps", "OGEN is better than CoOp on new classes",
        "Zang et al. 2024, arXiv:2401.15914", partial(_prompts, "ogen", "coop", NEW),
        work=PROMPTS),
    PaperClaim("deletion", "Hiding pixels by Grad-CAM lowers the score faster than hiding random pixels", GRAD_CAM,
        lambda m: _difference(_explained(m)["deletion"], ("random", "random map"), ("grad_cam", "Grad-CAM")),
        work=EXPLAINS),
    PaperClaim("sanity", "Grad-CAM's map changes when the weights of the network are randomised",
        "Adebayo et al. 2018, arXiv:1810.03292", _sanity, work=EXPLAINS),
    PaperClaim("captions", "Retrieval of texts by pictures is better than chance", CLIP, _captions,
        f"R@1 on Flickr30k 88.0 % ({CLIP_TABLE} 1)", needs="captions"),
    PaperClaim("instructions", "An encoder answers an instruction better with the instruction than without",
        "Zhang et al. 2025, arXiv:2504.08368", _instructions,
        "+5 points on SugarCrepe, +10 on MMVP-VLM (abstract)", 0.05, "instructions"),
)  # fmt: skip
