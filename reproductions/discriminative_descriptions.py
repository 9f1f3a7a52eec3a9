"""Discriminative descriptions: does choosing them on labelled pictures help, and by what they say?

    python reproductions/discriminative_descriptions.py --out discriminative_descriptions.json      # seconds
    python reproductions/discriminative_descriptions.py --pictures GROCERY/test --descriptions GROCERY/classes.csv
    python reproductions/discriminative_descriptions.py --pictures P --descriptions D \\
        --encoder open_clip:ViT-B-32/openai

Ma et al. 2024 (arXiv 2412.11917). Options as in classification_by_description.py. A few minutes on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from claims import Claim, Interval, Report, judged, rule_of, verdict
from classification_by_description import DIFFERENCES, arguments, arm, less, numbers, report, said, studied

ABOVE = 0.01
"""What a maximum at a finite weight must be above the names alone to be called one."""


PAPER = 0.023
"""The mean lead over random characters on the seven data sets of the authors' table, ViT-B/32."""


def claims(where: str, data: dict[str, Any]) -> list[Claim]:
    if not any(a["group"] == "chosen" for a in data["arms"]):
        return []
    mine, noise = arm(data, "descriptions", "chosen"), arm(data, "own noise", "chosen")
    free, few = arm(data, "descriptions", "without names"), arm(data, "nearest class mean", "chosen")
    gap = noise["less_descriptions"]
    ahead = Interval(-gap["value"], -gap["interval"][1], -gap["interval"][0])
    gain, free_gain = mine["less_names"], free["less_names"]
    curves = data["curves"]["arms"]
    real, plain = curves["descriptions, without names"], curves["own noise, without names"]
    rises = [max(c) - c[-1] for c in (real, plain)]
    return [
        Claim(
            "Chosen descriptions are right more often than chosen random characters",
            f"the difference of the same pictures; {rule_of(PAPER)}",
            f"{said(mine)} against {said(noise)}; noise less descriptions {less(gap)}",
            judged(ahead, PAPER),
            data["n"],
            where,
            interval=ahead,
        ),
        Claim(
            "Chosen descriptions are right more often than the name, and gain more than each class's own do",
            "above the name in pairs, and the gain larger than that of the own descriptions; partly: the first",
            f"{said(mine)}, less the names {less(gain)}; own {said(free)}, less the names {less(free_gain)}",
            verdict(gain["real"] and gain["value"] > max(0.0, free_gain["value"]), gain["real"] and gain["value"] > 0),
            data["n"],
            where,
        ),
        Claim(
            "Meaningful descriptions have their best at a finite weight of the name, noise has none",
            f"their best is more than {ABOVE:.0%} above the largest weight, that of noise is not; partly: the first",
            f"best less largest weight: descriptions {rises[0]:+.3f}, noise {rises[1]:+.3f}",
            verdict(rises[0] > ABOVE >= rises[1], rises[0] > ABOVE),
            data["n"],
            where,
        ),
        Claim(
            "(Not in the paper) Choosing descriptions does as well as the nearest mean of the same labelled pictures",
            "not behind it in pairs",
            f"{said(mine)} against {said(few)}; class in question on {said(arm(data, 'class in question', 'chosen'))}",
            verdict(few["less_descriptions"]["value"] <= 0 or not few["less_descriptions"]["real"]),
            data["n"],
            where,
        ),
    ]


def main(given: Sequence[str] | None = None) -> Report:
    args = arguments(__doc__, "discriminative_descriptions", given)
    begun = time.perf_counter()
    found = studied(args)
    return report(
        "discriminative_descriptions",
        "Does choosing descriptions on pictures help, and by what they say?",
        "Ma et al. 2024, arXiv:2412.11917",
        given,
        args,
        begun,
        claims=tuple(c for where, data in found.items() for c in claims(where, data)),
        differences=(
            *DIFFERENCES[:2],
            "The weight of the name is chosen inside the half that chooses descriptions, never on what is measured. "
            "The paper's choice, the best on those, is the fourth of each arm's numbers.",
        ),
        numbers=numbers(found),
    )


if __name__ == "__main__":
    main()
