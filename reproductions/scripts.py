"""What the scripts of studies share: options, settings as NAME=VALUE, and the end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seewhy.parameters import configured, settings_of
from seewhy.studies.study import Findings


def parser(about: str | None, study: Any, *places: str) -> argparse.ArgumentParser:
    """What is read, the study's settings, where its findings go."""
    names = ", ".join(one.name for one in settings_of(study)) if study else "none"
    made = argparse.ArgumentParser(description=about, epilog=f"Settings: {names}.")
    for place in places:
        made.add_argument(place)
    made.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the study")
    made.add_argument("--test", type=Path, help="labelled pictures to test on; left out, a part of the others")
    made.add_argument("--folder", type=Path, help="where work is kept, so that a stopped run goes on")
    made.add_argument("--out", type=Path, help="findings, as .json or .html")
    return made


def settled(study: Any, given: Sequence[str]) -> Any:
    """The study with what was given with --set.

    >>> from seewhy.studies.transfer import TransferStudy
    >>> settled(TransferStudy, ["shots=1,4"]).shots
    (1, 4)
    """
    return configured(study, dict(one.split("=", 1) for one in given))


def ended(findings: Findings, out: Path | None) -> Findings:
    """Says what was found, and writes it."""
    print(findings.sentence)
    if out is not None:
        print(findings.save(out, force=True))
    return findings
