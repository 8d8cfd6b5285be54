"""A month in which servers are stopped and started all the time, sealed as history is.

Servers, customers, prices and a change of prices are the decider's own (see ``histories``). What
follows are the facts alone of servers that stop and start, many in a record, as if hosts reported
them in batches: who asked for each is left out, since no bill looks at it, and a log of 10 M of
them would be seven times as long with it. The chain and the segments are as ever. The same seed
gives the same bytes.
"""

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.histories import BEGAN, PRICES, TIMELINE, AboutRow, Years
from engine.log.commit import seal_commit
from projections.history import History
from schemas.billing import AssignProject, CreateCustomer, Discount, PriceRule, PublishPriceList
from schemas.compute import CreateServer
from schemas.months import month_bounds, month_of
from schemas.units import DAY, HOUR, MINUTE, Micros

MONTH = month_of(BEGAN)
START, END = month_bounds(MONTH)
CHANGE = START + 14 * DAY + 12 * HOUR + 34 * MINUTE
CUSTOMERS = 10
IN_COMMIT = 100
SEGMENT = 250_000
EACH = 500  # how often a server is stopped or started in the month, about

type Ready = tuple[int, bytes, list[AboutRow]]


class Switching(Years):
    """A cloud of servers, and a month of their stops and starts: ``facts`` of them."""

    def __init__(self, facts: int, seed: int = 1) -> None:
        super().__init__(seed)
        self._facts = facts
        self._customers()
        self._running = self._made(max(10, facts // EACH))

    def _customers(self) -> None:
        for number in range(CUSTOMERS):
            off = (Discount(percent="12.5"),) if number == 0 else ()
            action = CreateCustomer(name=f"customer-{number}", currency="EUR", discounts=off)
            customer = self._ask(self.admin, action)["customer_id"]
            for who in self.people[number::CUSTOMERS]:
                self._ask(
                    self.admin, AssignProject(project_id=who.project_id, customer_id=customer)
                )
        rules = tuple(
            PriceRule(sku=f"sku-{meter}", meter=meter, unit=unit, price=f"{price}7")
            for meter, unit, price in PRICES
        )
        self._ask(self.admin, PublishPriceList(currency="EUR", rules=rules, valid_from=CHANGE))
        self._flush()

    def _made(self, count: int) -> list[tuple[str, str]]:
        made: list[tuple[str, str]] = []
        for _ in range(count):
            who = self.people[min(int(self.random.expovariate(0.1)), len(self.people) - 1)]
            flavor = self.random.choices(self.flavors, (6, 3, 1))[0]
            wish = CreateServer(name="web", flavor_id=flavor, image_id=self.image)
            made.append((str(self._ask(who, wish)["server_id"]), who.project_id))
            self._report()
        self._flush()
        return made

    def sealed(self) -> Iterator[Ready]:
        """Yield (sequence, commit, what the timeline says of its ordinals), to the month's end."""
        yield from self._ready
        chance, servers = random.Random(self.random.random()), self._running
        boots = [1] * len(servers)
        pause = (END - self.now - HOUR) // self._facts
        for first in range(0, self._facts, IN_COMMIT):
            facts: list[bytes] = []
            about: list[AboutRow] = []
            self._sequence += 1
            request = f"req-{chance.getrandbits(128):032x}"
            ordinal = self._first
            told = ("", request, "", "accepted", "", "")
            about.append((ordinal, "request", "ReportOperation", "", "", "", *told))
            for _ in range(min(IN_COMMIT, self._facts - first)):
                self.now += 1 + int(chance.random() * 2 * (pause - 1))
                at = int(chance.random() * len(servers))
                server, project = servers[at]
                boot = boots[at]
                ordinal += 1
                if boot > 0:
                    boots[at] = -boot
                    tag = "compute.server.stopped.v1"
                    facts.append(
                        b'{"boot":%d,"cause":"request","observed_at":%d,"server_id":"%b","type":"%b"}'
                        % (boot, self.now, server.encode(), tag.encode())
                    )
                else:
                    boots[at] = 1 - boot
                    tag = "compute.server.started.v1"
                    facts.append(
                        b'{"boot":%d,"observed_at":%d,"server_id":"%b","type":"%b"}'
                        % (1 - boot, self.now, server.encode(), tag.encode())
                    )
                about.append((ordinal, "fact", tag, "server", server, project, *("",) * 6))
            record = (
                b'{"facts":[%b],"request":{"action":{"generation":1,"operation_id":"batch",'
                b'"succeeded":true,"type":"ReportOperation"},"actor":{"host_id":"host-000",'
                b'"kind":"agent"},"client":{},"request_id":"%b","submitted_at":%d},"salt":"%032x",'
                b'"verdict":{"reply":{},"rule":"","verdict":"accepted"}}'
                % (b",".join(facts), request.encode(), self.now, chance.getrandbits(128))
            )
            commit = f"{chance.getrandbits(128):032x}"
            data, self._hash = seal_commit(commit, self._first, self._hash, 1, self.now, [record])
            self._first = ordinal + 1
            yield self._sequence, data, about


def write(directory: Path, facts: int, seed: int) -> History:
    """Seal such a month, if it is not there yet."""
    history = History(directory / "history")
    done = directory / "done"
    if done.exists():
        return history
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for chunk in _chunks(Switching(facts, seed).sealed()):
        with closing(sqlite3.connect(":memory:")) as timeline:
            timeline.execute(TIMELINE)
            timeline.executemany(
                "INSERT INTO timeline VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (row for _, _, rows in chunk for row in rows),
            )
            commits = [(seq, data) for seq, data, _ in chunk]
            history.seal(commits, timeline, ordinals_max=2**40, through=2**62)
    done.write_text("")
    return history


def _chunks(commits: Iterator[Ready]) -> Iterator[list[Ready]]:
    """Gather commits as segments hold them: of one day, and not too many."""
    chunk: list[Ready] = []
    ordinals = day = 0
    for each in commits:
        of = msgspec.json.decode(each[1], type=_At).at // DAY
        if chunk and (ordinals >= SEGMENT or of != day):
            yield chunk
            chunk, ordinals = [], 0
        chunk.append(each)
        ordinals += len(each[2])
        day = of
    if chunk:
        yield chunk


class _At(Struct):
    at: Micros
