"""What goes wrong is said once for each function, cause and process, to the logger ``batche``."""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("batche")


class Reports:
    """What has been said of one function."""

    def __init__(self, function: str) -> None:
        self.function = function
        self._said: set[str] = set()

    def once(self, cause: str, message: str) -> None:
        """Log ``message`` at WARNING unless this ``cause`` was reported before."""
        if cause not in self._said:
            self._said.add(cause)
            logger.warning("%s: %s", self.function, message)
