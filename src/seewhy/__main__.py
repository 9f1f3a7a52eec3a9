"""``python -m seewhy`` is ``seewhy``."""

from .cli import main

main()
