"""Remembers which one-time codes were taken, so that none is taken twice.

By one edge alone and in memory. Invariant: what is kept is bounded.
"""

from collections import OrderedDict

KEPT_MAX = 16_384


class UsedCodes:
    """The last step of each secret for which a code was taken."""

    def __init__(self, *, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._steps: OrderedDict[str, int] = OrderedDict()

    def take(self, credential_id: str, step: int) -> bool:
        """Return whether a code of this step may be taken, and take it."""
        if step <= self._steps.get(credential_id, -1):
            return False
        self._steps[credential_id] = step
        self._steps.move_to_end(credential_id)
        while len(self._steps) > self._kept_max:
            self._steps.popitem(last=False)
        return True

    def __len__(self) -> int:
        return len(self._steps)
