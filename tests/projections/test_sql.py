"""SQL over history: every acknowledged ordinal, one's own rows alone, and nothing else at all."""

import asyncio
import csv
import io
import itertools
import json
import re
from decimal import Decimal
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import pytest

from engine.domain.compute.evolve import evolve_server
from projections.archive import Archive, Window
from projections.history import History
from projections.models import decode_fact
from projections.redaction import without_ciphertext
from projections.sql import queries as module
from projections.sql.child import TooMuch
from projections.sql.queries import Queries, TooManyQueries
from projections.sql.question import Limits, Question
from projections.sql.statement import check
from projections.sql.views import SHOWN, VIEWS
from schemas import compute as c
from schemas.config import Config
from schemas.errors import InvalidInput, Rejected, Unavailable
from tests.projections.story import Story, a_small_story, reading


class World:
    """A story of which a part is sealed, and who asks about it."""

    def __init__(self, directory: Path, story: Story | None = None) -> None:
        self.story = story or a_small_story()
        self.config = Config(state_dir=str(directory), node="n", sql_s=20.0, sql_memory_mib=128)
        self.reader = reading(self.story, directory / "read" / "n.sqlite")
        self.history = History(directory / "history")
        self.archive = Archive(self.history, self.story.read, self.reader)
        self.head = self.story.cell.state.ordinal
        self.archive.seal(30, self.head - 40)
        self.queries = Queries(self.config)

    def found(self, sql, project=None, *, form="json", through=None, queries=None, given=None):
        """Ask, and return what the answer's file holds."""

        async def ask():
            found = await (queries or self.queries).ask(
                sql,
                user="u",
                project=project,
                through=self.head if through is None else through,
                form=form,
                given=given,
            )
            return found, b"".join([chunk async for chunk in found.chunks()])

        return asyncio.run(ask())

    def rows(self, sql, project=None, **more):
        found, data = self.found(sql, project, **more)
        rows = [list(row.values()) for row in json.loads(data)]
        assert len(rows) == found.rows
        return rows


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("sql"))
    yield made
    made.reader.close()


@pytest.fixture(autouse=True)
def closed():
    """Keep what the module's story opened: it is closed with the module."""
    return


def test_events_are_the_timeline_sealed_or_not(world):
    """Every ordinal that was acknowledged is there once, with what the event feed shows of it."""
    rows = world.rows(
        "SELECT ordinal, kind, tag, resource_id, project_id, user_id, request_id, verdict, code, "
        "body FROM events ORDER BY ordinal"
    )

    told = world.reader.events(limit=10_000)
    assert len(world.history.segments()) > 1
    assert world.history.segments()[-1].last < world.head
    assert [row[0] for row in rows] == list(range(1, world.head + 1))
    for row, event in zip(rows, told, strict=True):
        assert row == [
            event.ordinal, event.kind, event.tag, event.resource_id, event.project_id,
            event.user_id, event.request_id, event.outcome, event.code,
            bytes(without_ciphertext(event.body)).decode(),
        ]  # fmt: skip


def test_an_answer_goes_as_far_as_was_asked(world):
    (last,) = world.rows("SELECT max(ordinal) FROM events", through=world.head - 3)

    assert last == [world.head - 3]


def test_a_project_sees_its_own_rows_alone(world):
    story = world.story
    for project in (story.demo.project_id, story.other.project_id):
        (row,) = world.rows(
            "SELECT count(*), min(project_id), max(project_id) FROM events", project
        )

        expected = world.reader.events(limit=10_000, project_id=project)
        assert row == [len(expected), project, project]
    assert world.rows("SELECT * FROM events", "nobody") == []


def test_who_asked_for_what(world):
    rows = world.rows(
        "SELECT action, code, reason, ordinal FROM requests WHERE verdict = 'refused' "
        "AND resource_kind = 'server'"
    )

    assert ["DeleteServer", "NotFound"] in [row[:2] for row in rows]
    assert all(reason for _, _, reason, _ in rows)


