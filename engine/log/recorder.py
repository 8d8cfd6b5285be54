"""The recorders of the ``eventsourcing`` library, on JetStream.

``PERSISTENCE_MODULE=engine.log.recorder`` lets the library's applications, subscriptions and
projection runners store and read through a stream of their own, with ``NATS_URL``, ``NATS_USER``
and ``NATS_PASSWORD`` in the environment. A notification's id is its gap-free ordinal. The promises
are those of ``journal``; this module only speaks the library's words. Conformance: the library's
own cases, in ``tests/contracts/test_recorder.py``.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    OperationalError,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic

from engine.bus.client import STORE_USERS
from engine.log.journal import Event, Journal, JournalConflict, JournalUnavailable


class JetStreamRecorder:
    """What all recorders here have: a journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal


class JetStreamAggregateRecorder(JetStreamRecorder, AggregateRecorder):
    """Stores events of aggregates, and finds those of one by an index."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Store all or none; returns None, since aggregates have no common sequence.

        Raises:
            IntegrityError: an originator's version is taken.
            OperationalError: the broker is away; the outcome is not known.
        """
        self._insert(stored_events, **kwargs)
        return None

    def _insert(
        self, stored_events: Sequence[StoredEvent], tracking: Tracking | None = None, **_: Any
    ) -> list[int]:
        if not stored_events and tracking is None:
            return []
        track = (tracking.application_name, tracking.notification_id) if tracking else None
        with _translated():
            return self.journal.insert([_event(stored) for stored in stored_events], track)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return an originator's events in the order of their versions."""
        with _translated():
            found = self.journal.events_of(
                str(originator_id), gt=gt, lte=lte, desc=desc, limit=limit
            )
        return [
            StoredEvent(_originator_id(event), event.version, event.topic, event.state)
            for event in found
        ]


class JetStreamApplicationRecorder(JetStreamAggregateRecorder, ApplicationRecorder):
    """Stores events in one sequence, too, whose ids are 1, 2, 3 and so on."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Store all or none and return their ids, None if there are no events.

        Raises:
            IntegrityError: an originator's version is taken, or the tracking is not new.
            OperationalError: the broker is away; the outcome is not known.
        """
        return self._insert(stored_events, **kwargs) or None

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return notifications from ``start`` on, or after it, up to ``stop``."""
        first = 1 if start is None else start if inclusive_of_start else start + 1
        with _translated():
            found = self.journal.events_from(first, limit, last=stop, topics=topics)
        return [
            Notification(
                id=ordinal,
                originator_id=_originator_id(event),
                originator_version=event.version,
                topic=event.topic,
                state=event.state,
            )
            for ordinal, event in found
        ]

    def max_notification_id(self) -> int | None:
        """Return the newest notification's id, None if there is none."""
        with _translated():
            return self.journal.last_ordinal() or None

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        """Return an iterator of notifications after ``gt`` that waits for new ones."""
        return JetStreamSubscription(recorder=self, gt=gt, topics=topics)


