"""`POST /v1/sql` and `cumulog sql`: what was acknowledged is in the answer, and nobody else's."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

from tests.api.conftest import fresh

ROOT = Path(__file__).parents[2]


def ask(api, sql, path="/v1/sql", **more):
    return api("POST", path, {"sql": sql, **more})


def test_what_was_acknowledged_is_in_the_answer(cloud):
    for _ in range(5):
        name = fresh("net")
        network = cloud.demo.made("/network/v2.0/networks", {"network": {"name": name}})

        told = ask(
            cloud.demo,
            f"SELECT tag, project_id FROM events WHERE resource_id = '{network['id']}' "
            "AND kind = 'request'",
        )

        assert told.status == 200, told
        assert told.body["rows"] == [{"tag": "CreateNetwork", "project_id": network["project_id"]}]
        assert told.body["columns"][0] == {"name": "tag", "type": "VARCHAR", "about": ""}
        assert told.body["count"] == 1
        assert int(told.headers["x-cumulog-as-of"]) == told.body["ordinal"] > 0


def test_sealed_or_not_the_answer_is_the_same(cloud):
    sql = "SELECT ordinal, tag, body FROM events WHERE ordinal < 60 ORDER BY ordinal"
    before = ask(cloud.admin, sql).body["rows"]

    sealed = cloud.up.json("history", "seal")

    assert before
    assert sealed["segments"] > 0
    assert ask(cloud.admin, sql).body["rows"] == before


def test_history_says_how_far_it_reaches_and_that_it_is_the_log(cloud):
    cloud.up.json("history", "seal")
    status = cloud.up.json("history", "status")
    segments = cloud.up.json("history", "segments")
    verified = cloud.up.json("history", "verify")

    assert segments[-1]["last"] == status["sealed"] <= status["head"]
    assert verified["agree"]
    assert verified["sealed"] == status["sealed"]
    assert cloud.up.run("history", "seal", cloud="cumulog-demo").code != 0


def test_what_is_exported_while_history_is_sealed_is_whole(cloud, tmp_path):
    """Exports and answers, while changes are made and sealed one after the other."""
    file = tmp_path / "log.jsonl"
    keys = tmp_path / "cell.pub"
    keys.write_text(cloud.up.run("audit", "key").output)

    def change():
        for _ in range(8):
            cloud.demo.made("/network/v2.0/networks", {"network": {"name": fresh("net")}})
            assert cloud.admin("POST", "/v1/history/seal", {}).status == 200

    with ThreadPoolExecutor(1) as others:
        changing = others.submit(change)
        counts = []
        while not changing.done():
            sql = "SELECT count(*) AS n, max(ordinal) AS last FROM events"
            counts.append(ask(cloud.admin, sql))
            exported = cloud.up.run("log", "export", str(file))
            assert exported.code == 0, exported.errors
        changing.result()

    for told in counts:
        assert told.status == 200, told
        assert told.body["rows"] == [{"n": told.body["ordinal"], "last": told.body["ordinal"]}]
    verified = cloud.up.run("audit", "verify", "--export", str(file), "--key", str(keys))
    assert verified.code == 0, verified.output
    assert cloud.up.json("history", "verify")["agree"]


def test_years_of_history_are_read_by_another_program(cloud, tmp_path):
    """The example of the documentation, as it is printed: DuckDB alone, nothing of ours."""
    cloud.up.json("history", "seal")
    (example,) = re.findall(
        r"^```python\n(.*?)^```",
        (ROOT / "docs" / "history.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )

    done = subprocess.run(
        [sys.executable, "-I", "-c", example],
        env={"HISTORY": str(cloud.up.state_dir / "history"), "PATH": "/usr/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    (month, *_), *_ = (line.split() for line in done.stdout.splitlines())
    asked = "SELECT count(*) AS n FROM requests WHERE ordinal <= {}"
    (told,) = ask(cloud.admin, asked.format(cloud.up.json("history", "status")["sealed"])).body[
        "rows"
    ]
    assert re.fullmatch(r"\d{4}-\d\d", month)
    assert sum(int(line.split()[1]) for line in done.stdout.splitlines()) == told["n"]


def test_a_member_sees_its_project_alone_and_an_administrator_all(cloud):
    stranger = cloud.stranger()
    network = cloud.demo.made("/network/v2.0/networks", {"network": {"name": fresh("net")}})
    sql = f"SELECT count(*) AS n FROM events WHERE resource_id = '{network['id']}'"

    assert ask(stranger, sql).body["rows"] == [{"n": 0}]
    assert ask(cloud.demo, sql).body["rows"][0]["n"] > 0
    assert ask(cloud.admin, sql).body["rows"] == ask(cloud.demo, sql).body["rows"]
    own = f"/v1/sql?project={network['project_id']}"
    assert ask(cloud.admin, sql, own).body["rows"] == ask(cloud.demo, sql).body["rows"]
    assert ask(stranger, sql, own).status == 403
    (projects,) = ask(stranger, "SELECT count(DISTINCT project_id) AS n FROM events").body["rows"]
    assert projects == {"n": 1}


def test_what_may_not_be_asked_is_refused_in_plain_words(cloud):
    for sql, status, code in (
        ("DROP VIEW events", 400, "NotAllowed"),
        ("SELECT * FROM read_text('/etc/passwd')", 400, "NotAllowed"),
        ("SELECT nothing FROM events", 400, "InvalidInput"),
        ("this is no SQL", 400, "InvalidInput"),
        ("", 400, "InvalidInput"),
        ("SELECT i FROM range(2000000) t(i)", 422, "QueryTooLarge"),
    ):
        told = ask(cloud.demo, sql)

        assert (told.status, told.body["code"]) == (status, code), (sql, told)
        assert told.body["detail"], sql
    assert ask(cloud.demo, "SELECT 1", format="xml").status == 400
    assert cloud.anyone("POST", "/v1/sql", {"sql": "SELECT 1"}).status == 401


def test_usage_and_charges_can_be_asked(cloud):
    network = cloud.network(cloud.demo)
    server = cloud.server(cloud.demo, network["id"])
    of = f"resource_id = '{server['id']}'"

    used = ask(cloud.demo, f"SELECT meter, quantity FROM usage WHERE {of} ORDER BY 1").body["rows"]
    (cost,) = ask(cloud.demo, f"SELECT sum(amount) AS total FROM charges WHERE {of}").body["rows"]
    other = ask(cloud.stranger(), f"SELECT count(*) AS n FROM usage WHERE {of}")

    assert "compute.vcpu" in [row["meter"] for row in used]
    assert float(cost["total"]) > 0
    assert other.body["rows"] == [{"n": 0}]


def test_a_file_of_rows(cloud, tmp_path):
    told = ask(cloud.demo, "SELECT ordinal, body FROM events ORDER BY 1", format="parquet")
    path = tmp_path / "events.parquet"
    path.write_bytes(told.raw)

    assert told.headers["content-type"] == "application/vnd.apache.parquet"
    rows = duckdb.execute(f"SELECT count(*), min(ordinal) > 0 FROM '{path}'").fetchone()
    assert rows == (ask(cloud.demo, "SELECT count(*) AS n FROM events").body["rows"][0]["n"], True)


def test_the_command_asks_shows_and_writes(cloud, tmp_path):
    sql = "select verdict, count(*) as n from requests group by all order by 1"
    expected = ask(cloud.admin, sql).body["rows"]

    table = cloud.up.run("sql", sql)
    as_json = cloud.up.run("sql", sql, "-o", "json")
    piped = cloud.up.run("sql", "-", "-o", "json", text=sql)
    written = cloud.up.run("sql", sql, "--format", "csv", "--out", str(tmp_path / "answer.csv"))
    schema = cloud.up.run("sql", "--schema")
    wrong = cloud.up.run("sql", "drop view events")

    assert table.output.splitlines()[0].split() == ["verdict", "n"]
    assert "as of ordinal" in table.output
    assert json.loads(as_json.output) == json.loads(piped.output) == expected
    assert written.code == 0
    lines = (tmp_path / "answer.csv").read_text().splitlines()
    assert lines == ["verdict,n", *(f"{row['verdict']},{row['n']}" for row in expected)]
    assert [p.name for p in tmp_path.iterdir()] == ["answer.csv"]
    assert "servers_history" in schema.output
    assert wrong.code == 1
    assert "Only SELECT may be asked" in wrong.errors