def test_servers_history_says_what_each_was_and_when(world):
    story = world.story

    rows = world.rows(
        "SELECT status, since, until FROM servers_history "
        f"WHERE server_id = '{story.first}' ORDER BY ordinal",
        story.demo.project_id,
    )
    (open_rows,) = world.rows("SELECT count(*) FROM servers_history WHERE until IS NULL")
    servers = {
        event.resource_id
        for event in world.reader.events(limit=10_000)
        if event.tag == "compute.server.created.v1"
    }

    statuses = [row[0] for row in rows]
    assert [s for s, before in zip(statuses, ["", *statuses], strict=False) if s != before] == [
        "BUILD", "ACTIVE", "SHUTOFF", "ACTIVE",
    ]  # fmt: skip
    assert all(one[2] == other[1] for one, other in itertools.pairwise(rows))
    assert open_rows == [len(servers)]


def test_servers_history_says_what_the_api_showed(tmp_path):
    """After each fact about a server, its status is what the read model folds it to."""
    story = a_small_story()
    big = story.flavor(name="big", vcpus=2, memory_mib=1024)
    web = c.ResizeServer(server_id=story.first, flavor_id=big)
    back = c.RevertServerResize(server_id=story.first)

    def ended(action, **fields):
        operation = story.ok(story.demo, action)["operation_id"]
        story.report(operation, **fields)

    ended(web, succeeded=False, running=True)
    ended(web, running=True)
    ended(back, succeeded=False, running=True)
    ended(back, running=True)
    ended(c.RebootServer(server_id=story.first, hard=True), running=True)
    made = World(tmp_path, story)
    folded = []
    server = None
    for event in made.reader.events(limit=10_000, resource_id=story.first):
        if event.kind == "fact" and event.tag.startswith("compute.server."):
            fact = decode_fact(event.body)
            server = evolve_server(server, fact, event.at)
            folded.append((event.ordinal, server.status))
    changes = [
        [ordinal, status]
        for (ordinal, status), (_, before) in itertools.pairwise([*folded[::-1], (0, "")])
        if status != before
    ][::-1]

    told = made.rows(
        f"SELECT ordinal, status FROM servers_history WHERE server_id = '{story.first}' "
        "ORDER BY ordinal"
    )

    seen = [row for row, before in zip(told, [[0, ""], *told], strict=False) if row[1] != before[1]]
    assert seen == changes
    assert {"VERIFY_RESIZE", "REVERT_RESIZE", "RESIZE", "HARD_REBOOT"} <= {s for _, s in seen}
    made.reader.close()


def test_views_have_the_columns_that_are_documented(world):
    for view in VIEWS:
        given = {} if view.given is None else {view.name: []}
        found, _ = world.found(f"SELECT * FROM {view.name} LIMIT 0", given=given)

        assert [(c.name, c.type) for c in found.columns] == [
            (c.name, c.type) for c in view.columns
        ], view.name


def test_the_documentation_names_every_view_and_column():
    lines = (Path(__file__).parents[2] / "docs" / "history.md").read_text().splitlines()

    for view in VIEWS:
        (line,) = (line for line in lines if line.startswith(f"| `{view.name}` |"))
        assert re.findall(r"`(\w+)`", line)[1:] == [column.name for column in view.columns]


