"""Every attribution on pictures whose evidence is known (see seewhy.planted): hit rate and energy against chance.

python benchmarks/planted.py            # prints the table
python benchmarks/planted.py --write    # and keeps it in the package, where `seewhy methods` reads it
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from seewhy import planted

SETTINGS = {"rise": {"n_masks": 1000}}
"""Fewer masks than the default, to be done in minutes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=10, help="pictures a kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the scores in the package")
    options = parser.parse_args()
    scores = planted.score_methods(n=options.n, seed=options.seed, settings=SETTINGS)
    table = Table("method", "model", "evidence", "hit rate", "energy", "chance", box=None)
    for s in scores:
        note = "  fails" if s.fails else ""
        table.add_row(s.method, s.architecture, s.kind, f"{s.hit_rate:.2f}{note}", f"{s.energy:.2f}", f"{s.chance:.2f}")
    Console(width=100).print(table)
    if options.write:
        kept = {
            "command": f"python benchmarks/planted.py --write --n {options.n} --seed {options.seed}",
            "settings": SETTINGS,
            "scores": [asdict(s) for s in scores],
        }
        lines = json.dumps(kept, indent=1)
        Path(planted.__file__).with_suffix(".json").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
