"""What a run of injected faults came to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Report:
    """``injected`` says what was done to the library, ``found`` what was seen of it, ``lost`` what went wrong."""

    fault: str
    injected: dict[str, int] = field(default_factory=dict)
    found: dict[str, float] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def check(self, holds: object, otherwise: str) -> None:
        """Note ``otherwise`` as lost unless it holds."""
        if not holds:
            self.lost.append(otherwise)
