"""Run ``seewhy`` as ``python -m seewhy``."""

import gc
import sys
from contextlib import nullcontext

from .progress import LINE, Step


def run() -> None:
    """Run the command line, with less frequent garbage collection."""
    gc.set_threshold(20_000, 20, 20)
    try:
        with nullcontext() if {"-q", "--quiet"} & {*sys.argv} else LINE.during(Step("Loading SeeWhy")):
            from .cli import main
        main()
    except KeyboardInterrupt:  # before there was anything to say
        sys.exit(130)
    finally:
        gc.freeze()


if __name__ == "__main__":
    run()
