"""Every attribution on pictures whose evidence is known (see tests/planting.py): hit rate and energy against chance.

``make docs`` keeps the scores of new methods in the package. To make all of them anew, empty the list of scores in
src/seewhy/planted.json first.

python benchmarks/planted.py            # prints the table
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import planting as planted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=10, help="pictures a kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = Table("method", "model", "evidence", "hit rate", "energy", "chance", box=None)
    for s in planted.score_methods(n=options.n, seed=options.seed, settings={"rise": {"n_masks": 1000}}):
        note = "  fails" if s.fails else ""
        table.add_row(s.method, s.architecture, s.kind, f"{s.hit_rate:.2f}{note}", f"{s.energy:.2f}", f"{s.chance:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
