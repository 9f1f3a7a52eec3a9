"""How often ``seewhy study transfer`` calls a difference real where there is none, and where there is one.

Two encoders on the same test pictures, some harder than others for both; twelve measures, six of them over five draws
that come out better or worse by chance. 400 such tables each.
"""

from __future__ import annotations

import argparse

import torch

from seewhy.studies.bootstrap import holm, mean_of


def differences(n: int, apart: float, generator: torch.Generator) -> list[torch.Tensor]:
    """Of twelve measures, the second encoder's less the first's, of each draw and picture."""
    hard = torch.randn(n, generator=generator)
    own = 0.7 * torch.randn(2, n, generator=generator)
    found = []
    for k in range(12):
        draws = 5 if k < 6 else 1
        chance = (0.3 if k < 6 else 0.0) * torch.randn(2, draws, 1, generator=generator)
        x = 1 - hard + own[:, None] + 0.7 * torch.randn(2, draws, n, generator=generator) + chance
        x[1] += apart
        right = (x > 0).double()
        found.append(right[1] - right[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tables", type=int, default=400)
    tables = parser.parse_args().tables
    print("pictures  better by  tables with a real difference  differences that are real")
    for n in (60, 300):
        for apart in (0.0, 0.3):
            generator = torch.Generator().manual_seed(n)
            any_real = real = total = 0
            for _ in range(tables):
                p = holm([mean_of(one, torch.arange(n)).p for one in differences(n, apart, generator)])
                any_real += min(p) < 0.05
                real += sum(v < 0.05 for v in p)
                total += len(p)
            print(f"{n:8}  {apart:9}  {any_real / tables:29.3f}  {real / total:25.3f}")


if __name__ == "__main__":
    main()
