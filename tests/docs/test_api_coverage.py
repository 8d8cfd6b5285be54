"""The table of the API is what the routes and the record of tests give, and no wish."""

from pathlib import Path

import pytest

from tests.api_coverage import (
    CLIENTS,
    RECORD,
    TABLE,
    client_of,
    lines,
    merged,
    read,
    table,
    versions,
    write,
)


def test_the_table_is_what_routes_and_record_give():
    assert TABLE.read_text() == table(read(RECORD)), "script/api-coverage writes it anew"


def test_every_route_is_in_the_table_once_a_version_range():
    text = TABLE.read_text()

    for line in lines():
        rows = text.count(f"| {line.method} | `{line.path}` |")
        assert rows == len({versions(one) for one in lines() if one.key == line.key}), line.key


def test_the_record_speaks_of_routes_and_clients_that_are():
    record = read(RECORD)

    assert record == merged(record)
    assert record.keys() <= {line.key for line in lines()}
    for clients in record.values():
        assert clients.keys() <= CLIENTS.keys()
        assert all(100 <= status < 600 for statuses in clients.values() for status in statuses)


def test_a_record_without_a_route_shows_it_as_not_called():
    assert "0 called by some client" in table({})
    one = {"GET /compute/v2.1/servers": {"openstack": [200]}}
    assert "1 called by some client" in table(one)
    assert merged(one, {"GET /compute/v2.1/servers": {"tests": [404, 200]}}) == {
        "GET /compute/v2.1/servers": {"tests": [200, 404], "openstack": [200]}
    }
    assert merged({"GET /nothing": {"tests": [200]}}) == {}


@pytest.mark.parametrize(
    ("agent", "client"),
    [
        ("openstacksdk/4.8.0 keystoneauth1/5.11 python-requests/2.32", "openstack"),
        ("sdk-tests/1 openstacksdk/4.8.0 keystoneauth1/5.11", "openstacksdk"),
        ("cumulog/0.1.0", "cumulog"),
        ("cumulog-tests", "tests"),
        ("schemathesis", "schemathesis"),
        ("curl/8", None),
        ("", None),
    ],
)
def test_clients_are_told_apart_by_what_they_say_of_themselves(agent: str, client: str | None):
    assert client_of(agent) == client


def test_the_record_is_json_that_is_kept_a_line_a_route(tmp_path: Path):
    record = read(RECORD)

    write(tmp_path / "again.json", record)

    assert (tmp_path / "again.json").read_text() == RECORD.read_text()
    assert len(RECORD.read_text().splitlines()) == len(record) + 2
