"""Where and with what a measurement was made."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    return {
        "kind": kind(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "load": [round(number, 2) for number in os.getloadavg()],
    }


def kind() -> str:
    """A short name for machines that are alike, for the name of a file."""
    return f"{platform.system()}-{platform.machine()}-{os.cpu_count()}cpu".lower()


def python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
