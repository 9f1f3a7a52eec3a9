"""Run ``seewhy`` as ``python -m seewhy``."""

from .processes import leave_current_folder

leave_current_folder()  # before modules that Python has not loaded are looked for in it

import gc
import io
import sys
from contextlib import nullcontext

from .progress import LINE, Step


def run() -> None:
    """Run the command line, with less frequent garbage collection."""
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
