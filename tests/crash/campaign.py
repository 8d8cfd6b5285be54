"""A campaign: faults under load, round after round, and then the checker's word.

    script/crash --rounds N [--seed S] [--driver simulated|libvirt] [--state-dir DIR] [-o json]

A round is one fault while clients are at work, and the time until a change is acknowledged again
by a cloud whose every process runs. What is chosen follows from the seed; when exactly a process
is hit does not. Exit code 0 only if the checker, a program of its own, found nothing.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.domain.quota import DEFAULTS
from schemas.quota import UNLIMITED
from tests.crash.clients import NETWORKS, SUBNETS, Caller, Client, Place, Unreached
from tests.crash.cloud import CampaignFailed, Cloud
from tests.crash.record import Record

CLIENTS = {"simulated": 6, "libvirt": 3}
SERVERS_EACH = {"simulated": 3, "libvirt": 1}
PAUSE_S = {"simulated": 0.2, "libvirt": 0.3}
SETTLE_S = {"simulated": 120.0, "libvirt": 420.0}
RECOVERED_S = 120.0
HELD_S = 20.0
CALM_S = {"simulated": 0.4, "libvirt": 4.0}
POLL_S = 0.05
ENGINES = ("engine", "standby")
HELD_EVERY, STALE_EVERY, SUPERVISOR_EVERY, ALL_EVERY = 5, 10, 25, 30
FLAVOR = "m1.nano"
IMAGE = "tiny-guest"


@dataclass
class Tally:
    """What was done to the cloud."""

    killed: Counter[str] = field(default_factory=Counter)
    paused: Counter[str] = field(default_factory=Counter)
    between: int = 0  # kills of an engine between publish and ack
    before: int = 0  # kills of an engine before a publish arrived
    paused_between: int = 0
    recovery_s: list[float] = field(default_factory=list)


class Campaign:
    """One cloud, its clients and what is done to it."""

    def __init__(self, directory: Path, driver: str, seed: int) -> None:
        self.directory = directory
        self.driver = driver
        self.random = random.Random(seed)
        self.tally = Tally()
        self.record = Record(directory / "record.jsonl")
        self.cloud = Cloud(directory, driver)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._died: list[BaseException] = []
        self._bag: list[str] = []
        self._waking: threading.Timer | None = None  # of a process that is stopped
        self._probe: Client
        self._administrator = Caller(self.cloud.state_dir, "admin")

    def run(self, rounds: int) -> None:
        """Start the cloud and the load, and play the rounds.

        Raises:
            CampaignFailed: the cloud did not come up, or did not recover from a fault.
        """
        self.cloud.start()
        self._without_quotas()
        place = self._furnish()
        self._probe = self._client("probe", place, seed=0)
        for number in range(CLIENTS[self.driver]):
            client = self._client(f"c{number}", place, seed=self.random.getrandbits(32))
            thread = threading.Thread(target=self._work, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()
        for number in range(1, rounds + 1):
            time.sleep(self.random.uniform(0, CALM_S[self.driver]))
            begun = time.monotonic()
            what, killed = self._fault(number)
            self._recover(killed, what)
            took = time.monotonic() - begun
            self.tally.recovery_s.append(took)
            say(f"round {number}: {what}; well again after {took:.1f} s")
            self._wait_awake()
            if self._died:
                raise CampaignFailed(f"a client failed: {self._died[0]!r}")

    def _without_quotas(self) -> None:
        """Let the clients make as much as they like.

        Raises:
            CampaignFailed: the cloud would not.
        """
        action = {"type": "SetQuotaClass", "limits": dict.fromkeys(DEFAULTS, UNLIMITED)}
        told = self._administrator.send("POST", "/v1/actions", action)
        if told.status != 200:
            raise CampaignFailed(f"the quotas cannot be lifted: {told}")

    def _wait_awake(self) -> None:
        if self._waking is not None:
            self._waking.join()
            self._waking = None

    def _work(self, client: Client) -> None:
        try:
            client.run()
        except BaseException as error:  # a client that died is a campaign that says nothing
            self._died.append(error)
            raise

    def finish(self) -> None:
        """Let the clients come to their end."""
        self._stop.set()
        self._probe.close()
        self._administrator.close()
        for thread in self._threads:
            thread.join(300)
            if thread.is_alive():
                raise CampaignFailed("a client does not end")

    def _client(self, name: str, place: Place, seed: int) -> Client:
        return Client(
            name=name,
            caller=Caller(self.cloud.state_dir),
            twin=Caller(self.cloud.state_dir),
            record=self.record,
            place=place,
            random=random.Random(seed),
            stop=self._stop,
        )

    def _furnish(self) -> Place:
        """Make the network that servers are on, and find image and flavor."""
        client = self._client("setup", Place("", "", "", 0, 0), seed=0)
        wish = {"network": {"name": "crash-shared"}}
        told = client.openstack("POST", NETWORKS, "CreateNetwork", wish, name="crash-shared")
        if told is None or told.status >= 300:
            raise CampaignFailed(f"no network could be made: {told}")
        network_id = told.body["network"]["id"]
        subnet = {"network_id": network_id, "cidr": "10.77.0.0/16", "ip_version": 4}
        client.openstack("POST", SUBNETS, "CreateSubnet", {"subnet": subnet})
        images = client.caller.send("GET", f"/image/v2/images?name={IMAGE}").body["images"]
        flavors = client.caller.send("GET", "/compute/v2.1/flavors").body["flavors"]
        client.close()
        return Place(
            image_id=images[0]["id"],
            flavor_id=next(f["id"] for f in flavors if f["name"] == FLAVOR),
            network_id=network_id,
            servers_each=SERVERS_EACH[self.driver],
            pause_s=PAUSE_S[self.driver],
        )

    # Faults

    def _fault(self, number: int) -> tuple[str, dict[str, int]]:
        """Do the round's fault; return what it was and which processes it killed."""
        if number % HELD_EVERY == 1:
            return self._between(kill=True)
        if number % STALE_EVERY == 3:
            return self._before()
        if number % STALE_EVERY == 8 and self.cloud.standby:
            return self._between(kill=False)
        if number % ALL_EVERY == 0:
            return self._kill_all()
        if number % SUPERVISOR_EVERY == 12:
            return self._kill("up")
        chosen = self.random.random()
        if chosen < 0.2:
            return self._pause(self._victim(), self.random.uniform(1.0, 3.0), lambda: None), {}
        if chosen < 0.35:
            return self._kill(self._victim(), self._victim())
        return self._kill(self._victim())

    def _pause(self, name: str, seconds: float, then: Callable[[], None]) -> str:
        self._waking = self.cloud.pause(name, seconds, then)
        self.tally.paused[name] += self._waking is not None
        return f"{name} paused for {seconds:.1f} s"

    def _victim(self) -> str:
        """Return a process, each as often as the others."""
        if not self._bag:
            self._bag = sorted(self.cloud.pids().keys() - {"up"})
            self.random.shuffle(self._bag)
        return self._bag.pop()

    def _kill(self, *names: str) -> tuple[str, dict[str, int]]:
        killed = self.cloud.kill(*names)
        self.tally.killed.update(killed.keys())
        return f"kill -9 of {' and '.join(killed)}", killed

    def _kill_all(self) -> tuple[str, dict[str, int]]:
        """Kill everything, the supervisor first so that it starts nothing in between."""
        names = self.cloud.pids().keys() - {"up"}
        what, killed = self._kill("up", *sorted(names))
        return f"everything at once: {what}", killed

    def _between(self, *, kill: bool) -> tuple[str, dict[str, int]]:
        """Hit the leader while a commit of its is stored and it has not heard of it.

        It is killed, sometimes together with the broker; or only stopped, so that the standby takes
        over and the old leader then hears of its commit in another's epoch.
        """
        name, sequence = self._hold(stored=True)
        where = f"between publish and ack (sequence {sequence})"
        if not kill:
            self.tally.paused_between += 1
            what = self._pause(name, self.random.uniform(2.0, 4.0), self.cloud.proxy.release)
            return f"{what} {where}", {}
        what, killed = self._kill(name, *(["nats"] if self.random.random() < 0.3 else []))
        self.cloud.proxy.release()
        self.tally.between += name in killed
        return f"{what} {where}", killed

    def _before(self) -> tuple[str, dict[str, int]]:
        """Kill the leader while commits of its are on their way, and are never stored.

        Nobody may have been told of them.
        """
        name, _ = self._hold(stored=False)
        time.sleep(self.random.uniform(0.0, 0.3))
        what, killed = self._kill(name)
        self.cloud.proxy.release()
        self.tally.before += name in killed
        return f"{what} before its publish arrived", killed

    def _hold(self, *, stored: bool) -> tuple[str, int]:
        """Have the proxy hold a commit or its answer; return the leader and the sequence."""
        held = self.cloud.proxy.hold(HELD_S, stored=stored)
        if held is None:
            self.cloud.proxy.release()
            raise CampaignFailed(f"no commit of a user's was made in {HELD_S} s")
        name = self.cloud.behind(held["port"])
        if name not in ENGINES:
            raise CampaignFailed(f"a commit was held, of {name or 'nobody that lives'}")
        return name, held["seq"]

    def _recover(self, killed: dict[str, int], what: str) -> None:
        """Wait until every process runs and a change is acknowledged.

        Raises:
            CampaignFailed: not in time.
        """
        deadline = time.monotonic() + RECOVERED_S
        if "up" in killed:
            self.cloud.start()
        while not self._all_run(killed) or not self._answers():
            if time.monotonic() > deadline:
                missing = sorted({*killed} - self.cloud.pids().keys())
                raise CampaignFailed(f"not well {RECOVERED_S} s after {what}; down: {missing}")
            time.sleep(POLL_S)
        told = self._probe.native("DeleteKeypair", name="crash-nobody")
        if told is None:
            raise CampaignFailed(f"nothing is acknowledged after {what}")

    def _all_run(self, killed: dict[str, int]) -> bool:
        pids = self.cloud.pids()
        return all(name in pids and pids[name] != pid for name, pid in killed.items())

    def _answers(self) -> bool:
        try:
            told = self._administrator.send("GET", "/v1/status")
        except Unreached:
            return False
        hosts = [host["status"] for host in told.body.get("hosts", ())]
        return told.status == 200 and "error" not in told.body.get("engine", {}) and "up" in hosts

    # The end

    def close(self) -> None:
        """Stop the load, whatever it is at, and the cloud."""
        self._stop.set()
        self._wait_awake()
        self.cloud.stop()
        self.record.close()

    def check(self) -> dict[str, Any]:
        """Run the checker; return its report.

        Raises:
            CampaignFailed: it did not come to a report.
        """
        command = [sys.executable, "-m", "tests.crash.checker", "-o", "json"]
        command += ["--record", str(self.directory / "record.jsonl")]
        command += ["--save-log", str(self.directory / "log.jsonl")]
        command += ["--state-dir", str(self.cloud.state_dir), "--driver", self.driver]
        command += ["--settle", str(SETTLE_S[self.driver])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        try:
            report: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise CampaignFailed(f"the checker ended with {done.returncode}") from error
        return report

    def figures(self) -> dict[str, Any]:
        """Return what was done, in numbers."""
        tally = self.tally
        took = tally.recovery_s
        return {
            "rounds": len(took),
            "kills": sum(tally.killed.values()),
            "kills_by_process": dict(sorted(tally.killed.items())),
            "kills_between_publish_and_ack": tally.between,
            "kills_before_publish_arrived": tally.before,
            "pauses": sum(tally.paused.values()),
            "pauses_between_publish_and_ack": tally.paused_between,
            "standby": self.cloud.standby,
            "recovery_s_median": round(statistics.median(took), 2) if took else None,
            "recovery_s_most": round(max(took), 2) if took else None,
        }


def say(text: str) -> None:
    """Tell whoever watches."""
    print(text, file=sys.stderr, flush=True)


def run(
    directory: Path, *, rounds: int, seed: int, driver: str, keep: bool = False
) -> dict[str, Any]:
    """Run a campaign in this directory; return the report. Nothing stays if all was well.

    Raises:
        CampaignFailed: it could not be brought to its end; what there is stays.
    """
    campaign = Campaign(directory, driver, seed)
    report: dict[str, Any] = {"well": False}
    began = time.monotonic()
    try:
        campaign.run(rounds)
        campaign.finish()
        report = campaign.check()
    finally:
        campaign.close()
        report = {
            "seed": seed,
            "driver": driver,
            "took_s": round(time.monotonic() - began, 1),
            **campaign.figures(),
            **report,
        }
        (directory / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        if report["well"] and not keep:
            campaign.cloud.destroy()
    return report


def main() -> int:
    """Run as a program; return the exit code."""
    parser = argparse.ArgumentParser(prog="script/crash", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seed", type=int, help="of what is done; none: a fresh one")
    parser.add_argument("--driver", choices=sorted(CLIENTS), default="simulated")
    parser.add_argument("--state-dir", type=Path, help="where the cloud and the evidence lie")
    parser.add_argument("--keep", action="store_true", help="keep them even if all was well")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    directory = options.state_dir or Path(tempfile.mkdtemp(prefix="cumulog-crash-"))
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    say(f"seed {seed}, in {directory}")
    try:
        report = run(
            directory, rounds=options.rounds, seed=seed, driver=options.driver, keep=options.keep
        )
    except CampaignFailed as error:
        say(f"FAILED: {error}\nEverything is kept in {directory}")
        return 1
    if options.output == "json":
        print(json.dumps(report, indent=1))
    else:
        from tests.crash.checker import text_of

        print(text_of(report))
    if not report["well"]:
        say(f"Everything is kept in {directory}")
        return 1
    if not options.keep and options.state_dir is None:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
