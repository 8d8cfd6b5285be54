"""The archiver on a real broker, as the user that it runs as."""

import asyncio

import msgspec
import pytest
import pytest_asyncio

from engine.domain.state import digest
from engine.log.checkpoint import Checkpoint, held
from engine.log.proof import check_proof
from engine.log.replay import replay
from engine.log.signing import read_public
from projections.archive import Archive, BillAnswer, SegmentsAnswer, StatusAnswer, VerifyAnswer
from projections.archiver import Archiver, history_path, run
from projections.history import History
from projections.notary import Notary, book_of, keys_of
from projections.reader import Reader
from projections.runner import read_model_path
from projections.runner import run as project
from schemas.network import CreateNetwork
from schemas.units import SECOND
from tests.projections.story import OPENED, a_small_story
from tests.projections.test_runner import Cell, Heard, written


@pytest_asyncio.fixture
async def cell(tmp_path):
    cell = Cell(tmp_path)
    await cell.open()
    yield cell
    await cell.close()


@pytest_asyncio.fixture
async def story(cell):
    """A story in the log, with projector, archiver and an engine that can be asked its digest."""
    story = a_small_story()
    await written(story, cell.log)

    async def on_digest(message):
        answer = {"ordinal": story.cell.state.ordinal, "digest": digest(story.cell)}
        await message.respond(msgspec.json.encode(answer))

    await cell.bus.subscribe(cell.bus.subjects.engine("digest"), on_digest)
    config = cell.config()
    config = msgspec.structs.replace(config, checkpoint_copy=f"{config.state_dir}/copy")
    tasks = [asyncio.create_task(process(config)) for process in (project, run)]
    async with asyncio.timeout(30):
        while not await answered(cell, "status"):
            pass
    yield story
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def answered(cell, question):
    """Whether the archiver has subscribed yet."""
    from engine.bus.client import NoResponders

    try:
        await cell.bus.request(cell.bus.subjects.history(question), b"", timeout_s=10)
    except NoResponders:
        return False
    return True


async def ask(cell, question, payload=b"", of=None):
    answer = await cell.bus.request(cell.bus.subjects.history(question), payload, timeout_s=30)
    return msgspec.json.decode(answer, type=of) if of else msgspec.json.decode(answer)


async def test_questions_are_answered_over_the_bus(cell, story):
    sealed = await ask(cell, "seal", of=SegmentsAnswer)
    assert sealed.ordinal == story.cell.state.ordinal
    assert await ask(cell, "segments", of=SegmentsAnswer) == sealed

    verified = await ask(cell, "verify", of=VerifyAnswer)
    assert (verified.intact, verified.segments) == (True, 1)

    window = msgspec.json.encode({"project": story.demo.project_id, "start": story.now - 10**10})
    billed = await ask(cell, "bill", window, of=BillAnswer)
    assert float(billed.bills[0].total) > 0
    again = await ask(
        cell,
        "bill",
        msgspec.json.encode(
            {"end": billed.end, "project": story.demo.project_id, "start": story.now - 10**10}
        ),
        of=BillAnswer,
    )
    assert again.bills == billed.bills

    used = await ask(cell, "usage", window)
    assert used["as_of"] == story.cell.state.ordinal

    status = await ask(cell, "status", of=StatusAnswer)
    assert (status.sealed, status.head) == (sealed.ordinal, sealed.ordinal)


async def test_what_was_acknowledged_before_the_question_is_in_the_answer(cell, story):
    await ask(cell, "seal")
    server = story.server(story.demo, name="newest")
    await written(story, cell.log)

    used = await ask(cell, "usage")

    assert used["as_of"] == story.cell.state.ordinal
    assert server in {row["resource_id"] for row in used["usage"]}


async def test_a_replay_is_compared_with_the_engine(cell, story):
    answer = await ask(cell, "replay")

    assert answer["digest"] == digest(story.cell)
    assert answer["matches"] is True


