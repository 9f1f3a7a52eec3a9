"""A million vectors searched: this library's index beside faiss' flat and HNSW indexes, in one run.

    python benchmarks/search_speed.py --pictures PHOTOS --n 1000000 --threads 2 --out search.json    # 6 minutes, quiet
    python benchmarks/search_speed.py --pictures PHOTOS --n 50000                                    # a minute

The vectors are real: mean features of random windows of the photographs' feature maps (embedded encoder), turned by
PCA to 512 numbers and scaled to unit length. The queries are windows of photographs none of whose windows is in the
index. Recall is against exact products. Times are of single queries, one after the other, in the order given; what
else ran on the machine is in ``load``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.encoders.find import encoder as find
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.pictures.sources import list_pictures
from seewhy.retrieval import Index
from seewhy.retrieval.vectors import BLOCK, exact_top
from seewhy.storage.features import FeatureStore

WIDTH, K = 512, 10


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    import faiss

    faiss.omp_set_num_threads(args.threads)
    folder = Path(tempfile.mkdtemp(dir=args.work))
    try:
        run(args, faiss, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(args: argparse.Namespace, faiss: Any, folder: Path) -> None:
    matrix, queries, about = vectors(args, folder)
    every = np.arange(len(matrix))
    worst = torch.stack([exact_top(matrix, query, K, every).scores[-1] for query in queries])
    head = {"n": args.n, "width": WIDTH, "queries": len(queries), "threads": args.threads, "load": os.getloadavg()[0]}
    found: dict[str, Any] = {**head, **about, "engines": {}}
    engines: dict[str, Callable[[], dict[str, Any]]] = {
        "seewhy": lambda: ours(args, folder, matrix, queries, worst),
        "faiss flat": lambda: flat(faiss, matrix, queries, worst),
        "faiss HNSW16": lambda: hnsw(faiss, matrix, queries, worst),
    }
    for name, measure in engines.items():
        if args.only and name not in args.only.split(","):
            continue
        found["engines"][name] = measure()
        print(name, json.dumps(found["engines"][name]), flush=True)
        if args.out:
            args.out.write_text(json.dumps(found, indent=1))


def arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--pictures", type=Path, nargs="+", required=True, help="folders of photographs; 500 or more")
    made.add_argument("--n", type=int, default=50_000, help="vectors")
    made.add_argument("--queries", type=int, default=500)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--only", default="", help="some of: seewhy, faiss flat, faiss HNSW16")
    made.add_argument("--work", type=Path, help="where 5 GB may lie meanwhile; left out, the system's place")
    made.add_argument("--out", type=Path)
    return made.parse_args()


def vectors(args: argparse.Namespace, folder: Path) -> tuple[np.ndarray, Tensor, dict[str, Any]]:
    """The vectors, on disk; the queries; and what they are like."""
    encoder = find("lite0")
    names = list(list_pictures(args.pictures))
    seen = encode_stream(encoder, names, store=FeatureStore(), request=EncodeRequest(features=lambda _index: True))
    maps = [s.features.half() for s in seen if isinstance(s, Encoded) and s.features is not None]
    order = torch.randperm(len(maps), generator=torch.Generator().manual_seed(args.seed)).tolist()
    asked, known = order[: len(maps) // 10], order[len(maps) // 10 :]
    rng = np.random.default_rng(args.seed)
    old = summed([maps[i] for i in known])
    sample = windows(old, 20_000, rng)
    mean = sample.mean(0)
    _, spread, axes = torch.pca_lowrank(sample - mean, WIDTH, center=False, niter=2)
    matrix = np.memmap(folder / "vectors.f32", np.float32, "w+", shape=(args.n, WIDTH))
    for start in range(0, args.n, BLOCK):
        part = windows(old, min(BLOCK, args.n - start), rng)
        matrix[start : start + len(part)] = normalize((part - mean) @ axes, dim=1).numpy()
    queries = normalize((windows(summed([maps[i] for i in asked]), args.queries, rng) - mean) @ axes, dim=1)
    part = (spread**2).cumsum(0) / (spread**2).sum()
    return matrix, queries, {"pictures": len(maps), "directions_of_90_percent": int((part < 0.9).sum()) + 1}


def summed(maps: list[Tensor]) -> Tensor:
    """Sums over all cells above and left of each corner, ``(p, h + 1, w + 1, c)``."""
    side = maps[0].shape[1]
    sums = torch.zeros(len(maps), side + 1, side + 1, maps[0].shape[0])
    sums[:, 1:, 1:] = torch.stack(maps).float().permute(0, 2, 3, 1).cumsum(1).cumsum(2)
    return sums


def windows(sums: Tensor, n: int, rng: np.random.Generator) -> Tensor:
    """Mean features of random windows, two cells or more a side."""
    side = sums.shape[1] - 1
    which, high, wide = rng.integers(len(sums), size=n), rng.integers(2, side + 1, n), rng.integers(2, side + 1, n)
    top, left = rng.integers(side - high + 1), rng.integers(side - wide + 1)
    below, right = top + high, left + wide
    total = sums[which, below, right] - sums[which, top, right] - sums[which, below, left] + sums[which, top, left]
    return total / torch.from_numpy(high * wide)[:, None]


def resident() -> float:
    """Memory of this process that is its own, in GiB; pages of mapped files do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**20


