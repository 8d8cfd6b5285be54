"""What a month's bill costs over millions of stops and starts.

Run: ``script/bench bill`` (200,000 facts), ``script/bench bill -- --facts 10000000`` for the full
run (some 2 GB under ``var/bench``, a quarter of an hour the first time; kept for the next one).

CPU-seconds of three ways to the same totals by customer and sku, which must be equal to the last
digit; each piece is priced exactly and rounded once, cut at midnights and at a change of prices:

- ours: the books' answer, from the intervals that the archiver keeps. What keeping them costs,
  once for each fact, is told beside it; ``--first`` measures it anew.
- bare DuckDB over the same segments (one thread, as ours): facts paired by a window, cut, summed.
  Aim: ours at most 1.5 times it.
- the same in SQLite, over a table of those facts that is loaded before the clock runs. Aim: ours
  takes 2.5 times less.

The month is closed as well, with each row drawn up and digested.

``--growth 1000000,3000000,10000000`` asks ours alone at each size, rising, and draws
``docs/figures/bill.svg``: CPU and the most memory that the process had taken by then.
"""

import argparse
import functools
import gc
import resource
import shutil
import sqlite3
import time
from collections.abc import Callable
from decimal import Decimal
from math import gcd
from pathlib import Path

import duckdb
import pygal

from benchmarks.switching import END, MONTH, START, write
from projections.archive import Archive
from projections.books import Books, opened
from projections.history import History
from schemas.units import DAY, HOUR

STARTED, STOPPED = "compute.server.started.v1", "compute.server.stopped.v1"
METERS = {"compute.vcpu": HOUR, "compute.memory": HOUR * 1024, "compute.disk": HOUR}

FIGURE = Path(__file__).resolve().parent.parent / "docs/figures/bill.svg"

GRACE = 48 * HOUR

type Totals = dict[tuple[str, str], Decimal]


def archive_of(directory: Path, history: History) -> Archive:
    """Return an archive over sealed segments alone; nothing asks its reader."""
    return Archive(history, history.commits_after, None, directory / "metering")  # type: ignore[arg-type]


def ours(archive: Archive) -> Totals:
    """Ask the books."""
    with opened(archive, END + HOUR) as books:
        documents = books.month(MONTH).documents
    found: Totals = {}
    for customer_id, document in documents.items():
        for line in document.lines:
            if line.category == "Usage":
                key = customer_id, line.sku
                found[key] = found.get(key, Decimal(0)) + Decimal(line.amount)
    return found


def close(archive: Archive) -> int:
    """Derive what the month would be closed with; return how many rows that took."""
    with opened(archive, END + GRACE) as books:
        return sum(invoice.rows for invoice in books.closing(MONTH).invoices)


