"""Name and address filters that are regular expressions, matched in bounded time.

Whoever lists chooses them, and they are matched on a loop that serves everybody. So only those are
taken that cannot run away: no group is repeated, nothing is referred back to, and few parts are
unbounded.
"""

import re
import sqlite3
import time
from functools import lru_cache

from projections.answers import BadPattern

PATTERN_CHARACTERS_MAX = 255
UNBOUNDED_MAX = 2
MATCHING_S_MAX = 0.05
_CACHE = 256

_TOKEN = re.compile(
    r"""(?P<escape>\\.)|(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<group>\(\?|\))|
    (?P<repeat>[*+?]|\{[0-9]*,?[0-9]*\})|(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)


@lru_cache(maxsize=_CACHE)
def compiled(pattern: str) -> re.Pattern[str]:
    """Return the expression, ready to search with.

    Raises:
        BadPattern: it is malformed, or could take long.
    """
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise BadPattern(f"the expression is longer than {PATTERN_CHARACTERS_MAX} characters")
    _bounded(pattern)
    try:
        return re.compile(pattern)
    except (re.error, OverflowError) as error:
        raise BadPattern(f"the expression is malformed: {error}") from error


def literal(pattern: str) -> str | None:
    """Return the text that an expression without special characters looks for, else None."""
    return pattern if not re.search(r"[\\^$.|?*+()\[\]{}]", pattern) else None


def _bounded(pattern: str) -> None:
    unbounded = 0
    before = ""
    for token in _TOKEN.finditer(pattern):
        kind, text = token.lastgroup or "", token.group()
        if kind == "group" and text == "(?":
            raise BadPattern("(?…) is not supported")
        if kind == "escape" and text[1].isdigit():
            raise BadPattern("references to groups are not supported")
        if kind == "repeat":
            if before == "group":
                raise BadPattern("a group cannot be repeated")
            unbounded += text != "?"
        before = kind
    if unbounded > UNBOUNDED_MAX:
        raise BadPattern(f"no more than {UNBOUNDED_MAX} parts can be repeated")


class Matcher:
    """The SQL functions ``matches`` and ``matches_any`` of a connection, with their time limit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._left_s = MATCHING_S_MAX
        db.create_function("matches", 2, self._matches)
        db.create_function("matches_any", 2, self._matches_any)

    def start(self) -> None:
        """Begin a query: the limit is for it as a whole."""
        self._left_s = MATCHING_S_MAX

    @property
    def spent(self) -> bool:
        """Whether the query was ended by the limit."""
        return self._left_s <= 0

    def _matches(self, pattern: str, text: str) -> bool:
        return self._search(pattern, [text])

    def _matches_any(self, pattern: str, words: str) -> bool:
        return self._search(pattern, words.split())

    def _search(self, pattern: str, texts: list[str]) -> bool:
        if self.spent:
            raise TimeoutError
        start = time.perf_counter()
        search = compiled(pattern).search
        found = any(search(text) for text in texts)
        self._left_s -= time.perf_counter() - start
        return found
