"""How every simulated cell begins: people, a flavor, an image, networks; and its read model."""

import functools
import shutil
import sqlite3
import tempfile
from pathlib import Path

from engine.folded import Folded
from engine.log.commit import GENESIS, seal_commit
from projections import files, models, store
from schemas.envelope import decode_commit
from schemas.quota import SetQuota
from tests.engine.world import World

SERVERS_MAX = 2  # that the last of the users may have


class Genesis:
    """The first commits of every log, and the read model made of them."""

    def __init__(self, directory):
        world = World(seed=1)
        world.without_quotas()
        world.host(vcpus=1, memory=1, disk=1)
        self.flavor = world.flavor()
        self.image = world.image()
        self.admin = world.admin
        self.users = [world.member("alice"), world.member("bob")]
        for user in self.users:
            world.network(user)
        limits = {"servers": SERVERS_MAX}
        limited = self.users[-1].project_id
        world.ok(world.admin, SetQuota(project_id=limited, limits=limits))
        self.servers_max = {limited: SERVERS_MAX}
        self.datas = []
        self.records = len(world.messages)
        prev = GENESIS
        for number, message in enumerate(world.messages, 1):
            commit = decode_commit(message)
            data, prev = seal_commit(
                f"genesis-{number}", commit.first, prev, 0, commit.at, commit.records
            )
            self.datas.append(data)
        folded = Folded()
        model = directory / "genesis.sqlite"
        writer = files.open_next(model)
        for seq, data in enumerate(self.datas, 1):
            folded.take(seq, data)
            models.apply_commit(writer, seq, data)
        writer.commit()
        writer.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        writer.db.close()
        self._model = files.generation_file(model, 1).read_bytes()

    def read_model(self, path):
        """Lay out a read model of the first commits at ``path``."""
        file = files.generation_file(path, 1)
        file.write_bytes(self._model)
        path.symlink_to(file.name)

    def read_model_in_memory(self):
        """Return a writer of a read model of the first commits that lies in no file."""
        db = sqlite3.connect(":memory:", isolation_level=None)
        # Bytes 18 and 19 say that there is a journal beside the file; here there is none.
        db.deserialize(self._model[:18] + b"\x01\x01" + self._model[20:])
        return store.Writer(db)


def memory_directory():
    """Return a fresh directory, in memory where the machine has room for that."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="cumulog-sim-", dir=shared if shared.is_dir() else None))


@functools.cache
def genesis():
    directory = memory_directory()
    try:
        return Genesis(directory)
    finally:
        shutil.rmtree(directory)
