"""A read-only cloud of a moment, as OpenStack's own client sees it."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.api.conftest import Api, Cloud, credentials, fresh
from tests.api.openstack import OpenStack
from tests.cli.running import CUMULOG, clean_environment, eventually


class Past:
    """A cloud of the past, and what was so in it."""

    def __init__(self, cloud: Cloud, directory, ordinal: int) -> None:
        self.cloud = cloud
        self.directory = directory / "then"
        self.ordinal = ordinal
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.listen = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{self.listen}"
        arguments = ("--to", str(ordinal), "--into", str(self.directory))
        self.made = cloud.up.run("replay", *arguments, "--state-dir", str(cloud.up.state_dir))
        assert self.made.code == 0, self.made.errors
        with (directory / "then.log").open("wb") as log:
            self.process = subprocess.Popen(
                [CUMULOG, "replay", "--serve", str(self.directory), "--listen", self.listen],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
            )
        eventually(self._serves, f"it serves: {(directory / 'then.log').read_text()}")

    def _serves(self) -> bool:
        assert self.process.poll() is None, "it has ended"
        try:
            return Api(self.url)("GET", "/readyz").status == 200
        except OSError:
            return False

    def login(self, user: str, password: str, project: str) -> Api:
        reply = Api(self.url)(
            "POST", "/identity/v3/auth/tokens", credentials(user, password, project)
        )
        assert reply.status == 201, reply
        return Api(self.url, reply.headers["x-subject-token"])


def _program(person: Api, user: str, until: datetime) -> dict:
    wish = {"name": fresh("program"), "expires_at": until.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    path = f"/identity/v3/users/{user}/application_credentials"
    return person.made(path, {"application_credential": wish})


@pytest.fixture(scope="module")
def past(cloud, tmp_path_factory) -> Iterator[Past]:
    """A cloud of a moment with a network and a person, who are gone, or others, by now."""
    admin = cloud.admin
    name = fresh("person")
    project = admin.made("/identity/v3/projects", {"project": {"name": name}})
    user = admin.made("/identity/v3/users", {"user": {"name": name, "password": "of then"}})
    role = admin("GET", "/identity/v3/roles?name=member").body["roles"][0]
    path = f"/identity/v3/projects/{project['id']}/users/{user['id']}/roles/{role['id']}"
    assert admin("PUT", path).status == 204
    person = cloud.login(name, "of then", name)
    network = cloud.network(person)
    terms = (timedelta(seconds=5), timedelta(days=1))
    programs = [_program(person, user["id"], datetime.now(UTC) + term) for term in terms]
    before = person("GET", "/network/v2.0/networks")
    ordinal = int(admin("GET", "/v1/quota").headers["x-cumulog-ordinal"])
    assert person("DELETE", f"/network/v2.0/networks/{network['id']}").status == 204
    changed = {"user": {"password": "of now"}}
    assert admin("PATCH", f"/identity/v3/users/{user['id']}", changed).status == 200
    made = Past(cloud, tmp_path_factory.mktemp("past"), ordinal)
    made.name, made.network, made.before = name, network, before
    made.programs = programs
    yield made
    made.process.send_signal(signal.SIGTERM)
    assert made.process.wait(30) == 0


def test_openstack_reads_what_was_there_and_changes_nothing(cloud, past, tmp_path):
    accounts = str(past.directory / "clouds.yaml")
    with OpenStack(cloud, tmp_path, OS_CLIENT_CONFIG_FILE=accounts, OS_CLOUD="then") as openstack:
        networks = openstack.json("network list")
        code, _, errors = openstack.run("network create never")
        refused = openstack.run(f"network delete {past.network['id']}")

    assert past.network["name"] in {one["Name"] for one in networks}
    assert (code, f"as of ordinal {past.ordinal}: nothing can be changed" in errors) == (1, True)
    assert refused[0] == 1
    now = cloud.admin("GET", "/network/v2.0/networks").body["networks"]
    assert not {"never", past.network["name"]} & {one["name"] for one in now}


def test_people_sign_in_as_they_could_then(cloud, past):
    then = past.login(past.name, "of then", past.name)

    found = then("GET", "/network/v2.0/networks")

    assert found.body == past.before.body
    assert found.headers["x-cumulog-ordinal"] == str(past.ordinal)
    wish = credentials(past.name, "of now", past.name)
    assert Api(past.url)("POST", "/identity/v3/auth/tokens", wish).status == 401
    wish = credentials(past.name, "of then", past.name)
    assert cloud.anyone("POST", "/identity/v3/auth/tokens", wish).status == 401


def test_a_term_that_has_ended_since_is_over_in_the_past_too(past):
    """Whatever was given for a time is worth nothing after it, wherever it is shown."""

    def signed_in(program: dict) -> int:
        data = {"id": program["id"], "secret": program["secret"]}
        identity = {"methods": ["application_credential"], "application_credential": data}
        wish = {"auth": {"identity": identity}}
        return Api(past.url)("POST", "/identity/v3/auth/tokens", wish).status

    ended, lasting = past.programs
    eventually(lambda: signed_in(ended) == 401, "its term is over")
    assert signed_in(lasting) == 201


def test_tokens_of_then_and_of_now_are_of_no_use_to_each_other(cloud, past):
    then = past.login(past.name, "of then", past.name)
    now = cloud.login(past.name, "of now", past.name)

    assert Api(cloud.url, then.token)("GET", "/network/v2.0/networks").status == 401
    assert Api(past.url, now.token)("GET", "/network/v2.0/networks").status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/status"),
        ("GET", "/v1/usage"),
        ("GET", "/v1/diff"),
        ("GET", "/v1/quota?as_of=7"),
        ("POST", "/v1/actions"),
        ("POST", "/v1/sql"),
        ("POST", "/network/v2.0/networks"),
        ("DELETE", "/identity/v3/auth/tokens"),
    ],
)
def test_what_only_the_present_knows_or_can_do_is_refused(past, method, path):
    then = past.login(past.name, "of then", past.name)
    body = {} if method == "POST" else None

    reply = then(method, path, body)

    assert reply.status == 403, reply
    assert f"as of ordinal {past.ordinal}" in reply.raw.decode()


def test_reads_of_the_past_are_told_of_in_the_present(cloud, past):
    then = past.login(past.name, "of then", past.name)
    assert then("GET", "/compute/v2.1/flavors").status == 200

    def told() -> bool:
        rows = cloud.admin("GET", "/v1/audit?show=reads&limit=1000").body["requests"]
        return any(row["edge"] == "then" and "flavors" in row["route"] for row in rows)

    eventually(told, "the read is told of")


def test_a_directory_that_holds_something_is_left_alone(cloud, past, tmp_path):
    state = ("--state-dir", str(cloud.up.state_dir))
    for arguments, said in (
        (("--to", "9", "--into", str(past.directory)), "is not empty"),
        (("--to", "99999999", "--into", str(tmp_path / "new")), "yet to come"),
        (("--to", "soon", "--into", str(tmp_path / "new")), "ISO 8601"),
        (("--to", "٣", "--into", str(tmp_path / "new")), "ISO 8601"),
        (("--to", "9" * 5000, "--into", str(tmp_path / "new")), "ISO 8601"),
        (("--serve", str(past.directory), "--listen", "127.0.0.1:http"), "HOST:PORT"),
        (("--serve", str(tmp_path)), "holds no cloud of the past"),
        (("--to", "9"), "go together"),
    ):
        done = cloud.up.run("replay", *arguments, *state)
        assert done.code == 2, (arguments, done.errors)
        assert said in done.errors


def test_no_two_clouds_of_the_past_are_at_one_address(cloud, past):
    """Whoever asks there would be answered by either, each as of its own moment."""
    accounts = (past.directory / "clouds.yaml").read_bytes()

    done = cloud.up.run("replay", "--serve", str(past.directory), "--listen", past.listen)

    assert (done.code, "cannot listen" in done.errors) == (3, True), done.errors
    assert (past.directory / "clouds.yaml").read_bytes() == accounts
