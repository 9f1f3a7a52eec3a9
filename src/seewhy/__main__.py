"""``python -m seewhy`` is ``seewhy``."""

from .cli import main
from .cli.collecting import little_collecting


def run() -> None:
    """The command line in a process of its own."""
    with little_collecting():
        main()


if __name__ == "__main__":
    run()
