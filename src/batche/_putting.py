"""What `cache_put` does: a call that stores results which its caller has."""

from __future__ import annotations

from batche._engine import Run
from batche._steps import Put, Steps
from batche._types import Stored


class PutRun(Run):
    """One `cache_put` under way: the items of its plan are the results themselves.

    It claims nothing: what is put takes the place of an older entry, and voids the claims on it, in one step.
    """

    def steps(self) -> Steps:
        """Store every item of the plan as its own result; returns them."""
        self._prepare()
        keys = list(self.plan.first)
        self.results.add(keys, self.plan.items_of(keys))
        entries = self.results.encode(keys)
        stored: Stored | None = yield from self._try(Put(entries, force=True))
        self.settings.wakeups.wake(keys)
        there = {key for key, _ in entries}
        yield from self._outdate([key for key in keys if key not in there], stored)
        self.results.reject_large(stored)
        return self.results.merge()
