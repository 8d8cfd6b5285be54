"""The recorders pass the cases that the ``eventsourcing`` library ships for its own storages."""

import asyncio
import itertools
import os
import unittest
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent, Tracking
from eventsourcing.tests import application as application_cases
from eventsourcing.tests import persistence as cases
from eventsourcing.utils import Environment

from engine.log import server
from engine.log.journal import Journal
from engine.log.recorder import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamFactory,
    JetStreamProcessRecorder,
    JetStreamTrackingRecorder,
)

_names = itertools.count(1)


@pytest.fixture(autouse=True)
def broker(request, nats_server):
    """Give cases in unittest's shape the session's broker, and close what they opened."""
    opened = []
    environment = {
        "NATS_URL": nats_server.url,
        "NATS_PASSWORD": nats_server.credentials["admin"],
        "NATS_STREAM": f"r{os.getpid()}-{next(_names)}",
        "PERSISTENCE_MODULE": "engine.log.recorder",
    }
    if request.instance is not None and isinstance(request.instance, unittest.TestCase):
        request.instance.broker_env = environment
        request.instance.opened = opened
    yield environment
    for factory in opened:
        factory.close()


class _OnBroker:
    """Makes recorders of one stream for a test."""

    broker_env: dict[str, str]
    opened: list[JetStreamFactory]

    def factory(self):
        factory = JetStreamFactory(Environment(env=self.broker_env))
        self.opened.append(factory)
        return factory


class TestAggregateRecorder(_OnBroker, cases.AggregateRecorderTestCase):
    def create_recorder(self):
        return self.factory().aggregate_recorder()


class TestAggregateRecorderWithStringIds(TestAggregateRecorder):
    def new_originator_id(self):
        return f"order-{uuid4()}"


class TestApplicationRecorder(_OnBroker, cases.ApplicationRecorderTestCase):
    def create_recorder(self):
        return self.factory().application_recorder()

    def test_insert_subscribe(self):
        super().optional_test_insert_subscribe()


class TestApplicationRecorderWithStringIds(TestApplicationRecorder):
    def new_originator_id(self):
        return f"order-{uuid4()}"


class TestTrackingRecorder(_OnBroker, cases.TrackingRecorderTestCase):
    def create_recorder(self):
        return self.factory().tracking_recorder()


class TestProcessRecorder(_OnBroker, cases.ProcessRecorderTestCase):
    def create_recorder(self):
        return self.factory().process_recorder()


class TestProcessRecorderTracks(_OnBroker, cases.TrackingRecorderTestCase):
    def create_recorder(self):
        return self.factory().process_recorder()


class TestProcessRecorderIsAnApplicationRecorder(TestApplicationRecorder):
    def create_recorder(self):
        return self.factory().process_recorder()


class TestNotificationIdsDoNotInterleave(_OnBroker, cases.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self):
        return self.factory().application_recorder()


class SomeTrackingRecorder(JetStreamTrackingRecorder):
    """As a projection would define it."""


class TestFactory(_OnBroker, cases.InfrastructureFactoryTestCase):
    def setUp(self):
        self.env = Environment("TestCase", self.broker_env)
        super().setUp()

    def expected_factory_class(self):
        return JetStreamFactory

    def expected_aggregate_recorder_class(self):
        return JetStreamAggregateRecorder

    def expected_application_recorder_class(self):
        return JetStreamApplicationRecorder

    def expected_tracking_recorder_class(self):
        return JetStreamTrackingRecorder

    def tracking_recorder_subclass(self):
        return SomeTrackingRecorder

    def expected_process_recorder_class(self):
        return JetStreamProcessRecorder


class TestExampleApplication(_OnBroker, application_cases.ExampleApplicationTestCase):
    expected_factory_topic = "engine.log.recorder:JetStreamFactory"

    @pytest.fixture(autouse=True)
    def _in_the_environment(self, broker, monkeypatch):
        for name, value in broker.items():
            monkeypatch.setenv(name, value)


def a_recorder(environment, kind="application"):
    return getattr(JetStreamFactory(Environment(env=environment)), f"{kind}_recorder")()


def events_of(originator_id, versions, topic="topic"):
    return [StoredEvent(originator_id, version, topic, b"%d" % version) for version in versions]


def test_two_recorders_of_one_stream_see_each_others_events(broker):
    one, other = a_recorder(broker), a_recorder(broker)
    order = uuid4()

    assert one.insert_events(events_of(order, [1, 2])) == [1, 2]
    assert other.insert_events(events_of(order, [3])) == [3]

    assert [event.originator_version for event in one.select_events(order)] == [1, 2, 3]
    with pytest.raises(IntegrityError):
        one.insert_events(events_of(order, [3]))
    for recorder in (one, other):
        recorder.journal.close()


def test_writers_of_several_connections_leave_no_gap_and_lose_nothing(broker):
    recorders = [a_recorder(broker) for _ in range(4)]

    def write(recorder):
        return [recorder.insert_events(events_of(uuid4(), [1, 2, 3])) for _ in range(25)]

    with ThreadPoolExecutor(4) as pool:
        written = [ids for many in pool.map(write, recorders) for ids in many]

    assert sorted(number for ids in written for number in ids) == list(range(1, 301))
    assert all(ids == list(range(ids[0], ids[0] + 3)) for ids in written)
    assert [n.id for n in recorders[0].select_notifications(1, 1000)] == list(range(1, 301))
    for recorder in recorders:
        recorder.journal.close()


