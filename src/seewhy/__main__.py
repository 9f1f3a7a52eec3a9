"""Run ``seewhy`` as ``python -m seewhy``."""

import gc
import io
import sys
from contextlib import nullcontext

from .processes import leave_current_folder
from .progress import LINE, Step


def run() -> None:
    """Run the command line, with less frequent garbage collection."""
    leave_current_folder()
    gc.set_threshold(20_000, 20, 20)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, io.StringIO())
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
