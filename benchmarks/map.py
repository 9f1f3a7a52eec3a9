"""The map at 50,000 pictures: time and memory of its computation, and frame times while it is moved and coloured.

    python benchmarks/map.py --n 50000 --d 1280

Features are drawn by chance from 50 clouds. Frames are those of headless Chromium without a graphics card: WebGL then
runs on the processor (SwiftShader), which a graphics card does not make slower.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "app"))

from served_map import filled, serving

from browser import BROWSER, Browser, until
from seewhy.classifiers.linear.recipe import Linear
from seewhy.pictures.samples import load_samples
from seewhy.service.app.map import FEWEST, N_COMPONENTS, column, principal
from tiny import class_folders, tiny_cnn

FRAMES = """
new Promise((done) => {
  const canvas = document.querySelector('#map canvas'), times = [];
  let last = performance.now(), k = 0;
  const press = (key) => canvas.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
  const step = (now) => {
    times.push(now - last); last = now; k += 1;
    if (k > 120) { done(times.slice(1)); return; }
    %s
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})
"""
MOVES = {
    "at rest": "",
    "moving": "press(k % 8 < 4 ? 'ArrowLeft' : 'ArrowRight');",
    "moving, each frame finished": (
        "press(k % 8 < 4 ? 'ArrowLeft' : 'ArrowRight');"
        "canvas.getContext('webgl').readPixels(0, 0, 1, 1, 6408, 5121, new Uint8Array(4));"
    ),
    "zooming": "press(k % 20 < 10 ? '+' : '-');",
    "pointing": (
        "canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: 200 + 4 * k, clientY: 500, pointerId: 1}));"
    ),
}


def peak() -> float:
    """Of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def computed(features: np.ndarray) -> dict[str, float]:
    """Seconds of the components, and how much memory they add."""
    before, found = peak(), {}
    for k in (2, N_COMPONENTS):
        start = time.perf_counter()
        principal(features, k)
        found[f"{k} components, s"] = round(time.perf_counter() - start, 2)
    found["components add, MB"] = round(peak() - before)
    return found


def arranged(app: object) -> dict[str, object]:
    """Seconds until neighbours are beside each other, as the page computes it."""
    from seewhy.service.app.map import Arrangement

    before = peak()
    made = Arrangement(app.state.seewhy.rows)  # type: ignore[attr-defined]
    start = time.perf_counter()
    made.start()
    thread = next(one for one in threading.enumerate() if one.name == "map")
    while made.method == "none":
        time.sleep(0.05)
    first = time.perf_counter() - start
    thread.join()
    assert len(made.xy) >= FEWEST
    return {
        "first points, s": round(first, 1), "map done, s": round(time.perf_counter() - start, 1),
        "method": made.method, "note": made.note, "map adds, MB": round(peak() - before),
    }  # fmt: skip


def frames(address: str, width: int) -> dict[str, object]:
    """Milliseconds from frame to frame: median, 95th percentile, longest."""
    found: dict[str, object] = {}
    with Browser() as tab:
        tab.open(f"{address}/map", width)
        until(tab, "/are beside each other|differ most/.test(document.getElementById('count').textContent)", 300)
        until(tab, "document.querySelectorAll('#legend li').length > 1")
        time.sleep(1)
        for name, act in MOVES.items():
            times = np.array(tab.run(FRAMES % act))
            found[f"{name}, ms"] = [round(float(np.percentile(times, q)), 1) for q in (50, 95, 100)]
        found["canvas"] = tab.run(
            "[document.querySelector('#map canvas').width, document.querySelector('#map canvas').height]"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--d", type=int, default=1280)
    parser.add_argument("--width", type=int, default=1200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEEWHY_CACHE"] = folder
        places = class_folders(Path(folder) / "pictures", n=6)
        picture = Path(folder) / "one.png"
        Image.new("RGB", (64, 64), "teal").save(picture)
        app = filled(Linear(n_crops=1).fit(tiny_cnn(), load_samples(places)), picture, asked.n, asked.d, 50)
        rows = app.state.seewhy.rows
        found: dict[str, object] = {"n": asked.n, "d": asked.d, "features, MB": round(rows.features.nbytes / 1e6)}
        found |= computed(rows.features)
        print(json.dumps(found), file=sys.stderr, flush=True)
        found |= arranged(app)
        print(json.dumps(found), file=sys.stderr, flush=True)
        start = time.perf_counter()
        column(rows, "label", {})
        found["a column, ms"] = round(1e3 * (time.perf_counter() - start), 1)
        if BROWSER is not None:
            with serving(app) as address:
                found |= frames(address, asked.width)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
