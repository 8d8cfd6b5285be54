"""A real host for tests: drivers of a state directory, an agent on them, a guest's console."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

from executors import inventory
from executors.agent import Agent, Pace
from executors.converge import Drivers
from executors.destroy import destroy
from executors.drivers import missing
from executors.hypervisor.libvirt_host import LibvirtHypervisor
from executors.layout import Layout, namespace_path
from executors.network.linux import LinuxNetworks
from executors.position import Position
from executors.records import FileRecords
from executors.storage.blob import Blobs
from executors.storage.files import FileStorage
from schemas.work import MetadataReply
from tests.executors.world import HOST, Engine, an_image

BUILDER = Path(__file__).parents[2] / "script" / "build-guest-image"
BOOT_S = 240  # a busy machine emulates slowly


def why_not() -> str:
    """Return why no real guest can be run here, "" if one can."""
    return "; ".join(missing())


def build_guest_image(path: Path) -> Path:
    subprocess.run([sys.executable, BUILDER, path], check=True, capture_output=True)
    return path


class Machine:
    """A state directory on this machine. Agents come and go; what they made stays."""

    def __init__(self, state_dir: Path):
        self.layout = Layout.of(state_dir)
        self.engine = Engine()
        self.agent = None
        self.drivers = None
        self.names = {}  # metadata by path
        self.engine.answer_metadata = self._metadata

    def _metadata(self, ask):
        body = self.names.get(ask.path)
        return MetadataReply(status=404 if body is None else 200, body=body or b"")

    async def start(self):
        self.drivers = Drivers(
            hypervisor=LibvirtHypervisor(self.layout, accelerator="tcg"),
            storage=FileStorage(self.layout),
            networks=LinuxNetworks(self.layout),
        )
        self.agent = Agent(
            host_id=HOST,
            version="test",
            upstream=self.engine,
            drivers=self.drivers,
            records=FileRecords(self.layout),
            position=Position(None),
            pace=Pace(reconcile_s=3600.0),
        )
        await self.agent.start()

    async def stop(self):
        if self.agent is not None:
            await self.agent.close()
            self.agent = None

    def destroy(self):
        return destroy(self.layout.state_dir)

    def inventory(self):
        return inventory.take(self.layout.state_dir)

    async def image(self, path):
        """Upload a file and have it checked; return it as servers name it."""

        async def stream():
            yield path.read_bytes()

        written = await Blobs(self.layout.blobs).write(stream(), limit_bytes=1 << 30)
        image = an_image(
            blob_id=written.blob_id,
            size_bytes=written.size_bytes,
            sha512=written.sha512,
            virtual_size_bytes=None,
        )
        self.engine.blobs = (*self.engine.blobs, image.blob_id)
        return image

    async def console(self, spec, words, *, count=1, within_s=BOOT_S):
        """Wait until a guest has said something so many times; return its "@@ " lines."""
        path = self.layout.console(spec.server.server_id)
        async with asyncio.timeout(within_s):
            while True:
                text = path.read_text(errors="replace") if path.exists() else ""
                if text.count(words) >= count:
                    return [
                        line[line.index("@@ ") :] for line in text.splitlines() if "@@ " in line
                    ]
                await asyncio.sleep(0.1)  # a file does not call us

    async def inside(self, network, *command, within_s=30):
        """Run a program in a network's own namespace; return its status and what it said."""
        namespace = namespace_path(self.layout.network_namespace(network.network_id))
        process = await asyncio.create_subprocess_exec(
            "nsenter",
            f"--net={namespace}",
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(within_s):
                said, _ = await process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        return process.returncode, said.decode(errors="replace")


def root_namespace():
    """Return what could change in the machine's own namespace: links, addresses, routes, rules."""
    commands = (
        ("ip", "-o", "link"),
        ("ip", "-o", "address"),
        ("ip", "route", "show", "table", "all"),
        ("nft", "list", "ruleset"),
    )
    return [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in commands
        if shutil.which(command[0])
    ]
