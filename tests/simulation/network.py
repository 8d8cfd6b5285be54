"""The bus without a broker process: messages that take their time, get lost, come twice.

``Bus`` has the interface of ``engine.bus.client.Bus``. A message is on its way until its time has
come; only then is it routed, so it may outlive its sender and meet listeners that came later. A
link that is cut loses what comes for it; one that is stalled keeps it until it is mended.
"""

import asyncio
import contextvars
import itertools
from collections import deque
from dataclasses import dataclass

from engine.bus.client import BusError, BusTimeout, Disconnected, NoResponders
from engine.turns import LeadershipLost
from schemas.subjects import Subjects

BUFFERED_MAX = 1000


@dataclass(kw_only=True)
class Weather:
    """How messages fare. Probabilities are per message, times in seconds."""

    base_s: float = 0.0005
    spread_s: float = 0.002
    slow: float = 0.0  # the share that takes up to ``slow_s``
    slow_s: float = 3.0
    lost: float = 0.0
    twice: float = 0.0
    reordered: float = 0.0  # the share that may overtake what was sent before it


class Message:
    """See ``engine.bus.subscription.Message``."""

    __slots__ = ("_bus", "headers", "payload", "reply", "subject")

    def __init__(self, bus, subject, payload, reply):
        self._bus = bus
        self.subject = subject
        self.payload = payload
        self.reply = reply
        self.headers = {}

    async def respond(self, payload):
        await self._bus.respond(self.reply, payload)


class Subscription:
    """Interest in a subject. Messages are handled one after another."""

    def __init__(self, bus, subject, handler):
        self.bus = bus
        self.subject = subject
        self._handler = handler
        self._queue = deque()
        self._task = None
        self._stopped = False

    def take(self, message):
        """A message has come in; called in the world's context."""
        self._queue.append(message)
        if self._task is None:
            self._task = self.bus.process.start(self._handle())

    async def _handle(self):
        try:
            while self._queue and not self._stopped:
                message = self._queue.popleft()
                try:
                    await self._handler(message)
                except (BusError, LeadershipLost) as error:
                    self.bus.network.trace("unanswered", self.bus.name, str(error))
                except Exception as error:  # noqa: BLE001  # the real one logs it and goes on
                    self.bus.network.defect(f"handler of {message.subject} failed: {error!r}")
        finally:
            self._task = None

    async def stop(self):
        self._stopped = True
        self.bus.network.forget(self)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()


class Bus:
    """One process's connection."""

    def __init__(self, network, process, name):
        self.network = network
        self.process = process
        self.name = name
        self.store = self
        self.cell = network.subjects.cell
        self.subjects = network.subjects
        self.on_reconnect = []
        self.connected = True
        self.gone = False  # closed, or its process is dead
        self.stalled_until = 0.0
        self.last_out = 0.0
        self.buffer = deque()
        self.waiting = {}
        self.followers = {}  # of the log, in order

    async def publish(self, subject, payload, headers=None, *, reply=""):
        if self.gone:
            raise BusError("the bus is closed")
        if self.connected:
            self.network.carry(self, subject, payload, reply)
        elif len(self.buffer) < BUFFERED_MAX:
            self.buffer.append((subject, payload, reply))
        else:
            raise BusError("the buffer is full")

    async def request(self, subject, payload, *, timeout_s):
        reply, future = self._expect(subject, timeout_s)
        try:
            await self.publish(subject, payload, reply=reply)
            return await future
        finally:
            self.waiting.pop(reply, None)

    async def ask_broker(self, what, act, *, timeout_s):
        """Have the broker itself do something; ``act()`` is called when the question arrives."""
        if not self.connected:
            raise Disconnected("the connection is away")
        reply, future = self._expect(what, timeout_s)
        try:
            self.network.carry_to_broker(self, act, reply, what)
            return await future
        finally:
            self.waiting.pop(reply, None)

    def _expect(self, what, timeout_s):
        network = self.network
        reply = f"_INBOX.{next(network.tokens)}"
        future = network.loop.create_future()
        self.waiting[reply] = future
        network.inboxes[reply] = self
        network.loop.call_later(timeout_s, self._expire, reply, what, timeout_s)
        return reply, future

    def _expire(self, reply, what, timeout_s):
        self.network.inboxes.pop(reply, None)
        self.fail(reply, BusTimeout(f"no answer from {what} in {timeout_s} s"))

    def answer(self, reply, payload):
        future = self.waiting.get(reply)
        if future is not None and not future.done():
            future.set_result(payload)

    def fail(self, reply, error):
        future = self.waiting.get(reply)
        if future is not None and not future.done():
            future.set_exception(error)

    async def respond(self, reply, payload):
        if reply:
            await self.publish(reply, payload)

    async def subscribe(self, subject, handler, *, queue="", concurrency=1):
        subscription = Subscription(self, subject, handler)
        await asyncio.sleep(self.network.delay())
        if self.gone:
            raise BusError("the bus is closed")
        self.network.remember(subscription)
        return subscription

    async def close(self):
        self.network.remove(self)