def test_usage_and_charges_are_what_the_archiver_says(world):
    """Every row as `usage` and `bill` tell it, to the last digit."""
    now, project = world.story.now, world.story.demo.project_id
    used = msgspec.to_builtins(world.archive.usage(Window(project=project), now))
    billed = msgspec.to_builtins(world.archive.bill(Window(project=project), now))
    views = {view.name: view for view in VIEWS}
    given = {
        "usage": list(views["usage"].given.rows(used)),
        "charges": list(views["charges"].given.rows(billed)),
    }

    rows = world.rows(
        "SELECT resource_id, meter, value, quantity, first_ordinal, epoch_us(since) FROM usage",
        project,
        given=given,
    )
    (total,) = world.rows("SELECT sum(amount), count(*) FROM charges", project, given=given)

    told = [
        [
            row["resource_id"], row["meter"], str(row["value"]), Decimal(row["quantity"]),
            row["first_ordinal"], row["start"],
        ]
        for row in used["usage"]
    ]  # fmt: skip
    assert sorted([*row[:3], Decimal(row[3]), *row[4:]] for row in rows) == sorted(told)
    assert Decimal(total[0]) == Decimal(billed["bills"][0]["subtotal"])
    assert total[1] > 0
    with pytest.raises(InvalidInput, match="past"):
        world.rows("SELECT * FROM usage", project)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT tag, count(*) AS n FROM events GROUP BY ALL ORDER BY n, tag",
        "SELECT action, verdict FROM requests ORDER BY ordinal",
        "SELECT e.tag, r.action FROM events e JOIN requests r USING (request_id) ORDER BY ALL",
        "SELECT count(*), count(body) FROM events",
        "SELECT events FROM events ORDER BY ordinal",
        "SELECT row_of FROM (FROM events) AS row_of ORDER BY ordinal",
        "SELECT COLUMNS('b.*') FROM events ORDER BY ordinal",
        "SELECT count(*) FROM events a NATURAL JOIN events b",
        "SELECT status, name FROM servers_history ORDER BY ordinal",
        "SELECT (SELECT count(*) FROM servers_history), count(*) FROM requests",
        "SELECT reason FROM requests WHERE verdict = 'refused' ORDER BY ordinal",
    ],
)
def test_a_project_is_answered_as_if_all_was_copied(world, sql, monkeypatch, tmp_path):
    """What a question does not look at is not copied; it must not be missed."""
    from projections.sql import child
    from projections.sql.statement import Asked

    project = world.story.demo.project_id
    expected = world.rows(sql, project)
    everything = frozenset(view.name for view in VIEWS if view.given is None)
    monkeypatch.setattr(child, "check", lambda *_: Asked(views=everything, bodies=True))
    question = Question(
        sql=sql,
        project=project,
        segments=tuple(sealed for sealed, _ in world.queries._segments()),
        sealed=world.history.segments()[-1].last,
        through=world.head,
        read_model=str(world.config.state_dir) + "/read/n.sqlite",
        scratch=str(tmp_path),
    )

    assert child.answer(question).code == ""

    whole = json.loads((tmp_path / "answer").read_bytes())
    assert [list(row.values()) for row in whole] == expected


def test_bodies_are_copied_for_who_looks_at_them_only(parser):
    for sql, bodies in (
        ("SELECT tag, count(*) AS n FROM events e WHERE e.day > '2026-01-01' ORDER BY n", False),
        ("SELECT action FROM requests", False),
        ("SELECT * FROM events", True),
        ("SELECT e FROM events e", True),
        ("SELECT agent FROM requests", True),
        ("SELECT status FROM servers_history", True),
        ("SUMMARIZE events", True),
    ):
        assert check(parser, sql).bodies is bodies, sql
    assert check(parser, "SELECT 1").views == frozenset()
    assert check(parser, "FROM Requests").views == {"requests"}


def test_exact_numbers_are_text_and_times_are_utc(world):
    (row,) = world.rows(
        "SELECT 1.10::DECIMAL(38, 12), sum(2::BIGINT), TIMESTAMP '2026-02-28 23:59:59.5', NULL"
    )

    assert row == ["1.100000000000", "2", "2026-02-28T23:59:59.500000Z", None]


def test_what_is_no_number_is_null_in_json(world):
    sql = "SELECT 'nan'::DOUBLE, -1e308 * 10, 0.5::FLOAT, NULL::DOUBLE"
    _, data = world.found(sql)

    def refuse(constant):
        raise AssertionError(constant)

    (row,) = json.loads(data, parse_constant=refuse)
    assert list(row.values()) == [None, None, 0.5, None]


def test_no_text_in_csv_is_a_formula(world):
    sql = (
        "SELECT unnest(['=1+1', '-x', '@SUM(A1)', chr(9) || '=1', 'plain', '', NULL]) AS \"a b\", "
        "-1.5::DECIMAL(4, 1) AS n, ['=x'] AS l"
    )
    _, data = world.found(sql, form="csv")
    rows = list(csv.reader(io.StringIO(data.decode())))

    assert rows[0] == ["a b", "n", "l"]
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'-x", "'@SUM(A1)", "'\t=1", "plain", "", ""]
    assert {row[1] for row in rows[1:]} == {"-1.5"}
    for form in ("json", "parquet"):
        assert b"'=1+1" not in world.found(sql, form=form)[1]


