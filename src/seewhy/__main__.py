"""``python -m seewhy`` is ``seewhy``."""

import gc
import sys
from contextlib import nullcontext

from .progress import LINE, Step


def run() -> None:
    """Run the command line in a process of its own.

    Torch's 200,000 objects stay in memory, so Python looks for garbage less often, and not when it ends.
    """
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
