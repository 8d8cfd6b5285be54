"""What can go wrong on the bus, and whether the request may have been carried out."""


class BusError(Exception):
    """The bus could not do it."""


class BusTimeout(BusError):
    """No answer in time. The request may have been carried out."""


class Disconnected(BusError):
    """The connection was lost while waiting. The request may have been carried out."""


class FellSilent(BusTimeout):
    """Whoever worked on the answer gives no sign of life any more. As ``BusTimeout``."""


class NoResponders(BusError):
    """Nobody listens on the subject. The request was not carried out."""


class NotPermitted(BusError):
    """The user may not publish or subscribe there."""
