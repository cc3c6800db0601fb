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
    print(f"{'model':<78} {'states':>9} {'transitions':>11} {'seconds':>7}  verdict")
    reports: list[Report] = []
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for report in pool.imap_unordered(explore_one, range(len(ALL))):
            print(
                f"{report.name:<78} {report.states:>9,} {report.transitions:>11,} {report.seconds:>7.1f}  {report.verdict}",
                flush=True,
            )
            reports.append(report)
    for report in reports:
        if report.found is not None:
            print(f"\n{report.name}: {report.found}")
    states, transitions = sum(report.states for report in reports), sum(report.transitions for report in reports)
    print(f"{'all':<78} {states:>9,} {transitions:>11,} {time.perf_counter() - begun:>7.1f}")
    return int(any(report.found for report in reports))


if __name__ == "__main__":
    sys.exit(main())