@pytest.mark.parametrize(
    ("question", "payload", "status"),
    [
        ("bill", b'{"start": "yesterday"}', 400),
        ("bill", b"not JSON", 400),
        ("usage", b'{"start": 5, "end": 4}', 400),
        ("usage", b'{"colour": 1}', 400),
        ("bill", b'{"price_list": "none"}', 404),
        ("fortune", b"", 400),
    ],
)
async def test_bad_questions_are_told_why(cell, story, question, payload, status):
    answer = await ask(cell, question, payload)

    assert answer["error"]["status"] == status
    assert answer["error"]["reason"]


async def test_a_broken_history_is_said_so(cell, story):
    await ask(cell, "seal")
    (segment,) = History(history_path(cell.config())).segments()
    path = History(history_path(cell.config())).path(segment)
    path.write_bytes(path.read_bytes()[:-1])

    verified = await ask(cell, "verify")

    assert verified["intact"] is False
    assert segment.name in verified["why"]


async def test_an_id_that_came_again_is_told_with_the_proof(cell, story):
    story.ok(story.demo, CreateNetwork(name="first"), request_id="req-again")
    story.refused(story.demo, CreateNetwork(name="second"), request_id="req-again")
    await written(story, cell.log)
    async with asyncio.timeout(30):
        while (await ask(cell, "status"))["head"] < story.cell.state.ordinal:
            pass

    verified = await ask(cell, "verify", of=VerifyAnswer)

    assert verified.intact
    assert [(alarm.request_id, alarm.what) for alarm in verified.alarms] == [
        ("req-again", "other_content")
    ]


async def test_what_is_sealed_is_signed_and_can_be_proven(cell, story):
    await ask(cell, "seal")
    signed = await ask(cell, "checkpoint", of=Checkpoint)
    assert signed.ordinal == story.cell.state.ordinal
    verified = await ask(cell, "verify", of=VerifyAnswer)
    assert verified.intact
    assert verified.checkpoints >= 1

    keys = read_public((await ask(cell, "key"))["keys"].encode())
    lines = await ask(cell, "checkpoints", b'{"after": 0}')
    assert held([line.encode() for _, line in lines["lines"]], keys).checkpoints[-1] == signed
    proof = await cell.bus.request(cell.bus.subjects.history("proof"), b'{"of": "3"}', timeout_s=30)
    assert check_proof(proof, keys).ordinal <= 3
    assert (await ask(cell, "proof", b'{"of": "req-none"}'))["error"]["status"] == 404
    copied = (tmp := history_path(cell.config()).parent) / "copy" / "checkpoints.jsonl"
    assert copied.read_bytes() == (tmp / "checkpoints" / "checkpoints.jsonl").read_bytes()


async def test_sealing_is_due_by_count_and_by_age(cell, tmp_path):
    story = a_small_story()
    await written(story, cell.log)
    config = cell.config()
    reader = Reader(read_model_path(config))
    OPENED.append(reader)
    heard = Heard()
    await cell.bus.subscribe(cell.bus.subjects.projected("node-1"), heard.on)
    task = asyncio.create_task(project(config))
    await heard.reached(story.cell.state.ordinal)

    def read(after_seq):
        user, password = config.nats_user, config.nats_password
        return replay(config.nats_url, user, password, cell.bus.subjects.log_stream, after_seq)

    def archiver(**limits):
        history = History(tmp_path / "history")
        archive = Archive(history, read, reader)
        notary = Notary("c", keys_of(config), book_of(config), read, history, reader)
        return Archiver(cell.bus, cell.log, archive, reader, notary=notary, **limits)

    oldest = 1_700_000_000 * SECOND
    patient = archiver(segment_ordinals=10_000, segment_age_s=300.0)
    busy = archiver(segment_ordinals=20, segment_age_s=10.0**9)

    assert await patient.seal_due(oldest + 299 * SECOND) is False
    assert await busy.seal_due(oldest) is True
    assert await busy.seal_due(oldest) is False
    assert len(History(tmp_path / "history").segments()) > 2
    story.network(story.other, "10.8.0.0/24")
    await written(story, cell.log)
    await heard.reached(story.cell.state.ordinal)
    assert await patient.seal_due(story.now + 301 * SECOND) is True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
