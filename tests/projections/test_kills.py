"""The archiver dies at any line, or the disk is full: history is whole, and goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from projections import history as module
from projections.history import History
from schemas.units import DAY
from tests.projections.story import Story, projected
from tests.projections.test_history import Sealed

ROOT = Path(__file__).parents[2]


def a_short_story() -> Story:
    story = Story()
    story.host()
    demo = story.member("demo")
    story.network(demo)
    story.later(DAY)
    story.network(demo, "10.1.0.0/24")
    return story


@pytest.fixture
def base(tmp_path):
    story = a_short_story()
    projected(story, tmp_path / "n.sqlite")
    commits = [(seq, data.decode()) for seq, data in story.commits]
    (tmp_path / "commits.json").write_text(json.dumps(commits))
    return tmp_path, story


@pytest.mark.parametrize("work", ["seal", "merge", "copy", "restore"])
def test_a_kill_at_any_line_leaves_history_whole(base, work):
    """What is left holds together, and the next attempt ends as if nothing had been."""
    place, story = base
    if work != "seal":
        sealed = Sealed(story, place / "other")
        sealed.history = History(place / "sealed")
        sealed.archive._history = sealed.history
        size = 3 if work == "merge" else 12
        assert len(sealed.seal(ordinals_max=size)) > 1

    done = subprocess.run(
        [sys.executable, "-m", "tests.projections.doomed", str(place), work],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8, done.stdout


@pytest.mark.parametrize("most", [0, 100, 4_000])
def test_a_full_disk_leaves_history_whole(base, most):
    """No file may grow beyond so many bytes: nothing is published that is not whole."""
    place, _ = base
    script = f"""
import resource, sqlite3, sys
from pathlib import Path
from tests.projections.doomed import Work
work = Work(Path({str(place)!r}), "seal")
place = Path({str(place)!r}) / "place"
(place / "history").mkdir(parents=True)
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, resource.RLIM_INFINITY))
try:
    work.do(place)
except OSError as error:
    print(error)
else:
    sys.exit("it was sealed")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
work.check_rest(place)
assert not list((place / "history").glob("[0-9]*.json"))
work.do(place)
work.check_done(place)
"""

    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "too large" in done.stdout


def test_a_disk_that_is_full_while_a_manifest_is_written(base, monkeypatch):
    place, story = base
    history = History(place / "history")
    timeline = Sealed(story, place / "other").reader.db()
    write = Path.write_bytes

    def full(path, data):
        if path.suffix == ".json":
            write(path, data[:20])
            raise OSError(28, "No space left on device")
        return write(path, data)

    def seal():
        return history.seal(story.commits, timeline, ordinals_max=1000, through=2**40)

    monkeypatch.setattr(module.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        seal()
    assert history.segments() == []
    monkeypatch.undo()

    segment = seal()

    assert history.verify() == [segment]
    assert len(list(history.directory.iterdir())) == 2