def test_answers_are_files_of_the_format_asked_for(world, tmp_path):
    sql = "SELECT ordinal, ts, tag, body FROM events ORDER BY ordinal"
    expected = world.rows("SELECT ordinal, tag, body FROM events ORDER BY ordinal")

    for form in ("csv", "parquet"):
        path = tmp_path / f"answer.{form}"
        path.write_bytes(world.found(sql, form=form)[1])
        rows = duckdb.execute(f"SELECT ordinal, tag, body FROM '{path}'").fetchall()
        assert [list(row) for row in rows] == expected, form
    with pa.ipc.open_stream(world.found(sql, form="arrow")[1]) as stream:
        found = stream.read_all().to_pydict()
    assert list(map(list, zip(found["ordinal"], found["tag"], found["body"], strict=True))) == (
        expected
    )
    with (tmp_path / "answer.csv").open() as file:
        assert next(csv.reader(file)) == ["ordinal", "ts", "tag", "body"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":{"ciphertext":"c","key_id":"k","nonce":"n","wrapped_key":"w"},"b":1}',
        b'[{"ciphertext":"","key_id":"","nonce":"","wrapped_key":""},{"ciphertext":"c"}]',
        (
            b'{"text":"{\\"ciphertext\\":\\"c\\",\\"key_id\\":\\"k\\",\\"nonce\\":\\"n\\",'
            b'\\"wrapped_key\\":\\"w\\"}"}'
        ),
        b'{"ciphertext":{"ciphertext":"c","key_id":"k","nonce":"n","wrapped_key":"w"}}',
        b'{"plain":true}',
    ],
)
def test_ciphertext_is_left_out_as_in_the_feed(body):
    row = duckdb.execute(f"SELECT {SHOWN} FROM (SELECT ? AS body)", [body.decode()]).fetchone()

    assert row[0].encode() == bytes(without_ciphertext(msgspec.Raw(body)))


def test_nothing_that_was_sealed_is_shown(world):
    for project in (None, world.story.admin.project_id):
        assert world.rows("SELECT * FROM events WHERE contains(body, 'ciphertext')", project) == []
    assert any(b'"ciphertext"' in data for _, data in world.story.commits)


REFUSED = [
    "INSERT INTO events VALUES (1)",
    "DELETE FROM events",
    "UPDATE events SET tag = ''",
    "DROP VIEW events",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP TABLE t AS SELECT * FROM events",
    "CREATE MACRO m() AS 1",
    "CREATE SECRET s (TYPE s3)",
    "COPY events TO '/tmp/cumulog-stolen.csv'",
    "COPY (SELECT 1) TO '/tmp/cumulog-stolen.csv'",
    "EXPORT DATABASE '/tmp/cumulog-stolen'",
    "ATTACH '/tmp/cumulog-stolen.db' AS other",
    "DETACH memory",
    "USE memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 64",
    "SET memory_limit = '100GB'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET threads",
    "PRAGMA database_list",
    "PRAGMA enable_external_access",
    "CALL pragma_version()",
    "VACUUM",
    "CHECKPOINT",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN ANALYZE SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE events",
    "SELECT * FROM events; COPY events TO '/tmp/cumulog-stolen.csv'",
    "WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone",
    "WITH new AS (INSERT INTO events VALUES (1) RETURNING *) SELECT * FROM new",
    "WITH set AS (UPDATE events SET tag = '' RETURNING *) SELECT * FROM set",
    "SELECT * FROM (WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone)",
    "",
    "-- nothing",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_parquet('{segment}')",
    "SELECT * FROM parquet_metadata('{segment}')",
    "SELECT * FROM parquet_schema('{segment}')",
    "SELECT * FROM parquet_scan('{segment}')",
    "SELECT * FROM '{segment}'",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '{state}/run/engine.json'",
    "SELECT * FROM read_json('{state}/cell.json')",
    "SELECT * FROM read_ndjson_objects('{state}/cell.json')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM 'https://example.org/x.parquet'",
    "SELECT * FROM sqlite_scan('{state}/read/n.sqlite', 'timeline')",
    "SELECT * FROM (SELECT * FROM read_text('/etc/passwd'))",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT 1 WHERE EXISTS (FROM glob('/etc/*'))",
    "WITH w AS (FROM read_text('/etc/passwd')) FROM w",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM query_table('/etc/passwd')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT current_setting('temp_directory')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_settings",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_database_list()",
    "SELECT * FROM duckdb_logs",
    "SELECT * FROM which_secret('x', 's3')",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM pg_class",
    "SELECT * FROM main.duckdb_views",
    "SELECT * FROM system.main.duckdb_databases",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM tail",
    "SELECT * FROM temp.tail",
    "SELECT * FROM (WITH duckdb_databases AS (SELECT 1) FROM duckdb_databases), duckdb_databases",
    "SELECT getenv('HOME')",
    "SELECT current_query()",
    "SELECT pg_sleep(1)",
    "SELECT system.main.read_text('/etc/passwd')",
    "SELECT * FROM system.main.read_text('/etc/passwd')",
    "SELECT list_transform(['/etc/passwd'], lambda f: (SELECT content FROM read_text(f)))",
    "FROM (DESCRIBE SELECT * FROM read_text('/etc/passwd'))",
    "SUMMARIZE SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM memory.main.events",
    "SELECT * FROM given_usage",
    "SELECT * FROM create_external_resource('x')",
    "SELECT * FROM enable_logging()",
    "SHOW TABLES FROM system",
    "SELECT 1) TO '/tmp/cumulog-stolen.csv' (FORMAT csv); --",
    "SELECT 1 INTO OUTFILE '/tmp/cumulog-stolen.csv'",
    "SHOW DATABASES",
    "SHOW ALL TABLES",
    "DESCRIBE duckdb_settings",
    "SUMMARIZE pg_class",
    "SELECT * FROM question",
    "SELECT t.body FROM tail t, (WITH tail AS (SELECT 1 a) SELECT a FROM tail)",
    'SELECT t.* FROM "{segment}" t, (WITH "{segment}" AS (SELECT 1) SELECT 1)',
    "SELECT * FROM given_usage, (WITH given_usage AS (SELECT 1) FROM given_usage)",
    "SELECT * FROM sys",
]  # fmt: skip


