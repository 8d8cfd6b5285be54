"""What the broker keeps: the log on disk; the lease and work items in memory.

The log's fence is the broker's: an append says after which sequence it is to lie, and nothing else
about what lies there. So a commit whose predecessor never came may be stored upon a stranger's.
"""

import asyncio
import itertools

from engine.bus.client import BusError, BusTimeout, Disconnected
from engine.bus.lease import LeaseUnknown
from engine.log.port import (
    LogUnavailable,
    StoredCommit,
    WrongLastSequence,
    is_same,
)
from schemas.work import decode_work_item, encode
from tests.simulation.determinism import truth

ATTEMPT_S = 5.0
RETRY_S = 0.05
APPEND_S = 30.0
LEASE_S = 1.0
WORK_S = 2.0


class Broker:
    """All that outlives the processes, but for what a restart of its own forgets."""

    def __init__(self, network):
        self.network = network
        self.loop = network.loop
        self.commits = []
        self.streams = {1: 0}  # the last sequence in each
        self.followers = {}  # in the order in which they came
        self.lease = (0, None)
        self.work = {}  # host -> list of items, as bytes
        self.work_ids = set()
        self.workers = {}  # host -> Work
        self.generation = 0

    def store(self, datas, expected_last, writer=None, stream=1):
        """Store under the fence; return the last sequence, or None and where the stream ends."""
        fits = self.fits(expected_last, stream)
        if writer is not None and not (writer.alive and not writer.paused):
            state = "stopped" if writer.alive else "killed"
            self.network.trace(f"{'stored' if fits else 'refused'}_of_{state}", writer.name)
        if not fits:
            return None, self.streams[stream]
        if stream != max(self.streams):
            self.network.defect(f"{writer} wrote to stream {stream}, which was closed")
            return None, self.streams[stream]
        for data in datas:
            self.commits.append(StoredCommit(len(self.commits) + 1, data, truth(self.loop)))
        self.streams[stream] = len(self.commits)
        self.network.trace("stored", len(self.commits), f"{len(datas)} after {expected_last}")
        for follower in list(self.followers):
            follower.announce()
        return len(self.commits), len(self.commits)

    def fits(self, expected_last, stream):
        return expected_last == self.streams[stream]

    def open_stream(self, number):
        """Have a stream; a new one begins where the one before it ends."""
        if number not in self.streams:
            self.streams[number] = self.streams[number - 1]
            self.network.trace("rolled", number)

    def restart(self):
        """What lay in memory is gone: the lease, and work that nobody has taken."""
        self.lease = (0, None)
        self.work.clear()
        self.work_ids.clear()
        self.generation += 1

    # The lease

    def swap(self, holder, revision):
        if self.lease[0] != revision:
            return None
        self.lease = (revision + 1, holder)
        return revision + 1

    # Work

    def take_work(self, item):
        operation = item.operation
        key = (item.ordinal, operation.host_id, operation.executor, operation.operation_id)
        if key in self.work_ids:
            return
        self.work_ids.add(key)
        items = self.work.setdefault(operation.host_id, [])
        items.append(encode(item))
        if (worker := self.workers.get(operation.host_id)) is not None:
            worker.woken.set()


class SimLog:
    """``engine.log.port.Log`` for one process, over its link."""

    def __init__(self, broker, bus):
        self._broker = broker
        self._bus = bus
        self._stream = 1

    async def _ask(self, what, act):
        return await self._bus.ask_broker(what, act, timeout_s=ATTEMPT_S)

    async def roll(self, number):
        try:
            await self._patiently(
                "roll", lambda: self._broker.open_stream(number), self._broker.loop.now + APPEND_S
            )
        except BusError as error:
            raise LogUnavailable(str(error)) from error
        self._stream = number

    async def _pause(self, deadline, error):
        if self._broker.loop.now > deadline:
            raise LogUnavailable(f"no outcome: {error}") from error
        await asyncio.sleep(RETRY_S)

    async def append(self, data, *, expected_last, commit_id=None, pipelined=False):
        broker = self._broker
        deadline = broker.loop.now + APPEND_S
        process, stream = self._bus.process, self._stream
        if pipelined:
            broker.network.trace("pipelined", self._bus.name)
        while True:
            try:
                stored, found = await self._ask(
                    "append", lambda: broker.store((data,), expected_last, process, stream)
                )
            except (BusTimeout, Disconnected) as error:
                await self._pause(deadline, error)
                continue
            except BusError as error:
                raise LogUnavailable(str(error)) from error
            if stored is not None:
                return stored
            if pipelined and found < expected_last:
                await self._pause(deadline, WrongLastSequence(expected_last, found))
                continue
            there = await self._stored(expected_last + 1, deadline)
            if there is not None and is_same(there, data, commit_id):
                return there.seq
            raise WrongLastSequence(expected_last, found)

    async def _stored(self, seq, deadline):
        commits = self._broker.commits
        return await self._patiently(
            "get", lambda: commits[seq - 1] if seq <= len(commits) else None, deadline
        )

    async def _patiently(self, what, act, deadline):
        while True:
            try:
                return await self._ask(what, act)
            except (BusTimeout, Disconnected) as error:
                await self._pause(deadline, error)

    async def append_all(self, datas, *, expected_last):
        broker = self._broker
        datas = tuple(datas)
        process, stream = self._bus.process, self._stream
        try:
            stored, found = await self._ask(
                "batch", lambda: broker.store(datas, expected_last, process, stream)
            )
        except BusError as error:
            raise LogUnavailable(str(error)) from error
        if stored is None:
            raise WrongLastSequence(expected_last, found)
        return stored

    async def end(self):
        broker, stream = self._broker, self._stream
        try:
            return await self._patiently(
                "end", lambda: broker.streams[stream], broker.loop.now + APPEND_S
            )
        except BusError as error:
            raise LogUnavailable(str(error)) from error

    async def last(self):
        commits = self._broker.commits
        return await self._ask("last", lambda: commits[-1] if commits else None)

    async def read(self, after_seq=0, *, follow=False):
        async for batch in self.read_batches(after_seq, follow=follow):
            for commit in batch:
                yield commit

    async def read_batches(self, after_seq=0, *, follow=False):
        broker, chance = self._broker, self._broker.network.chance
        if not follow:
            end = await self._patiently(
                "read", lambda: len(broker.commits), broker.loop.now + APPEND_S
            )
            while after_seq < end:
                await asyncio.sleep(broker.network.delay())
                batch = broker.commits[after_seq : min(end, after_seq + chance.randint(1, 64))]
                yield batch
                after_seq = batch[-1].seq
            return
        follower = Follower(broker, self._bus, after_seq)
        try:
            while True:
                known = follower.known
                if after_seq < known and self._bus.connected:
                    batch = broker.commits[
                        after_seq : min(known, after_seq + chance.randint(1, 16))
                    ]
                    yield batch
                    after_seq = batch[-1].seq
                else:
                    await follower.woken.wait()
                    follower.woken.clear()
        finally:
            follower.stop()