class Network:
    """All links, and who listens to what."""

    def __init__(self, loop, chance, weather, trace, defect, cell="sim"):
        self.loop = loop
        # What is under way belongs to nobody: it outlives its sender, and is not stopped with it.
        self.nobody = contextvars.Context()
        self.chance = chance
        self.weather = weather
        self.trace = trace
        self.defect = defect
        self.subjects = Subjects(cell=cell)
        self.tokens = itertools.count(1)
        self.inboxes = {}
        self.buses = []
        self.messages = 0
        self.away_until = 0.0  # the broker is down until then
        self.ambush = None  # called with the next bus that sends a commit; returns a delay
        self._exact = {}
        self._patterns = {}  # prefix before a final "*"

    def connect(self, process, name):
        bus = Bus(self, process, name)
        self.buses.append(bus)
        return bus

    def remove(self, bus):
        """The connection is gone for good: closed, or its process was killed."""
        bus.gone = True
        bus.connected = False
        for table in (self._exact, self._patterns):
            for subscriptions in table.values():
                subscriptions[:] = [s for s in subscriptions if s.bus is not bus]
        for reply in bus.waiting:
            self.inboxes.pop(reply, None)
            if bus.process.alive:
                bus.fail(reply, Disconnected("the bus was closed"))
        bus.followers.clear()
        if bus in self.buses:
            self.buses.remove(bus)

    def remember(self, subscription):
        table, key = self._place(subscription.subject)
        table.setdefault(key, []).append(subscription)

    def forget(self, subscription):
        table, key = self._place(subscription.subject)
        if subscription in table.get(key, ()):
            table[key].remove(subscription)

    def _place(self, subject):
        if subject.endswith(".*"):
            return self._patterns, subject[:-1]
        return self._exact, subject

    def delay(self):
        weather, chance = self.weather, self.chance
        delay = weather.base_s + chance.expovariate(1.0) * weather.spread_s
        if weather.slow and chance.random() < weather.slow:
            delay += chance.random() * weather.slow_s
        return delay

    def arrival(self, bus):
        """Return when what is sent now arrives: after what was sent before, unless it overtakes."""
        when = max(self.loop.now, bus.stalled_until) + self.delay()
        if not (self.weather.reordered and self.chance.random() < self.weather.reordered):
            when = max(when, bus.last_out)
            bus.last_out = when
        return when

    def carry(self, bus, subject, payload, reply):
        weather, chance = self.weather, self.chance
        self.messages += 1
        if self._is_lost():
            self.trace("lost", bus.name, subject)
            return
        self.loop.call_at(
            self.arrival(bus), self._route, bus, subject, payload, reply, context=self.nobody
        )
        if weather.twice and chance.random() < weather.twice:
            self.trace("twice", bus.name, subject)
            self.loop.call_at(
                self.arrival(bus), self._route, bus, subject, payload, reply, context=self.nobody
            )

    def carry_to_broker(self, bus, act, reply, what):
        self.messages += 1
        if self._is_lost():
            self.trace("lost", bus.name, reply)
            return
        when = self.arrival(bus)
        if self.ambush is not None and what in {"append", "batch"}:
            ambush, self.ambush = self.ambush, None
            when = bus.last_out = when + ambush(bus)
        self.loop.call_at(when, self._act, bus, act, reply, context=self.nobody)

    def _is_lost(self):
        return self.weather.lost and self.chance.random() < self.weather.lost

    def _act(self, bus, act, reply):
        if self.loop.now < self.away_until:
            self.trace("lost", bus.name, reply)
            return
        result = act()
        # What is lost here was done all the same: its asker does not learn the outcome.
        if self._is_lost():
            self.trace("answer_lost", bus.name, reply)
            return
        when = max(self.loop.now, bus.stalled_until) + self.delay()
        self.loop.call_at(when, self._acted, bus, reply, result, context=self.nobody)

    def _acted(self, bus, reply, result):
        if bus.connected:
            bus.answer(reply, result)

    def _route(self, sender, subject, payload, reply):
        if self.loop.now < self.away_until:
            self.trace("lost", sender.name, subject)
            return
        if subject.startswith("_INBOX."):
            asker = self.inboxes.get(subject)
            if asker is not None and asker.connected:
                self.at_last(asker, asker.answer, subject, payload)
            return
        found = self._exact.get(subject, ())
        pattern = self._patterns.get(subject[: subject.rfind(".") + 1], ())
        heard = False
        for subscription in (*found, *pattern):
            bus = subscription.bus
            heard |= not bus.gone
            if bus.connected:
                message = Message(bus, subject, payload, reply)
                self.at_last(bus, subscription.take, message)
        if not heard and reply and sender.connected:
            self.loop.call_later(
                self.delay(), sender.fail, reply, NoResponders(subject), context=self.nobody
            )

    def at_last(self, bus, act, *args):
        """Hand something over, once the receiver's link is not stalled."""
        if bus.stalled_until > self.loop.now:
            self.loop.call_at(bus.stalled_until, act, *args, context=self.nobody)
        else:
            act(*args)

    # What befalls links

    def cut(self, bus):
        """The connection breaks: whoever waits for an answer learns that it will not come."""
        if not bus.connected:
            return
        bus.connected = False
        for reply in list(bus.waiting):
            bus.process.call(bus.fail, reply, Disconnected("the connection was lost"))

    def mend(self, bus):
        """The connection is back."""
        if bus.connected or bus.gone:
            return
        bus.connected = True
        buffered, bus.buffer = bus.buffer, deque()
        for subject, payload, reply in buffered:
            self.carry(bus, subject, payload, reply)
        for follower in list(bus.followers):
            follower.look()
        bus.process.start(self._tell_reconnected(bus))

    async def _tell_reconnected(self, bus):
        for callback in list(bus.on_reconnect):
            try:
                await callback()
            except Exception as error:  # noqa: BLE001  # the real one logs it and goes on
                self.defect(f"on_reconnect of {bus.name} failed: {error!r}")

    def stall(self, bus, for_s):
        """Nothing passes for a while, and nobody is told."""
        bus.stalled_until = max(bus.stalled_until, self.loop.now + for_s)
