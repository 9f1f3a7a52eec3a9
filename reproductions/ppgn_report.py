from typing import Any


def report_of(*a: Any) -> Any: ...
