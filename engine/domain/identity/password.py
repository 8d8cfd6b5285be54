r"""What a password must be, as an operator has set it.

The expression is an operator's, and is matched with RE2: in time linear in the password and in
bounded memory, whatever it says. RE2 knows no lookahead, but rules of the kind "a digit, a letter,
seven characters" are written with it everywhere: ``^(?=.*\d)(?=.*[a-z]).{7,}$``. So what looks
ahead from the beginning is taken apart into expressions that must all match there.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import re2
from msgspec import Struct

from schemas.errors import InvalidInput
from schemas.identity import PasswordPolicy

MEMORY_MAX = 1 << 20  # of one compiled expression, in bytes
_AHEAD = ("(?=", "(?!")


class Part(Struct, frozen=True):
    """An expression, and whether it must be found or must not."""

    wanted: bool
    expression: Any


def need_fit(policy: PasswordPolicy, password: str) -> None:
    """Let a password pass that is as the policy wants it.

    Raises:
        InvalidInput: it is too short or not of the pattern; the password is not quoted.
    """
    if len(password) < policy.length_min:
        raise InvalidInput(f"a password has at least {policy.length_min} characters")
    fits = all(
        (part.expression.search(password) is not None) == part.wanted
        for part in parts(policy.pattern)
    )
    if not fits:
        hint = policy.pattern_hint or "it does not match the pattern that an operator has set"
        raise InvalidInput(f"the password is not as it must be: {hint}")


@lru_cache(maxsize=8)
def parts(pattern: str) -> tuple[Part, ...]:
    """Return what a pattern asks for; nothing, if it is empty.

    Raises:
        InvalidInput: it is malformed, or more than RE2 does.
    """
    options = re2.Options()
    options.max_mem = MEMORY_MAX
    options.log_errors = False
    try:
        return tuple(
            Part(wanted, re2.compile(text, options)) for wanted, text in _taken_apart(pattern)
        )
    except re2.error as error:
        (told,) = error.args
        reason = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        raise _unusable(reason) from error


def _unusable(reason: str) -> InvalidInput:
    return InvalidInput(
        f"the pattern cannot be used: {reason} (its syntax is that of RE2, with lookaheads right "
        "after ^)"
    )


def _taken_apart(pattern: str) -> Iterator[tuple[bool, str]]:
    """Yield the expressions that a pattern consists of, and whether each is wanted."""
    if not pattern.startswith(tuple(f"^{ahead}" for ahead in _AHEAD)):
        if pattern:
            yield True, pattern
        return
    if any(depth == 0 and text == "|" for _, text, depth in _marks(pattern)):
        raise _unusable("a pattern with lookaheads has its alternatives in a group")
    rest = pattern[1:]
    while rest.startswith(_AHEAD):
        end = next((at for at, text, depth in _marks(rest) if (text, depth) == (")", 0)), 0)
        if not end:
            raise _unusable("missing )")
        yield rest.startswith("(?="), f"^(?:{rest[3:end]})"
        rest = rest[end + 1 :]
    if rest:
        yield True, f"^{rest}"


def _marks(pattern: str) -> Iterator[tuple[int, str, int]]:
    """Yield where groups begin and end and alternatives part, and how deep in groups that is."""
    at, depth, in_class = 0, 0, False
    while at < len(pattern):
        text = pattern[at]
        if text == "\\":
            at += 1
        elif in_class:
            in_class = text != "]"
        elif text == "[":
            in_class = True
            at += pattern.startswith("^", at + 1)
            at += pattern.startswith("]", at + 1)  # there it is one of the class
        elif text in "()|":
            depth += (text == "(") - (text == ")")
            yield at, text, depth
        at += 1