@pytest.fixture(scope="module")
def parser():
    with duckdb.connect() as db:
        yield db


@pytest.fixture(scope="module")
def places(world):
    segment = world.history.path(world.history.segments()[0])
    return {"segment": str(segment), "state": str(world.config.state_dir)}


@pytest.mark.parametrize("sql", REFUSED)
def test_nothing_but_a_select_of_the_views_may_be_asked(parser, places, sql):
    with pytest.raises(InvalidInput) as refused:
        check(parser, sql.format(**places))

    assert refused.value.reason
    assert "\n" not in refused.value.reason


ALLOWED = [
    "SELECT * FROM events",
    'FROM "Events"',
    "TABLE requests",
    "VALUES (1)",
    "DESCRIBE events",
    "SUMMARIZE requests",
    "SELECT unnest([1, 2])",
    "SELECT * FROM range(3) t(i), LATERAL (SELECT i + 1)",
    "WITH a AS (FROM events), b AS (FROM a) SELECT count(*) FROM a JOIN b USING (ordinal)",
    "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t WHERE i < 9) FROM t",
    "SELECT * FROM (PIVOT requests ON verdict IN ('accepted') USING count(*))",
    (
        "SELECT a.ordinal, 1::DECIMAL(9, 2), CAST(ts AS DATE), {'a': [1]}, CASE WHEN true THEN 1 "
        "END, x IN (FROM range(2)), list_transform([1], lambda y: y + 1), count(*) "
        "FILTER (kind = 'fact') OVER (PARTITION BY tag ORDER BY ordinal DESC "
        "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) "
        "FROM events a ASOF JOIN requests b ON a.ordinal >= b.ordinal "
        "WHERE NOT a.kind LIKE 'x' GROUP BY ALL HAVING true ORDER BY 1 NULLS LAST LIMIT 10 OFFSET 2"
    ),
    "SELECT DISTINCT ON (tag) * EXCLUDE (body) FROM events QUALIFY row_number() OVER () < 9",
    "SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3 INTERSECT SELECT 4",
    "SELECT * FROM events TABLESAMPLE 10%",
    "SELECT json_extract_string(body, '$.type'), date_trunc('hour', ts) FROM events; -- that is it",
]


@pytest.mark.parametrize("sql", ALLOWED)
def test_a_select_of_the_views_may_be_asked(parser, sql):
    check(parser, sql)


def test_who_may_not_ask_it_is_told_so_by_the_process_too(world, places):
    for sql in ("DROP VIEW events", "SELECT * FROM read_parquet('{segment}')", "SELECT nothing"):
        for project in (None, world.story.demo.project_id):
            with pytest.raises(InvalidInput):
                world.found(sql.format(**places), project)