def test_of_racing_writers_of_one_version_one_wins(broker):
    recorders = [a_recorder(broker) for _ in range(4)]
    order = uuid4()

    def write(recorder):
        won = 0
        for version in range(1, 21):
            try:
                recorder.insert_events(events_of(order, [version]))
                won += 1
            except IntegrityError:
                pass
        return won

    with ThreadPoolExecutor(4) as pool:
        won = sum(pool.map(write, recorders))

    assert won == 20
    found = recorders[0].select_events(order)
    assert [event.originator_version for event in found] == list(range(1, 21))
    for recorder in recorders:
        recorder.journal.close()


def test_events_and_tracking_are_stored_together_or_not_at_all(broker):
    recorder = a_recorder(broker, "process")
    order = uuid4()
    recorder.insert_events(events_of(order, [1]), tracking=Tracking("upstream", 5))

    with pytest.raises(IntegrityError):
        recorder.insert_events(events_of(order, [2]), tracking=Tracking("upstream", 5))
    with pytest.raises(IntegrityError):
        recorder.insert_events(events_of(order, [1]), tracking=Tracking("upstream", 6))

    again = a_recorder(broker, "process")
    assert [event.originator_version for event in again.select_events(order)] == [1]
    assert again.max_tracking_id("upstream") == 5
    for one in (recorder, again):
        one.journal.close()


def test_reading_one_originator_does_not_scan_the_stream(broker, monkeypatch):
    """After the index is built, an originator's events cost as many reads as it has messages."""
    writer, reader = a_recorder(broker), a_recorder(broker)
    order = uuid4()
    for version in (1, 2, 3):
        writer.insert_events(events_of(order, [version]))
        for _ in range(20):
            writer.insert_events(events_of(uuid4(), [1]))
    assert reader.max_notification_id() == 63
    reader.journal._cache.clear()
    read = []
    reading = Journal._read

    def counted(self, seq, count):
        found = reading(self, seq, count)
        read.extend(number for number, _, _ in found)
        return found

    monkeypatch.setattr(Journal, "_read", counted)

    assert [event.state for event in reader.select_events(order)] == [b"1", b"2", b"3"]
    assert read == [1, 22, 43]
    for recorder in (writer, reader):
        recorder.journal.close()


def test_what_does_not_fit_into_the_cache_is_read_again(broker, monkeypatch):
    monkeypatch.setattr("engine.log.journal.CACHED_BYTES_MAX", 500)
    monkeypatch.setattr("engine.log.journal.BATCH_MAX", 3)
    recorder = a_recorder(broker)
    order = uuid4()
    for version in range(1, 31):
        recorder.insert_events(events_of(order, [version]))

    assert [e.originator_version for e in recorder.select_events(order)] == list(range(1, 31))
    assert [n.id for n in recorder.select_notifications(5, 20)] == list(range(5, 25))
    other = a_recorder(broker)
    assert [n.id for n in other.select_notifications(1, 100)] == list(range(1, 31))
    for one in (recorder, other):
        one.journal.close()


def test_ids_come_back_as_what_they_were(broker):
    recorder = a_recorder(broker)
    unique, text = uuid4(), "order.1 * > ü"
    recorder.insert_events([*events_of(unique, [1]), *events_of(text, [1])])

    found = recorder.select_notifications(1, 10)

    assert [n.originator_id for n in found] == [unique, text]
    assert isinstance(found[0].originator_id, UUID)
    assert recorder.select_events(text)[0].originator_id == text
    recorder.journal.close()


def test_a_subscription_hears_what_other_recorders_insert(broker):
    writer, reader = a_recorder(broker), a_recorder(broker)
    writer.insert_events(events_of(uuid4(), [1, 2]))

    with reader.subscribe(gt=1) as subscription:
        first = next(subscription)
        writer.insert_events(events_of(uuid4(), [1]))
        second = next(subscription)

    assert (first.id, second.id) == (2, 3)
    for recorder in (writer, reader):
        recorder.journal.close()


def test_nothing_is_stored_twice_when_the_broker_dies_under_the_writer(tmp_path):
    running = server.start(tmp_path)
    environment = {"NATS_URL": running.url, "NATS_PASSWORD": running.credentials["admin"]}
    recorder = a_recorder(environment)
    order = uuid4()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(
            lambda: [recorder.insert_events(events_of(order, [v])) for v in range(1, 201)]
        )
        for _ in range(2):
            while recorder.journal._last_seq < 20:
                asyncio.run(asyncio.sleep(0))
            running.process.kill()
            running.process.wait(10)
            running = server.start(tmp_path)
        written = writing.result(60)

    assert written == [[number] for number in range(1, 201)]
    assert [e.originator_version for e in recorder.select_events(order)] == list(range(1, 201))
    recorder.journal.close()
    running.stop()
