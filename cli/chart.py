"""Bars: in a terminal, or as a file (SVG, PNG) for a report or a page.

What is drawn has been rounded by nobody but the drawing: numbers stay in the tables.
"""

import io
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.problem import USAGE, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # takes a second to load

WIDTH = 48  # characters of the longest bar in a terminal
LABELS_MAX = 60  # of a chart in a file; a terminal scrolls
FLAT_MAX = 6  # labels that have room beside one another
CHARTS_MAX = 12  # of one file
FORMATS = (".svg", ".png")

Plot = Annotated[bool, typer.Option("--plot", help="Draw bars in the terminal, too.")]
Chart = Annotated[
    Path | None, typer.Option(help="Draw a chart into this file: .svg or .png.", dir_okay=False)
]


class Bars:
    """One bar for each label, of parts that are stacked."""

    def __init__(self, title: str, unit: str) -> None:
        self.title = title
        self.unit = unit
        self.parts: dict[str, dict[str, Decimal]] = {}

    def add(self, label: str, part: str, amount: Decimal) -> None:
        """Add to a bar's part."""
        of = self.parts.setdefault(label, {})
        of[part] = of.get(part, Decimal(0)) + amount

    @property
    def series(self) -> list[str]:
        """The names of the parts, in the order they first came."""
        return list(dict.fromkeys(part for of in self.parts.values() for part in of))

    def lines(self) -> Iterator[str]:
        """Yield the bars for a terminal."""
        from rich.bar import Bar
        from rich.console import Console
        from rich.table import Table

        sums = {label: sum(of.values(), Decimal(0)) for label, of in self.parts.items()}
        most = float(max(sums.values(), default=Decimal(0))) or 1.0
        grid = Table.grid(padding=(0, 1))
        for label, amount in sums.items():
            bar = Bar(size=most, begin=0, end=max(0.0, float(amount)), width=WIDTH)
            grid.add_row(_plain(label), bar, f"{amount:f} {self.unit}")
        out = io.StringIO()
        console = Console(file=out, width=200, color_system=None, markup=False, highlight=False)
        console.print(grid)
        yield from (line.rstrip() for line in out.getvalue().splitlines())

    def draw(self, axes: "Axes") -> None:
        """Draw the bars into a part of a picture."""
        labels = list(self.parts)[:LABELS_MAX]
        below = [0.0] * len(labels)
        for part in self.series:
            heights = [float(self.parts[label].get(part, 0)) for label in labels]
            axes.bar(range(len(labels)), heights, bottom=below, label=_plain(part))
            below = [one + more for one, more in zip(below, heights, strict=True)]
        axes.set_title(_plain(self.title))
        axes.set_ylabel(_plain(self.unit))
        axes.set_xticks(range(len(labels)), [_plain(label) for label in labels])
        axes.tick_params(axis="x", labelrotation=60 if len(labels) > FLAT_MAX else 0)
        if self.series != [""]:
            axes.legend()


def save(charts: Sequence[Bars], file: Path) -> None:
    """Draw charts below one another into a file; its name says how.

    Raises:
        Problem: the name ends in nothing that can be drawn, or it cannot be written.
    """
    if file.suffix.lower() not in FORMATS:
        raise Problem(f"a chart is one of {', '.join(FORMATS)}", exit_code=USAGE)
    if not charts:
        raise Problem("there is nothing to draw")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Problem(
            "charts are drawn by matplotlib, which is not installed",
            hint="Install cumulog[charts]; --plot needs nothing.",
        ) from error
    charts = charts[:CHARTS_MAX]
    bars = max(min(len(one.parts), LABELS_MAX) for one in charts)
    # The same numbers give the same file: no time is in it, and no random id.
    with rc_context({"svg.hashsalt": "cumulog", "svg.fonttype": "none"}):
        size = (max(6.4, 0.4 * bars + 2), 4.8 * len(charts))
        figure = Figure(figsize=size, layout="constrained")
        for axes, one in zip(figure.subplots(len(charts), squeeze=False).flat, charts, strict=True):
            one.draw(axes)
        try:
            figure.savefig(file, metadata=_undated(file.suffix.lower()))
        except OSError as error:
            raise Problem(f"cannot write {file}: {error.strerror or error}") from error


def _undated(suffix: str) -> dict[str, str | None]:
    return {"Date": None} if suffix == ".svg" else {"Software": None}


def _plain(text: str) -> str:
    """Return text as it is drawn: no mathematics, and nothing that steers a terminal."""
    shown = "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def show(charts: Sequence[Bars], *, plot: bool, file: Path | None) -> None:
    """Draw as asked: in the terminal, into a file, both or neither.

    Raises:
        Problem: it cannot be drawn into that file.
    """
    if plot:
        for one in charts:
            print(f"\n{one.title}")
            for line in one.lines():
                print(line)
    if file is not None:
        save(charts, file)
