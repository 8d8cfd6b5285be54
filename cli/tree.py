"""Trees as plain text: the same on a terminal and in a pipe."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cli.output import cell


class Node(NamedTuple):
    """A line, and what hangs below it."""

    line: str
    below: Sequence["Node"] = ()


def drawn(node: Node) -> Iterator[str]:
    """Yield the lines of a tree, each node before what hangs below it."""
    yield cell(node.line)
    for number, child in enumerate(node.below, 1):
        last = number == len(node.below)
        first, other = ("└─ ", "   ") if last else ("├─ ", "│  ")
        for at, line in enumerate(drawn(child)):
            yield (other if at else first) + line