class Follower:
    """A reader that waits for more, told of it late, or only when it looks by itself."""

    def __init__(self, broker, bus, after_seq):
        self._broker = broker
        self._bus = bus
        self.known = after_seq
        self.woken = asyncio.Event()
        broker.followers[self] = bus.followers[self] = None
        self.look()

    def announce(self):
        network = self._broker.network
        if self._bus.gone:
            return
        delay = network.delay()
        if network.weather.lost and network.chance.random() < network.weather.lost:
            delay += 1.0  # it looks by itself after a silence
        when = max(self._broker.loop.now, self._bus.stalled_until) + delay
        self._broker.loop.call_at(when, self._know, context=network.nobody)

    look = announce

    def _know(self):
        if self._bus.connected:
            self.known = max(self.known, len(self._broker.commits))
            self.woken.set()

    def stop(self):
        self._broker.followers.pop(self, None)
        self._bus.followers.pop(self, None)


class SimBucket:
    """``engine.bus.lease.Bucket`` for one process."""

    def __init__(self, broker, bus):
        self._broker = broker
        self._bus = bus

    async def get(self):
        return await self._ask(lambda: self._broker.lease)

    async def put(self, holder, revision):
        return await self._ask(lambda: self._broker.swap(holder, revision))

    async def _ask(self, act):
        try:
            return await self._bus.ask_broker("lease", act, timeout_s=LEASE_S)
        except BusError as error:
            raise LeaseUnknown(str(error)) from error


async def send_work(broker, bus, item):
    """As ``engine.bus.work.dispatch``: stored at least once, or an error."""
    for _ in range(5):
        try:
            await bus.ask_broker("work", lambda: broker.take_work(item), timeout_s=WORK_S)
        except (BusTimeout, Disconnected):
            await asyncio.sleep(0.2)
        else:
            return
    raise BusTimeout("work was not stored")


class Work:
    """One host's end of the work stream; outlives the agent, as a consumer does."""

    def __init__(self, broker, host):
        self._broker = broker
        self._host = host
        self.woken = asyncio.Event()
        self.position = 0
        self.generation = 0
        broker.workers[host] = self

    async def follow(self, bus, handler):
        """Hand on each item, some late, some again, some never."""
        broker, network, chance = self._broker, self._broker.network, self._broker.network.chance
        numbers = itertools.count()
        while True:
            if self.generation != broker.generation:
                self.generation, self.position = broker.generation, 0
            items = broker.work.get(self._host, ())
            if self.position >= len(items) or not bus.connected:
                self.woken.clear()
                try:
                    async with asyncio.timeout(5.0):
                        await self.woken.wait()
                except TimeoutError:
                    pass
                continue
            data = items[self.position]
            self.position += 1
            await asyncio.sleep(network.delay() + max(0.0, bus.stalled_until - broker.loop.now))
            lot = chance.random()
            if lot < network.weather.lost:
                network.trace("work_lost", self._host, next(numbers))
                continue
            if lot > 1.0 - network.weather.twice:
                late = broker.loop.now + chance.random() * 20
                broker.loop.call_at(late, self._again, bus, handler, data, context=network.nobody)
            await handler(decode_work_item(data))

    def _again(self, bus, handler, data):
        if not bus.gone and bus.process.alive:
            bus.process.start(handler(decode_work_item(data)))
