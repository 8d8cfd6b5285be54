"""The table of metrics in the documentation is that of the code. CUMULOG_DOCS=write makes it so."""

import os
import re
from pathlib import Path

from schemas.metrics import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BLOCK = re.compile(r"(<!-- metrics: [^\n]* -->\n).*?(<!-- metrics end -->)", re.DOTALL)


def table() -> str:
    """Return the table as Markdown."""
    rows = ["| name | labels | counted by | what |", "|---|---|---|---|"]
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = (f"`{name}` ({metric.kind})", labels, metric.counted_by, metric.help)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def test_the_page_has_every_metric():
    text = PAGE.read_text()
    (found,) = BLOCK.findall(text)
    wanted = BLOCK.sub(lambda _: found[0] + table() + found[1], text)
    if os.environ.get("CUMULOG_DOCS") == "write":
        PAGE.write_text(wanted)
    assert PAGE.read_text() == wanted, "CUMULOG_DOCS=write mends it"
