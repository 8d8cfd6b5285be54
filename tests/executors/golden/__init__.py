"""Texts that are made for other programs, as they were last reviewed.

Set CUMULOG_GOLDEN=write to replace them by what is made now; then read the difference.
"""

import os
from pathlib import Path

HERE = Path(__file__).parent


def matches(name, text):
    path = HERE / name
    if os.environ.get("CUMULOG_GOLDEN") == "write":
        path.write_text(text)
    assert path.exists(), f"{path} is not there: CUMULOG_GOLDEN=write makes it"
    assert text == path.read_text()
