"""Who guesses too often is kept out for a while, and nobody else."""

from api.lockouts import Lockouts
from schemas.identity import PasswordPolicy, User, UserOptions

POLICY = PasswordPolicy(lockout_attempts=3, lockout_s=60)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def user(name: str, **options: bool) -> User:
    return User(user_id=name, name=name, domain_id="default", options=UserOptions(**options))


def test_a_user_is_kept_out_after_so_many_failures_and_let_in_again():
    clock = Clock()
    lockouts = Lockouts(clock=clock)
    ann = user("ann")

    assert [lockouts.failed(POLICY, ann) for _ in range(3)] == [False, False, True]
    assert lockouts.holds(POLICY, ann)
    assert not lockouts.holds(POLICY, user("bob"))

    clock.now += 59
    assert lockouts.holds(POLICY, ann)
    assert not lockouts.failed(POLICY, ann), "it is not made longer"
    clock.now += 1
    assert not lockouts.holds(POLICY, ann)
    assert not lockouts.failed(POLICY, ann), "counting begins anew"
    assert lockouts.begun == 1


def test_a_success_forgives():
    lockouts = Lockouts()
    ann = user("ann")
    for _ in range(2):
        lockouts.failed(POLICY, ann)

    lockouts.succeeded(ann)
    lockouts.failed(POLICY, ann)

    assert not lockouts.holds(POLICY, ann)


def test_nobody_is_kept_out_without_a_rule_or_when_excepted():
    lockouts = Lockouts()
    service = user("service", ignore_lockout_failure_attempts=True)
    for _ in range(10):
        lockouts.failed(POLICY, service)
        lockouts.failed(PasswordPolicy(), user("ann"))

    assert not lockouts.holds(POLICY, service)
    assert len(lockouts) == 0


def test_what_is_kept_is_bounded():
    lockouts = Lockouts(kept_max=100)
    for number in range(1000):
        lockouts.failed(POLICY, user(str(number)))

    assert len(lockouts) == 100
