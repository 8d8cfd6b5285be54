"""Which cloud a command talks to."""

import pytest

from cli.credentials import find_cloud
from cli.problem import Problem

CLOUDS = """
clouds:
  cumulog:
    auth: {auth_url: "http://HOST/identity/v3", username: admin, password: "p 1"}
  other:
    auth: {auth_url: "http://HOST/prefix/identity/v3/", username: u}
  broken:
    auth: {}
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("OS_CLOUD", "OS_AUTH_URL", "OS_CLIENT_CONFIG_FILE", "CUMULOG_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def write(path, host):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CLOUDS.replace("HOST", host))
    return path


def test_the_nearest_clouds_yaml_counts(environment, tmp_path):
    write(tmp_path / "home/.config/openstack/clouds.yaml", "home")
    assert find_cloud(None, None).url == "http://home"

    write(tmp_path / "var/clouds.yaml", "var")
    assert find_cloud(None, None).url == "http://var"

    write(tmp_path / "clouds.yaml", "here")
    assert find_cloud(None, None).url == "http://here"

    environment.setenv("CUMULOG_STATE_DIR", str(write(tmp_path / "s/clouds.yaml", "state").parent))
    assert find_cloud(None, None).url == "http://state"

    environment.setenv("OS_CLIENT_CONFIG_FILE", str(write(tmp_path / "named.yaml", "named")))
    assert find_cloud(None, None).url == "http://named"


def test_a_state_directory_on_the_command_line_counts_before_the_environment(environment, tmp_path):
    environment.setenv("OS_AUTH_URL", "http://environment/identity/v3")
    environment.setenv("OS_CLOUD", "other")
    write(tmp_path / "state/clouds.yaml", "state")

    cloud = find_cloud(None, str(tmp_path / "state"))

    assert (cloud.url, cloud.username, cloud.password) == ("http://state", "admin", "p 1")


def test_a_named_cloud_counts_before_os_variables(environment, tmp_path):
    write(tmp_path / "clouds.yaml", "here")
    environment.setenv("OS_AUTH_URL", "http://environment/identity/v3")

    assert find_cloud("other", None).url == "http://here/prefix"
    environment.setenv("OS_CLOUD", "cumulog")
    assert find_cloud(None, None).url == "http://here"
    environment.delenv("OS_CLOUD")
    assert find_cloud(None, None).url == "http://environment"


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere", "there are: cumulog, other, broken"), ("broken", "no auth.auth_url")],
)
def test_a_cloud_that_cannot_be_used_is_told(tmp_path, name, said):
    write(tmp_path / "clouds.yaml", "here")

    with pytest.raises(Problem, match=said) as raised:
        find_cloud(name, None)

    assert raised.value.exit_code == 2


@pytest.mark.parametrize("content", ["", "- a", "clouds: {", "other: 1"])
def test_a_file_that_is_no_clouds_yaml_is_told(tmp_path, content):
    (tmp_path / "clouds.yaml").write_text(content)

    with pytest.raises(Problem, match=r"is not a clouds\.yaml"):
        find_cloud(None, None)
