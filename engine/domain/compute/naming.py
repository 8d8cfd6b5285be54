"""Names of flavors and servers: what can be printed, as Nova has it."""

import unicodedata

from schemas.errors import InvalidInput


def printable_name(text: str, kind: str) -> str:
    """Return a name without the blanks around it.

    Raises:
        InvalidInput: nothing is left, or it has characters that cannot be printed, as in Nova.
    """
    name = text.strip()
    if not name:
        raise InvalidInput(f"a {kind}'s name must not be blank")
    for character in name:
        category = unicodedata.category(character)
        if category[0] == "C" or (category[0] == "Z" and category != "Zs"):
            raise InvalidInput(f"a {kind}'s name must have printable characters only")
    return name
