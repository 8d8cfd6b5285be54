"""`cumulog up`: it comes up, stays up, goes down, and leaves what it should."""

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from cli.problem import Problem
from cli.state import CONTENT, State, make_cell, make_directories
from cli.up import Options, _driver, url
from tests.cli.running import CUMULOG, Up, alive, clean_environment, eventually, run

PROCESSES = {"up", "nats", "engine", "projector", "archiver", "courier", "agent", "api"}


def all_is_well(cloud: Up) -> bool:
    return run("status", "--state-dir", str(cloud.state_dir)).code == 0


def test_a_first_run_makes_a_cloud_and_a_second_run_finds_it(up):
    up.start()

    ready = up.ready()
    assert set(ready["pids"]) == PROCESSES
    assert all(alive(pid) for pid in ready["pids"].values())
    assert all_is_well(up)
    for path in (up.state_dir / "credentials.json", up.state_dir / "clouds.yaml"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(up.state_dir.stat().st_mode) == 0o700
    clouds = yaml.safe_load((up.state_dir / "clouds.yaml").read_text())["clouds"]
    assert set(clouds) == {"cumulog", "cumulog-demo"}
    assert "OS_AUTH_URL" in (up.state_dir / "openrc").read_text()
    first = up.json("flavor", "list")

    assert up.stop() == 0

    assert not up.ready_file.exists()
    assert not any(alive(pid) for pid in ready["pids"].values())
    credentials = (up.state_dir / "credentials.json").read_text()
    up.output = ""
    up.start()
    assert "Flavors" not in up.output
    assert up.json("flavor", "list") == first
    assert (up.state_dir / "credentials.json").read_text() == credentials
    assert all_is_well(up)


def test_ctrl_c_stops_the_control_plane_in_order(up):
    up.start()
    pids = up.pids()

    assert up.stop(signal.SIGINT) == 0

    assert not any(alive(pid) for pid in pids.values())
    assert "Traceback" not in up.output
    for log in (up.state_dir / "log").glob("*.log"):
        assert "Traceback" not in log.read_text(), log


def test_a_second_up_on_the_same_directory_is_refused(cloud):
    done = run("up", "--state-dir", str(cloud.state_dir), "--listen", "127.0.0.1:0")

    assert done.code == 1
    assert f"a cloud already runs in {cloud.state_dir} (pid {cloud.pids()['up']})" in done.errors
    assert all_is_well(cloud)


@pytest.mark.parametrize("name", sorted(PROCESSES - {"up"}))
def test_a_process_that_is_killed_is_started_again(cloud, name):
    before = cloud.pids()[name]

    os.kill(before, signal.SIGKILL)

    eventually(lambda: cloud.pids()[name] not in {0, before}, f"{name} runs again")
    eventually(lambda: all_is_well(cloud), "all is well")
    assert alive(cloud.pids()["up"])


def test_a_killed_supervisor_leaves_no_process_behind_once_up_runs_again(up):
    up.start()
    pids = up.pids()

    up.stop(signal.SIGKILL)

    ours = {name: pid for name, pid in pids.items() if name not in {"up", "nats"}}
    eventually(lambda: not any(alive(pid) for pid in ours.values()), "its children end")
    up.start()
    assert not alive(pids["nats"])
    assert all_is_well(up)


@pytest.mark.parametrize(
    "moment", ["Event log", "Engine", "Administrator", "Flavors", "Project demo"]
)
def test_a_first_run_that_is_killed_is_completed_by_the_next(up, moment):
    up.process = subprocess.Popen(
        [
            *(CUMULOG, "up", "--state-dir", str(up.state_dir), "--listen", "127.0.0.1:0"),
            *("--driver", "simulated"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
    )
    up.read_until(f"^✓ {moment}")
    up.stop(signal.SIGKILL)

    up.start()

    assert len(up.json("flavor", "list")) == 7
    assert {image["status"] for image in up.json("image", "list")} == {"active"}
    assert up.json("token", "issue", cloud="cumulog-demo")["roles"] == "member, reader"
    published = up.json("audit", "log", "--action", "PublishPriceList", "--outcome", "accepted")
    assert len(published) == 1


def test_a_taken_port_is_told_in_one_line(cloud, tmp_path):
    taken = cloud.ready()["urls"]["api"].removeprefix("http://")

    done = run("up", "--state-dir", str(tmp_path / "b"), "--listen", taken, "--driver", "simulated")

    assert done.code == 3
    assert f"cannot listen on {taken}" in done.errors


def test_destroy_leaves_nothing(up):
    up.start()
    pids = up.pids()

    done = run("destroy", "--yes", "--state-dir", str(up.state_dir))

    assert done.code == 0, done.errors
    assert not any(alive(pid) for pid in pids.values())
    assert not up.state_dir.exists()
    assert run("destroy", "--yes", "--state-dir", str(up.state_dir)).code == 2


def test_destroy_asks_before_it_acts_and_touches_only_what_is_ours(up):
    up.start()
    up.stop()
    (up.state_dir / "mine.txt").write_text("keep")

    assert run("destroy", "--state-dir", str(up.state_dir)).code == 2
    assert (up.state_dir / "cell.json").exists()
    assert run("destroy", "--yes", "--state-dir", str(up.state_dir)).code == 0

    assert [path.name for path in up.state_dir.iterdir()] == ["mine.txt"]


def test_a_folder_with_other_things_in_it_is_not_taken(tmp_path):
    (tmp_path / "thesis.txt").write_text("keep")

    with pytest.raises(Problem, match=r"thesis\.txt"):
        make_directories(State.at(tmp_path))


def test_a_cloud_keeps_its_driver(tmp_path):
    state = State.at(tmp_path / "state")
    make_directories(state)
    make_cell(state, listen="127.0.0.1:1", driver="simulated")

    with pytest.raises(Problem, match="has driver simulated, not libvirt"):
        make_cell(state, listen="127.0.0.1:1", driver="libvirt")
    assert make_cell(state, listen="127.0.0.1:2", driver="simulated")["listen"] == "127.0.0.1:2"
    assert {path.name for path in state.root.iterdir()} <= set(CONTENT)


def test_without_root_servers_are_simulated_and_it_is_said_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    state = State.at(tmp_path / "state")

    assert _driver(Options(state_dir="", settings={}), state) == "simulated"
    assert "need root for network namespaces" in capsys.readouterr().out
    with pytest.raises(Problem, match="driver libvirt needs root"):
        _driver(Options(state_dir="", driver="libvirt", settings={}), state)


def test_a_machine_without_qemu_is_told_which_packages_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("cli.up.PROGRAMS", {"qemu-of-no-machine": "qemu-system-none"})

    with pytest.raises(Problem, match=r"no qemu-of-no-machine \(packages qemu-system-none\)"):
        _driver(Options(state_dir="", settings={}), State.at(tmp_path / "state"))


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:80", "http://127.0.0.1:80"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("10.0.0.1:8780", "http://10.0.0.1:8780"),
    ],
)
def test_clients_on_this_machine_are_told_an_address_they_can_reach(listen, address):
    assert url(listen) == address


def test_the_state_directory_may_have_blanks_in_its_name(tmp_path: Path):
    cloud = Up(tmp_path / "a cloud" / "its state")
    cloud.state_dir.parent.mkdir()
    try:
        cloud.start()
        assert all_is_well(cloud)
    finally:
        cloud.stop()
