"""Text in CSV that spreadsheets take for text.

Whoever names a server chooses what stands in a cell that somebody else opens.
"""

# What a spreadsheet takes for a formula, if a cell begins with it.
FORMULA = frozenset("=+-@\t\r\n")


def harmless(text: str) -> str:
    """Return a text as it is, or after an apostrophe if it would be taken for a formula."""
    return f"'{text}" if text[:1] in FORMULA else text