@pytest.mark.parametrize("sql", [s for s in REFUSED if s.startswith(("SELECT", "WITH", "FROM"))])
def test_the_database_itself_is_locked(world, places, sql, tmp_path, monkeypatch):
    """Were the statement not looked at, what a project's process could reach is still its own."""
    from projections.sql import child
    from projections.sql.statement import Asked

    views = frozenset(view.name for view in VIEWS if view.given is None)
    monkeypatch.setattr(child, "check", lambda *_: Asked(views=views, bodies=True))
    project = world.story.demo.project_id
    question = Question(
        sql=sql.format(**places),
        project=project,
        segments=tuple(sealed for sealed, _ in world.queries._segments()),
        sealed=world.history.segments()[-1].last,
        through=world.head,
        read_model=str(world.config.state_dir) + "/read/n.sqlite",
        scratch=str(tmp_path),
        limits=Limits(memory_mib=64, threads=1),
    )

    told = child.answer(question)

    data = (tmp_path / "answer").read_text() if (tmp_path / "answer").exists() else ""
    assert world.story.other.project_id not in data
    assert "root:" not in data
    assert "ciphertext" not in data
    assert told.code or not any(
        word in sql for word in ("read_", "glob(", "parquet_", "sqlite_scan", "'/", "https:")
    )


def test_what_runs_away_is_ended(world):
    config = msgspec.structs.replace(world.config, sql_s=1.5, sql_rows_max=5000, sql_answer_mib=1)
    queries = Queries(config)
    for sql, why in (
        ("WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT max(i) FROM t",
         "longer than"),
        ("SELECT count(*) FROM events a, events b, events c, events d, events e, range(1000)",
         "longer than"),
        ("SELECT i FROM range(1000000) t(i)", "rows"),
        ("SELECT repeat('x', 1000) || i FROM range(4000) t(i)", "MiB"),
        ("SELECT list(i) FROM range(1000000000) t(i)", "MiB|processor|longer"),
        ("SELECT repeat('x', 2000000000) || repeat('y', 2000000000)", "MiB|processor|longer"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=why) as ended:
            world.found(sql, world.story.demo.project_id, queries=queries)
        assert isinstance(ended.value, TooMuch | InvalidInput), sql
    assert list((Path(config.state_dir) / "sql").iterdir()) == []


@pytest.mark.parametrize(
    "sql",
    ["SELECT ';' -- é;", " SELECT ';';; ", "/* é; */ SELECT ';' /* ; */ ; -- that; is\n -- it"],
)
def test_what_stands_at_the_end_does_not_matter(world, sql):
    assert world.rows(sql) == [[";"]]


def test_a_process_that_is_killed_is_told_of(world, monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/bin/false")

    with pytest.raises(TooMuch):
        world.found("SELECT 1")

    assert list((Path(world.config.state_dir) / "sql").iterdir()) == []


def test_one_user_asks_no_more_than_so_much_at_once(world):
    async def many():
        asked = [
            world.queries.ask("SELECT 1", user="u", project=None, through=world.head, form="json")
            for _ in range(module.OF_ONE_MAX + 1)
        ]
        return await asyncio.gather(*asked, return_exceptions=True)

    told = asyncio.run(many())

    assert [type(each) for each in told].count(TooManyQueries) == 1
    for each in told:
        if not isinstance(each, TooManyQueries):
            each.file.close()


def test_segments_that_are_merged_away_meanwhile_are_looked_for_anew(world, monkeypatch):
    listed = world.queries._segments()
    gone = msgspec.structs.replace(listed[0][0], path=str(world.history.directory / "gone.parquet"))
    answers = iter([[(gone, listed[0][1]), *listed[1:]]])
    real = world.queries._segments
    monkeypatch.setattr(world.queries, "_segments", lambda: next(answers, None) or real())

    assert world.rows("SELECT count(*) FROM events") == [[world.head]]


def test_nobody_is_answered_from_an_altered_segment(tmp_path):
    own = World(tmp_path)
    try:
        path = own.history.path(own.history.segments()[1])
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

        with pytest.raises(Unavailable, match="other bytes"):
            own.rows("SELECT 1")
    finally:
        own.reader.close()


def test_what_a_killed_edge_left_is_removed(world):
    left = Path(world.config.state_dir) / "sql" / "4194999-1"
    left.mkdir(parents=True)
    (left / "answer").write_text("x")

    world.rows("SELECT 1")

    assert not left.exists()
