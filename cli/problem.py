"""How a command ends badly: one clear line that says what, why and what to do next.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the cloud cannot be reached.
"""

REFUSED = 1
USAGE = 2
UNREACHABLE = 3


class Problem(Exception):
    """Ends the command with one line on standard error and an exit code.

    ``hint`` says what to do next; ``request_id`` lets an operator find the request in the log.
    ``status`` is the HTTP status it came with, 0 for none.
    """

    def __init__(
        self,
        what: str,
        *,
        hint: str = "",
        request_id: str = "",
        status: int = 0,
        exit_code: int = REFUSED,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.request_id = request_id
        self.status = status
        self.exit_code = exit_code

    def line(self) -> str:
        """Return the whole line, without a line break in it."""
        text = " ".join(self.what.split())
        if self.hint:
            end = "" if text.endswith(("?", "!")) else "."
            text = f"{text.rstrip('.')}{end} {' '.join(self.hint.split())}"
        if self.request_id and self.request_id not in text:
            text = f"{text} ({self.request_id})"
        return text