class JetStreamSubscription(ListenNotifySubscription[JetStreamApplicationRecorder]):
    """Pulls when there may be something: told by whoever inserts, and every second."""

    def __init__(
        self,
        recorder: JetStreamApplicationRecorder,
        gt: int | None = None,
        topics: Sequence[str] = (),
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._listener = recorder.journal.listener(self._has_been_notified.set)

    def stop(self) -> None:
        """End the iteration."""
        super().stop()
        if listener := getattr(self, "_listener", None):  # The pull may fail before there is one.
            listener.close()


class JetStreamTrackingRecorder(JetStreamRecorder, TrackingRecorder):
    """Stores how far upstream applications were processed; never goes back."""

    def insert_tracking(self, tracking: Tracking) -> None:
        """Store a position.

        Raises:
            IntegrityError: it is not after the newest one of that application.
            OperationalError: the broker is away; the outcome is not known.
        """
        with _translated():
            self.journal.insert([], (tracking.application_name, tracking.notification_id))

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the newest position of an application, None if there is none."""
        with _translated():
            return self.journal.tracked(application_name)


class JetStreamProcessRecorder(
    JetStreamTrackingRecorder, JetStreamApplicationRecorder, ProcessRecorder
):
    """Stores events with the position of the notification they came from, in one message."""


class JetStreamFactory(InfrastructureFactory[JetStreamTrackingRecorder]):
    """Makes recorders on streams named after the application.

    Environment, each also with the application's name before it: ``NATS_URL``, ``NATS_USER``
    (``admin`` if not given), ``NATS_PASSWORD``, ``NATS_STREAM`` (the application's name if not
    given).
    """

    NATS_URL = "NATS_URL"
    NATS_USER = "NATS_USER"
    NATS_PASSWORD = "NATS_PASSWORD"  # noqa: S105  # a name
    NATS_STREAM = "NATS_STREAM"

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._url = self.env.get(self.NATS_URL)
        user = self.env.get(self.NATS_USER) or "admin"
        self._user = f"{user}-store" if user in STORE_USERS else user
        self._password = self.env.get(self.NATS_PASSWORD)
        if not self._url or not self._password:
            raise InfrastructureFactoryError(
                f"{self.NATS_URL} and {self.NATS_PASSWORD} are needed in the environment"
            )
        self._name = self.env.get(self.NATS_STREAM) or self.env.name or "application"
        self._journals: list[Journal] = []

    def aggregate_recorder(self, purpose: str = "events") -> JetStreamAggregateRecorder:
        """Return a recorder of aggregates' events, or of their snapshots."""
        return JetStreamAggregateRecorder(self._journal(purpose))

    def application_recorder(self) -> JetStreamApplicationRecorder:
        """Return a recorder of the application's events; of APPLICATION_RECORDER_TOPIC if set."""
        topic = self.env.get(self.APPLICATION_RECORDER_TOPIC)
        chosen: type[JetStreamApplicationRecorder] = (
            resolve_topic(topic) if topic else JetStreamApplicationRecorder
        )
        return chosen(self._journal("events"))

    def tracking_recorder(
        self, tracking_recorder_class: type[JetStreamTrackingRecorder] | None = None
    ) -> JetStreamTrackingRecorder:
        """Return a recorder of positions: of the class given, else of TRACKING_RECORDER_TOPIC."""
        if tracking_recorder_class is None:
            topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
            tracking_recorder_class = resolve_topic(topic) if topic else JetStreamTrackingRecorder
        assert tracking_recorder_class is not None
        return tracking_recorder_class(self._journal("tracking"))

    def process_recorder(self) -> JetStreamProcessRecorder:
        """Return a recorder of events with positions; of PROCESS_RECORDER_TOPIC if set."""
        topic = self.env.get(self.PROCESS_RECORDER_TOPIC)
        chosen: type[JetStreamProcessRecorder] = (
            resolve_topic(topic) if topic else JetStreamProcessRecorder
        )
        return chosen(self._journal("events"))

    def close(self) -> None:
        """Close the connections of all recorders made here."""
        while self._journals:
            self._journals.pop().close()

    def _journal(self, purpose: str) -> Journal:
        # A stream's name has no dots, a subject's token neither.
        name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{self._name}-{purpose}")
        journal = Journal(
            self._url or "",
            self._user,
            self._password or "",
            stream=f"ES-{name}",
            subject=f"es.{name}",
        )
        self._journals.append(journal)
        return journal


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except JournalConflict as error:
        raise IntegrityError(str(error)) from error
    except JournalUnavailable as error:
        raise OperationalError(str(error)) from error


def _event(stored: StoredEvent) -> Event:
    return Event(
        str(stored.originator_id),
        isinstance(stored.originator_id, UUID),
        stored.originator_version,
        stored.topic,
        stored.state,
    )


def _originator_id(event: Event) -> UUID | str:
    return UUID(event.originator_id) if event.uuid else event.originator_id