def timed(
    ask: Callable[[Tensor], Any], matrix: np.ndarray, queries: Tensor, worst: Tensor, before: float, build: float
) -> dict[str, Any]:
    """Recall, latency, memory. A row is found by its product: one of several equal rows is as good as another."""
    for query in queries[:5]:
        ask(query)
    seconds, hits = [], []
    for query, least in zip(queries, worst.tolist(), strict=True):
        begun = time.perf_counter()
        rows = ask(query)
        seconds.append(time.perf_counter() - begun)
        products = matrix[sorted({int(r) for r in rows})] @ query.numpy()
        hits.append(float((products >= least - 1e-5).sum()) / K)
    return {
        "build_s": round(build, 1),
        "memory_gib": round(resident() - before, 2),
        "recall@10": round(float(np.mean(hits)), 4),
        "recall_5th_percentile": round(float(np.percentile(hits, 5)), 2),
        "p50_ms": round(1000 * float(np.percentile(seconds, 50)), 2),
        "p99_ms": round(1000 * float(np.percentile(seconds, 99)), 2),
        "load": os.getloadavg()[0],
    }


def ours(args: argparse.Namespace, folder: Path, matrix: np.ndarray, queries: Tensor, worst: Tensor) -> dict[str, Any]:
    """Added as a user would."""
    before, begun = resident(), time.perf_counter()
    index = Index.create(folder / "index", width=WIDTH)
    step = 50_000
    for start in range(0, args.n, step):
        part = torch.from_numpy(np.array(matrix[start : start + step]))
        index.add_vectors(part, [str(i) for i in range(start, start + len(part))])
    build = time.perf_counter() - begun
    exact = timed(lambda q: index.nearest(q, K)[0], matrix, queries[:50], worst[:50], before, build)
    size = sum(p.stat().st_size for p in index.folder.iterdir()) / 2**30
    return {**exact, "disk_gib": round(size, 2)}


def flat(faiss: Any, matrix: np.ndarray, queries: Tensor, worst: Tensor) -> dict[str, Any]:
    before, begun = resident(), time.perf_counter()
    index = faiss.IndexFlatIP(WIDTH)
    for start in range(0, len(matrix), BLOCK):
        index.add(np.ascontiguousarray(matrix[start : start + BLOCK]))
    build = time.perf_counter() - begun
    return timed(lambda q: index.search(q[None].numpy(), K)[1][0], matrix, queries[:100], worst[:100], before, build)


def hnsw(faiss: Any, matrix: np.ndarray, queries: Tensor, worst: Tensor) -> dict[str, Any]:
    """M = 16, efConstruction = 100; ef raised until recall is 0.95."""
    before, begun = resident(), time.perf_counter()
    index = faiss.IndexHNSWFlat(WIDTH, 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 100
    for start in range(0, len(matrix), BLOCK):
        index.add(np.ascontiguousarray(matrix[start : start + BLOCK]))
    build = time.perf_counter() - begun
    for ef in (16, 32, 64, 128, 256, 512):
        index.hnsw.efSearch = ef
        found = timed(lambda q: index.search(q[None].numpy(), K)[1][0], matrix, queries, worst, before, build)
        if found["recall@10"] >= 0.95:
            break
    return {**found, "ef": ef}


if __name__ == "__main__":
    main()
