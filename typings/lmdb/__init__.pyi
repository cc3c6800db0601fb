# lmdb ships no types and fills its module at import: all of it is Any, as mypy has it too.
from typing import Any

def __getattr__(name: str) -> Any: ...
