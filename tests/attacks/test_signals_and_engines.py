"""A signal kills nothing, whichever thread made or dropped an engine: OpenVINO's ``Core`` owns a signal stack."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
EXCHANGE = """
import gc, signal, threading
import torch
from seewhy.encoders.engines import make_engine

def made(seed):
    torch.manual_seed(seed)
    engine = make_engine("openvino:f32", lambda: torch.nn.Conv2d(3, 4, 3), (16, 16), f"signals{seed}")
    engine(torch.zeros(2, 3, 16, 16))
    return engine

heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
engines = [made(0)]

def exchange(seed):
    engines.append(made(seed))
    del engines[0]
    gc.collect()

for seed in range(1, 4):
    thread = threading.Thread(target=exchange, args=(seed,))
    thread.start()
    thread.join()
    signal.raise_signal(signal.SIGUSR1)
print(len(heard))
"""


@pytest.mark.skipif(find_spec("openvino") is None, reason="the extra 'openvino' is not installed")
def test_a_signal_after_a_thread_exchanged_an_engine() -> None:
    done = subprocess.run([sys.executable, "-c", EXCHANGE], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr[-2000:]


def test_one_core_for_the_whole_process() -> None:
    makers = [file.name for file in SOURCE.rglob("*.py") for _ in re.findall(r"\bCore\(\)", file.read_text())]
    assert set(makers) == {"convert.py"}  # which makes another one for a moment before a fork
