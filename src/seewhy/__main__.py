"""``python -m seewhy`` is ``seewhy``."""

import gc

from .cli import main


def run() -> None:
    """The command line in a process of its own.

    Torch's 200,000 objects stay: Python looks for garbage among them less often, and not before it ends."""
    gc.set_threshold(20_000, 20, 20)
    try:
        main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    run()
