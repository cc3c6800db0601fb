"""Explore all models in full, on every core, and print what came of each: ``python -m tests.model``."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time

from tests.model._checker import Report
from tests.model.suite import ALL, explore_one


def main() -> int:
    begun = time.perf_counter()
    print(f"{'model':<104} {'states':>9} {'transitions':>11} {'seconds':>7}  verdict")
    reports: list[tuple[Report, bool]] = []
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for report, is_right in pool.imap_unordered(explore_one, range(len(ALL))):
            numbers = f"{report.states:>9,} {report.transitions:>11,} {report.seconds:>7.1f}"
            verdict = report.verdict if report.found is None or not is_right else f"flaw found: {report.verdict}"
            print(f"{report.name:<104} {numbers}  {verdict}", flush=True)
            reports.append((report, is_right))
    for report, is_right in reports:
        if not is_right:
            print(f"\n{report.name}: {report.found or 'the flaw was not found'}")
    states, transitions = (sum(getattr(report, what) for report, _ in reports) for what in ("states", "transitions"))
    print(f"{'all':<104} {states:>9,} {transitions:>11,} {time.perf_counter() - begun:>7.1f}")
    return int(not all(is_right for _, is_right in reports))


if __name__ == "__main__":
    sys.exit(main())
