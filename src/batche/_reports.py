"""What goes wrong is said once for each function, cause and process, to the logger ``batche``."""

from __future__ import annotations

import logging
from typing import Final

from batche._forks import renew_after_fork

logger: Final = logging.getLogger("batche")


class Reports:
    """What has been said of one function by this process."""

    def __init__(self, function: str) -> None:
        self.function = function
        self._said: dict[str, object] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._said = {}

    def once(self, cause: str, message: str) -> None:
        """Log ``message`` at WARNING unless this ``cause`` was reported before."""
        mark = object()
        if self._said.setdefault(cause, mark) is mark:  # one step, so that of several threads one says it
            logger.warning("%s: %s", self.function, message)
