"""Explanations made by hand over real photographs: what a card has to survive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from seewhy.explanation.base import Agreement, Explanation, Region, Where, Word, Words
from seewhy.explanation.prediction import Prediction, Ranked
from seewhy.explanation.similar import Like, Likeness
from seewhy.explanation.verdict import Missing, Verdict

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>"\'&{{ 7*7 }}'
UNBROKEN = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2


def photo(name: str, side: int = 224) -> np.ndarray:
    """A photograph that comes with scikit-image, cut to its middle square."""
    pixels = getattr(skimage.data, name)()[..., :3]
    height, width = pixels.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = Image.fromarray(np.ascontiguousarray(pixels[top : top + edge, left : left + edge]))
    return np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))


def make_where(contrast: str | None = None) -> Where:
    rows, columns = np.mgrid[0:7, 0:7]
    heat = np.exp(-((rows - 2.6) ** 2 + (columns - 3.4) ** 2) / 3.2) * 1.4
    heat = heat + 0.4 * np.exp(-((rows - 4.0) ** 2 + (columns - 1.6) ** 2) / 1.2) - 0.12
    steps = np.linspace(0, 1, 21)
    deletion = 0.58 * np.exp(-6 * steps) + 0.02
    insertion = 0.64 * (1 - np.exp(-7 * steps)) + 0.02
    deletion_random = 0.58 * (1 - steps) ** 1.3 + 0.03 * np.sin(9 * steps) ** 2
    insertion_random = 0.60 * steps**2.2 + 0.02
    third = 1 / 7
    return Where(
        method="grad_cam",
        target="tabby cat",
        contrast=contrast,
        heat=heat,
        regions=tuple(
            Region(letter, (c * third, r * third, (c + 1) * third, (r + 1) * third), (c * 40, r * 40, 80, 80), share)
            for letter, r, c, share in (("A", 2, 3, 0.11), ("B", 3, 4, 0.09), ("C", 4, 2, 0.05))
        ),
        verdict=Verdict(
            "believable",
            "Hiding parts of the picture changes the prediction where the heat says it should.",
            "Believable when both figures beat the random map by at least 0.05; partly when one does.",
            "Hiding the hottest parts first leaves 0.15 of the probability (random parts 0.29).",
        ),
        steps=tuple(map(float, steps)),
        deletion_curve=tuple(map(float, deletion)),
        insertion_curve=tuple(map(float, insertion)),
        deletion_random_curve=tuple(map(float, deletion_random)),
        insertion_random_curve=tuple(map(float, insertion_random)),
        deletion=0.15,
        insertion=0.54,
        deletion_random=0.29,
        insertion_random=0.21,
    )


def make_like() -> Like:
    patches = {"tabby cat": photo("chelsea"), "red fox": photo("coffee"), "astronaut": photo("astronaut")}
    plan = {
        "A": ("tabby cat", "tabby cat", "red fox", "tabby cat"),
        "B": ("tabby cat", "astronaut", "tabby cat", "red fox"),
        "C": ("red fox", "astronaut", "red fox", "tabby cat"),
    }
    neighbours = []
    for row, (letter, labels) in enumerate(plan.items()):
        for column, label in enumerate(labels):
            top, left = 24 + 50 * row, 16 + 40 * column
            neighbours.append(
                Likeness(
                    letter=letter,
                    image=f"{label.replace(' ', '_')}_{column + 10 * row:03d}.jpg",
                    label=label,
                    box=(left, top, left + 64, top + 64),
                    query_box=(0, 0, 32, 32),
                    similarity=0.91 - 0.06 * column - 0.04 * row,
                    share=(0.11, 0.09, 0.05)[row],
                    patch=np.ascontiguousarray(patches[label][top : top + 64, left : left + 64]),
                )
            )
    return Like(
        method="epic",
        neighbours=tuple(neighbours),
        share_shown=0.25,
        held_out_precision=0.71,
        chance=0.09,
        verdict=Verdict(
            "partly",
            "50 % of the most similar parts are tabby cat, which leaves the decision uncertain.",
            "Believable when held-out precision beats chance clearly and half of the evidence is shown.",
            "These parts hold 25 % of the evidence for tabby cat.",
        ),
    )


def make_words() -> Words:
    cat, fox = "tabby cat", "red fox"
    return Words(
        method="described",
        words=(
            Word("dark stripes on the forehead", cat, 0.31, 0.19, 0.86),
            Word("long white whiskers", cat, 0.27, 0.19, 0.64),
            Word("green or yellow eyes with slit pupils", cat, 0.24, 0.19, 0.71),
            Word("a tail held upright", cat, 0.11, 0.19, 0.44),
            Word("orange-red fur with a white chest", fox, 0.22, 0.23, 0.81),
            Word("a bushy tail with a white tip", fox, 0.09, 0.23, 0.77),
            Word("lives near people", fox, 0.14, 0.23, 0.38),
        ),
        decision=cat,
        accuracy=0.58,
        accuracy_on="200 held-out pictures",
        would_change="It would be red fox if a bushy tail with a white tip held as well as dark stripes do.",
        verdict=Verdict(
            "do not rely",
            "Descriptions of other classes fit your pictures equally well.",
            "Believable when the sentences beat the class names and random words by at least 5 points.",
        ),
    )


def make_full() -> Explanation:
    ranks = (("tabby cat", 0.583), ("red fox", 0.295), ("lynx", 0.045), ("corgi", 0.0131), ("hare", 0.0041), ("owl", 0))
    return Explanation(
        prediction=Prediction("pictures/chelsea_016.jpg", tuple(Ranked(*r) for r in ranks)),
        view=photo("chelsea"),
        where=make_where(),
        like=make_like(),
        words=make_words(),
        agreement=Agreement(
            0.64,
            {"where and like": 0.71, "like and words": 0.57},
            "The evidence agrees only in part: the descriptions choose tabby cat, but fit other places.",
        ),
        model={
            "classifier": "linear",
            "encoder": "lite0",
            "trained_on": "970 of your pictures, 81 classes",
            "input": "224 px",
        },
    )


def make_bare() -> Explanation:
    """Everything missing, one class only."""
    return replace(
        make_full(),
        prediction=Prediction("only.png", (Ranked("cat", 1.0),)),
        where=Missing("This network has no map to read.", "Use an encoder that keeps one, such as lite0."),
        like=Missing("No training pictures were kept with this classifier.", "Fit it with keep_pictures=True."),
        words=Missing("No text model is installed.", "Run: pip install 'seewhy[open-clip]'"),
        agreement=Agreement(None, {}, "There is one kind of evidence or none, so nothing can agree."),
        model={},
    )


def make_zero() -> Explanation:
    """Nothing speaks for the class, no patch is near, no sentence is written, nothing is measured."""
    where = Where("grad_cam", "tabby cat", None, -np.ones((7, 7)), (), Verdict("not measured", "Too little time.", "-"))
    like = replace(make_like(), neighbours=(), held_out_precision=None, chance=None, share_shown=0.0)
    return replace(make_full(), where=where, like=like, words=replace(make_words(), words=(), accuracy=None))


def make_hostile() -> Explanation:
    """Every text that a user can choose tries to break out; names are long and in many scripts."""
    like, words = make_like(), make_words()
    bad = Verdict("partly", HOSTILE, HOSTILE)
    return replace(
        make_full(),
        prediction=Prediction(
            f"{UNBROKEN}/{HOSTILE}.jpg",
            (Ranked(HOSTILE, 0.5), Ranked(UNBROKEN, 0.3), Ranked("日本語の猫 العربية हिन्दी 🐈", 0.1)),
        ),
        where=replace(make_where(HOSTILE), target=HOSTILE, method=HOSTILE, verdict=bad),
        like=replace(
            like, neighbours=tuple(replace(n, image=HOSTILE, label=UNBROKEN) for n in like.neighbours), verdict=bad
        ),
        words=replace(
            words,
            words=tuple(replace(w, text=HOSTILE if i else UNBROKEN, label=HOSTILE) for i, w in enumerate(words.words)),
            decision=HOSTILE,
            accuracy_on=HOSTILE,
            would_change=UNBROKEN,
            verdict=bad,
        ),
        agreement=Agreement(0.5, {HOSTILE: 0.5, UNBROKEN: 0.2}, HOSTILE),
        model={HOSTILE: UNBROKEN, UNBROKEN: HOSTILE},
    )


def make_cards() -> dict[str, Explanation]:
    return {
        "full": make_full(),
        "contrast": replace(make_full(), where=make_where(contrast="red fox")),
        "bare": make_bare(),
        "zero": make_zero(),
        "hostile": make_hostile(),
    }


def make_report() -> dict[str, Any]:
    """An evaluation of three classes, as ``seewhy evaluate --json`` writes it."""
    labels = ["leek", "asparagus", "garlic"]
    return {
        "model": {"classifier": "linear", "encoder": "lite0"},
        "n": 60,
        "accuracy": 0.85,
        "accuracy_interval": [0.74, 0.92],
        "per_class": [
            {"label": label, "n": 20, "precision": 0.8, "recall": 0.9 - 0.1 * i, "f1": 0.85 - 0.06 * i}
            for i, label in enumerate(labels)
        ],
        "calibration_error": 0.046,
        "reliability": [
            {"confidence": 0.05 + 0.1 * i, "accuracy": 0.09 * i, "n": (0, 0, 1, 2, 3, 5, 7, 9, 12, 21)[i]}
            for i in range(10)
        ],
        "trust": {
            "by": "held-out pictures",
            "level": 0.9,
            "coverage": 0.92,
            "coverage_interval": [0.82, 0.96],
            "set_size": 1.6,
            "n_sure": 31,
            "sure_right": 0.97,
            "mean_probability": 0.84,
            "auroc": 0.86,
            "auroc_probability": 0.81,
            "aurc": 0.04,
            "aurc_probability": 0.06,
            "aurc_best": 0.01,
            "aurc_chance": 0.15,
            "risk_coverage": [{"coverage": 0.1 * i, "risk": 0.015 * i} for i in range(1, 11)],
            "unknown": {"n": 40, "auroc": 0.98, "auroc_probability": 0.9, "found": 0.8, "sure": 0.1, "kept": 0.95},
            "unseen": None,
        },
        "confusions": [{"true": "leek", "predicted": "asparagus", "n": 4, "examples": ["leek_01.jpg", "leek_02.jpg"]}],
        "expected": None,
        "fitted_on": {
            "n_same_bytes": 1,
            "n_near": 0,
            "n_compared": 120,
            "accuracy_without": 0.84,
            "pictures": [{"image": "a.jpg", "fitted_on": "b.jpg", "same_bytes": True, "agreement": None}],
        },
        "confusion_matrix": {"labels": labels, "counts": [[16, 4, 0], [2, 17, 1], [0, 0, 0]]},
        "faithfulness": {
            "n": 50,
            "n_zero": 0,
            "deletion": 0.18,
            "deletion_random": 0.31,
            "insertion": 0.47,
            "insertion_random": 0.24,
            "than_random": {"sentence": "The maps are better than random: +0.36."},
        },
        "like": {"held_out_precision": 0.71, "chance": 0.33},
        "words": {"accuracy": 0.36, "name_only": 0.34, "random_words": 0.32},
        "failures": [{"image": "broken.jpg", "error": "not a picture"}],
    }


@pytest.fixture(scope="session")
def cards() -> dict[str, Explanation]:
    return make_cards()


@pytest.fixture(scope="session")
def full(cards: dict[str, Explanation]) -> Explanation:
    return cards["full"]


@pytest.fixture
def report() -> dict[str, Any]:
    return make_report()
