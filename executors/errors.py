"""What can go wrong on a host. Each says one step; the reason below it is its cause."""


class HostError(Exception):
    """The host could not do what was asked. The text is for the server's owner to read."""


class HypervisorError(HostError):
    """The hypervisor refused, or did not answer in time."""


class StorageError(HostError):
    """A disk or image cannot be made, read or removed."""


class ImageRefused(StorageError):
    """An image's content is not what it was said to be, or not safe to open."""


class NetworkError(HostError):
    """A link, namespace, rule or service could not be set up."""


class CommandFailed(HostError):
    """A program ended with an error, or did not end in time."""

    def __init__(self, program: str, why: str, *, status: int | None, output: str = "") -> None:
        super().__init__(f"{program}: {why}")
        self.status = status
        self.output = output


class Superseded(HostError):
    """A newer wish about the same resource stopped this work."""


class StaleState(HostError):
    """Desired state or work came from a leader that has been replaced."""


def reason(error: BaseException) -> str:
    """Return an error with its causes on one line, outermost first, at most 1000 characters."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < 4:
        text = " ".join(str(current).split()) or type(current).__name__
        if not parts or text not in parts[-1]:
            parts.append(text)
        current = current.__cause__
    return ": ".join(parts)[:1000]