def rates(books: Books) -> list[tuple[str, str, str, int, int, int, int]]:
    """Return (project, customer, meter, since, until, numerator, denominator) for 10**-6 EUR."""
    state = books.past().state
    found = []
    for project_id, payers in state.payers.items():
        (payer,) = payers
        terms = state.customers[payer.customer_id][-1]
        versions = state.price_lists[terms.price_list]
        off = Decimal(terms.discounts[0].percent) if terms.discounts else Decimal(0)
        for version, after in zip(versions, [*versions[1:], None], strict=True):
            for rule in version.rules:
                if rule.meter not in METERS:
                    continue
                price = Decimal(rule.price or 0) * (100 - off) * 10**4
                top, bottom = price.as_integer_ratio()
                bottom *= METERS[rule.meter]
                by = gcd(top, bottom)
                since = max(START, version.valid_from)
                until = END if after is None else after.valid_from
                row = (project_id, payer.customer_id, rule.meter, since, until)
                found.append((*row, top // by, bottom // by))
    return found


# In both dialects: {int} is a 64-bit integer, // the whole quotient.
QUERY = """
WITH switched AS (
    SELECT server_id, started, seen,
        lead(seen) OVER (PARTITION BY server_id ORDER BY ordinal) AS next
    FROM facts
), ran AS (
    SELECT server_id, seen, coalesce(next, {end}) AS until FROM switched WHERE started
), existed AS (
    SELECT server_id, min(seen) AS seen, {end} AS until
    FROM switched WHERE started GROUP BY server_id
), held AS (
    SELECT project_id, 'compute.vcpu' AS meter, vcpus AS value, seen, until
    FROM ran JOIN servers USING (server_id)
    UNION ALL SELECT project_id, 'compute.memory', memory, seen, until
    FROM ran JOIN servers USING (server_id)
    UNION ALL SELECT project_id, 'compute.disk', disk, seen, until
    FROM existed JOIN servers USING (server_id)
), pieces AS (
    SELECT project_id, meter, value, seen, until FROM held
    WHERE seen {div} {day} = (until - 1) {div} {day}
    UNION ALL
    SELECT project_id, meter, value, {greatest}(seen, begins), {least}(until, begins + {day})
    FROM held JOIN days ON begins > seen - {day} AND begins < until
    WHERE seen {div} {day} <> (until - 1) {div} {day}
), priced AS (
    SELECT customer_id, pieces.meter,
        value * ({least}(pieces.until, rates.until) - {greatest}(seen, since)) * top AS cost, bottom
    FROM pieces JOIN rates ON rates.project_id = pieces.project_id AND rates.meter = pieces.meter
        AND seen < rates.until AND pieces.until > since
)
SELECT customer_id, meter, sum(cost {div} bottom + CASE
    WHEN 2 * (cost % bottom) > bottom
        OR (2 * (cost % bottom) = bottom AND (cost {div} bottom) % 2 = 1) THEN 1 ELSE 0 END)
FROM priced GROUP BY customer_id, meter
"""


def bare(history: History, table: list[tuple[object, ...]]) -> Totals:
    """Ask DuckDB alone, over the segments."""
    files = [str(history.path(segment)) for segment in history.segments()]
    with duckdb.connect(config={"threads": 1, "memory_limit": "2GiB"}) as db:
        db.execute("SET temp_directory = 'var/bench/spilled'")
        db.execute(
            "CREATE TABLE rates (project_id VARCHAR, customer_id VARCHAR, meter VARCHAR, "
            "since BIGINT, until BIGINT, top BIGINT, bottom BIGINT)"
        )
        db.executemany("INSERT INTO rates VALUES (?,?,?,?,?,?,?)", table)
        db.execute(f"CREATE TABLE days AS SELECT unnest(range({START}, {END}, {DAY})) AS begins")
        db.execute(
            "CREATE TABLE servers AS SELECT resource_id AS server_id, project_id, "
            "(body->>'$.server.flavor.vcpus')::BIGINT AS vcpus, "
            "(body->>'$.server.flavor.memory_mib')::BIGINT AS memory, "
            "(body->>'$.server.flavor.disk_gib')::BIGINT AS disk "
            "FROM read_parquet(?) WHERE tag = 'compute.server.created.v1'",
            [files],
        )
        names = ", ".join(f"'{name}'" for name in files)
        facts = (
            f"(SELECT resource_id AS server_id, ordinal, tag = '{STARTED}' AS started, "  # noqa: S608  # our own
            f"(body->>'$.observed_at')::BIGINT AS seen FROM read_parquet([{names}]) "
            f"WHERE tag IN ('{STARTED}', '{STOPPED}'))"
        )
        sql = _said(div="//", greatest="greatest", least="least")
        sql = sql.replace("FROM facts", f"FROM {facts}")
        return _totals(db.execute(sql).fetchall())


def loaded(history: History, table: list[tuple[object, ...]], path: Path) -> sqlite3.Connection:
    """Put the facts into SQLite, in the order in which they are asked for."""
    path.unlink(missing_ok=True)
    files = [str(history.path(segment)) for segment in history.segments()]
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("CREATE TABLE facts (server_id, ordinal INTEGER, started INTEGER, seen INTEGER)")
    db.execute("CREATE TABLE servers (server_id PRIMARY KEY, project_id, vcpus, memory, disk)")
    db.execute("CREATE TABLE days (begins INTEGER)")
    db.executemany("INSERT INTO days VALUES (?)", [(day,) for day in range(START, END, DAY)])
    db.execute("CREATE TABLE rates (project_id, customer_id, meter, since, until, top, bottom)")
    db.executemany("INSERT INTO rates VALUES (?,?,?,?,?,?,?)", table)
    with duckdb.connect(config={"threads": 1, "memory_limit": "1GiB"}) as source:
        source.execute(
            "SELECT resource_id, project_id, (body->>'$.server.flavor.vcpus')::BIGINT, "
            "(body->>'$.server.flavor.memory_mib')::BIGINT, "
            "(body->>'$.server.flavor.disk_gib')::BIGINT "
            "FROM read_parquet(?) WHERE tag = 'compute.server.created.v1'",
            [files],
        )
        db.executemany("INSERT INTO servers VALUES (?,?,?,?,?)", source.fetchall())
        source.execute(
            "SELECT resource_id, ordinal, (tag = ?)::INTEGER, (body->>'$.observed_at')::BIGINT "
            "FROM read_parquet(?) WHERE tag IN (?, ?)",
            [STARTED, files, STARTED, STOPPED],
        )
        while rows := source.fetchmany(50_000):
            db.executemany("INSERT INTO facts VALUES (?,?,?,?)", rows)
    db.execute("CREATE INDEX by_server ON facts (server_id, ordinal, started, seen)")
    db.commit()
    return db


def in_sqlite(db: sqlite3.Connection) -> Totals:
    """Ask SQLite."""
    return _totals(db.execute(_said(div="/", greatest="max", least="min")).fetchall())


def _said(**words: str) -> str:
    return QUERY.format(start=START, end=END, day=DAY, **words)


def _totals(rows: list[tuple[str, str, int]]) -> Totals:
    return {(row[0], f"sku-{row[1]}"): Decimal(f"{row[2]}E-6") for row in rows}


def main() -> None:
    """Measure and print."""
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)  # as the archiver has it
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--first", action="store_true", help="fold the facts anew")
    parser.add_argument("--without-sqlite", action="store_true")
    parser.add_argument("--growth", help="sizes, rising, with commas between")
    parser.add_argument("--directory", type=Path, default=Path("var/bench"))
    options = parser.parse_args()
    if options.growth:
        grow([int(size) for size in options.growth.split(",")], options.seed, options.directory)
        return
    place = options.directory / f"switching-{options.facts}-{options.seed}"
    history = write(place, options.facts, options.seed)
    if options.first:
        shutil.rmtree(place / "metering", ignore_errors=True)
    archive = archive_of(place, history)
    began = time.process_time()
    archive.holdings.advance()
    archive.holdings.keep()
    took = time.process_time() - began
    print(f"kept, once: {took:.1f} CPU-s, {1e6 * took / options.facts:.1f} us a fact")
    with opened(archive, END + HOUR) as books:
        table = rates(books)
    _tell_closing(archive)
    times: dict[str, list[float]] = {"ours": [], "bare": [], "sqlite": []}
    totals: dict[str, Totals] = {}
    peak = 0.0
    for _ in range(options.rounds):
        _timed(times, totals, "ours", lambda: ours(archive))
        peak = peak or _peak_mib()
        _timed(times, totals, "bare", lambda: bare(history, table))
    if not options.without_sqlite:
        db = loaded(history, table, place / "facts.sqlite")
        _timed(times, totals, "sqlite", lambda: in_sqlite(db))
        db.close()
    assert all(each == totals["ours"] for each in totals.values()), "the totals differ"
    print(f"{options.facts} facts, {len(totals['ours'])} totals, the same by each way")
    mine, floor = min(times["ours"]), min(times["bare"])
    print(
        f"ours: {mine:.2f} CPU-s, largest memory {peak:.0f} MiB  aim <= 2048 {_met(peak <= 2048)}"
    )
    is_met = mine <= 1.5 * floor
    print(f"bare DuckDB: {floor:.2f} CPU-s; ours {mine / floor:.2f} x  aim <= 1.5 {_met(is_met)}")
    if times["sqlite"]:
        theirs = min(times["sqlite"])
        ratio = theirs / mine
        print(f"SQLite: {theirs:.2f} CPU-s, {ratio:.1f} x ours  aim >= 2.5 {_met(ratio >= 2.5)}")


def _tell_closing(archive: Archive) -> None:
    """Before anything else has taken memory."""
    began = time.process_time()
    rows = close(archive)
    took, peak = time.process_time() - began, _peak_mib()
    print(
        f"closing: {took:.1f} CPU-s for {rows} rows, {1e6 * took / rows:.1f} us each, "
        f"largest memory {peak:.0f} MiB  aim <= 2048 {_met(peak <= 2048)}"
    )


def grow(sizes: list[int], seed: int, directory: Path) -> None:
    """Measure ours at each size, and draw it."""
    found: list[tuple[int, float, float, float]] = []
    for size in sizes:
        place = directory / f"switching-{size}-{seed}"
        archive = archive_of(place, write(place, size, seed))
        folding = _cpu(functools.partial(_fold, archive))
        drafting = min(_cpu(functools.partial(ours, archive)) for _ in range(2))
        closing = _cpu(functools.partial(close, archive))
        found.append((size, drafting, closing, _peak_mib()))
        print(
            f"{size:>11} facts: fold {folding:>6.1f}, drafts {drafting:>6.2f}, "
            f"closing {closing:>6.1f} CPU-s, {found[-1][3]:>5.0f} MiB",
            flush=True,
        )
    chart = pygal.XY(
        title="A month's bill over stops and starts",
        x_title="facts",
        xrange=(0, sizes[-1]),
        show_x_guides=True,
        js=[],
        height=400,
    )
    chart.add("drafts, CPU seconds", [(size, took) for size, took, _, _ in found])
    chart.add("closing, CPU seconds", [(size, took) for size, _, took, _ in found])
    chart.add("memory, MiB", [(size, peak) for size, _, _, peak in found], secondary=True)
    FIGURE.write_bytes(chart.render())
    print(f"drawn: {FIGURE}")


def _fold(archive: Archive) -> None:
    archive.holdings.advance()
    archive.holdings.keep()


def _cpu(do: Callable[[], object]) -> float:
    began = time.process_time()
    do()
    return time.process_time() - began


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _timed(
    times: dict[str, list[float]], totals: dict[str, Totals], name: str, ask: Callable[[], Totals]
) -> None:
    began = time.process_time()
    totals[name] = ask()
    times[name].append(time.process_time() - began)


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


if __name__ == "__main__":
    main()
