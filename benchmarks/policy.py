"""What a decision of the policy costs, beside a bare look into a dictionary in the same run.

The answer depends on the action, the scope and the roles alone, and is remembered; the first of its
kind goes through the entries.
"""

import timeit

from engine.policy import Policy
from schemas.policy import DEFAULT

ROUNDS = 200_000
REPEATS = 7
MEMBER = frozenset({"member", "reader"})
ASKED = ("compute:servers:read", "project", MEMBER)


def fastest(work: object, rounds: int) -> float:
    """Return the nanoseconds that one call takes when nothing else is in the way."""
    return min(timeit.repeat(work, number=rounds, repeat=REPEATS)) / rounds * 1e9  # type: ignore[arg-type]


def main() -> None:
    """Print nanoseconds and ratios."""
    policy = Policy(DEFAULT)
    bare = {ASKED: policy.reach(*ASKED)}
    action, scope, roles = ASKED
    floor = fastest(lambda: bare[(action, scope, roles)], ROUNDS)
    known = fastest(lambda: policy.reach(action, scope, roles), ROUNDS)
    first = fastest(lambda: policy._reach(action, scope, roles), ROUNDS // 10)  # noqa: SLF001  # not remembered
    print(f"bare dictionary   {floor:8.0f} ns  1.0")
    print(f"known decision    {known:8.0f} ns  {known / floor:.1f}")
    print(f"first of its kind {first:8.0f} ns  {first / floor:.1f}")


if __name__ == "__main__":
    main()
