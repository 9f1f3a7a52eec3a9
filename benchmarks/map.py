"""The map at 50,000 pictures: frame times while it is moved, and with `--map` time and memory of its computation.

    python benchmarks/map.py                  # frames, in a minute
    python benchmarks/map.py --map --d 1280   # the computation, too

Features are drawn by chance from 50 clouds. Frames are those of headless Chromium without a graphics card: WebGL then
runs on the processor (SwiftShader). Other programs make frames late, so each row also has the processor time per frame
of all processes of the browser, which they do not change much. Three ways are compared: nothing drawn (what the browser
needs by itself), all points in each frame, and the page as it is.
"""

from __future__ import annotations

import argparse
import contextlib
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
    "moving": "press(k % 8 < 4 ? 'ArrowLeft' : 'ArrowRight');",
    "zooming": "press(k % 20 < 10 ? '+' : '-');",
    "pointing": (
        "canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: 200 + 4 * k, clientY: 500, pointerId: 1}));"
    ),
}
WAYS = {
    "nothing": "Points.prototype.pace = () => {}; WebGLRenderingContext.prototype.drawArrays = () => {};",
    "all points": "Points.prototype.pace = () => {};",
    "as it is": "",
}
COUNT = """
const render = Points.prototype.render; window.drawn = [];
Points.prototype.render = function (most) { window.drawn.push(most); render.call(this, most); };
"""


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


def processor(root: int) -> float:
    """Seconds that a process and all below it have used the processor."""
    found: dict[int, tuple[int, float]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = place.read_text().rpartition(")")[2].split()
            found[int(place.parent.name)] = (
                int(words[1]),
                (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK"),
            )

    def below(k: int) -> bool:
        return k == root or (k in found and below(found[k][0]))

    return sum(used for k, (_, used) in found.items() if below(k))


def frames(address: str, width: int, density: float) -> dict[str, object]:
    """Milliseconds from frame to frame (median, 95th percentile, longest), of the processor, and points drawn."""
    found: dict[str, object] = {}
    for way, change in WAYS.items():
        with Browser() as tab:
            tab.open(f"{address}/map", width)
            tab.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=density, mobile=False
            )
            until(tab, "/are beside each other|differ most/.test(document.getElementById('count').textContent)", 300)
            until(tab, "document.querySelectorAll('#legend li').length > 1")
            tab.run(f"(() => {{ {change} {COUNT} }})()")
            time.sleep(1)
            for name, act in MOVES.items():
                if name == "pointing" and way != "as it is":
                    continue  # draws nothing
                tab.run("window.drawn = []")
                start = processor(tab.process.pid)
                times = np.array(tab.run(FRAMES % act))
                used = 1e3 * (processor(tab.process.pid) - start) / len(times)
                time.sleep(0.5)
                drawn = tab.run("window.drawn")
                found[f"{way}, {name}"] = {
                    "ms": [round(float(np.percentile(times, q)), 1) for q in (50, 95, 100)],
                    "processor, ms": round(used, 1), "points": int(np.median(drawn)) if drawn else 0,
                    "points at the end": drawn[-1] if drawn else 0,
                }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--d", type=int, default=8)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument(
        "--density", type=float, nargs="*", default=[1, 2], help="pixels of the screen per pixel of CSS"
    )
    parser.add_argument("--map", action="store_true", help="time the computation; needs the extra map")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEEWHY_CACHE"] = folder
        places = class_folders(Path(folder) / "pictures", n=6)
        picture = Path(folder) / "one.png"
        Image.new("RGB", (64, 64), "teal").save(picture)
        app = filled(Linear(n_crops=1).fit(tiny_cnn(), load_samples(places)), picture, asked.n, asked.d, 50)
        rows = app.state.seewhy.rows
        found: dict[str, object] = {"n": asked.n, "d": asked.d, "features, MB": round(rows.features.nbytes / 1e6)}
        if asked.map:
            for part in (lambda: computed(rows.features), lambda: arranged(app)):
                found |= part()
                print(json.dumps(found), file=sys.stderr, flush=True)
        else:
            sys.modules["openTSNE"] = None  # type: ignore[assignment]  # the first map stays
        start = time.perf_counter()
        column(rows, "label", {})
        found["a column, ms"] = round(1e3 * (time.perf_counter() - start), 1)
        if BROWSER is not None:
            with serving(app) as address:
                for density in asked.density:
                    found[f"density {density:g}"] = frames(address, asked.width, density)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
