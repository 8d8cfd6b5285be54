"""What must hold at the end of every simulation, told from the outside.

The log is read here by the schemas alone, and folded by rules of this module's own where what is
checked is the fold. The clients' own record, the hosts' own record and the log must agree.
"""

from collections import Counter

import msgspec

from engine.domain.fold import fold
from engine.domain.state import digest
from engine.log.commit import GENESIS, ChainBroken, check_commit
from projections import files, models, store
from projections.metering import intervals
from schemas import compute as c
from schemas import operation as o
from schemas.envelope import Accepted, decode_commit
from schemas.units import SECOND
from tests.simulation.clients import NOT_RECORDED, reply_of
from tests.simulation.determinism import truth

# How long after its deadline an operation may be open while the cell is whole.
OVERDUE_S = 30.0
ENDINGS = (
    o.OperationSucceeded,
    o.OperationFailed,
    o.OperationCancelled,
    o.OperationTimedOut,
)
STARTING = (c.ServerBuildStarted, c.ServerStartRequested, c.ServerRebootRequested)
# Why a domain that ran may be taken down.
ENDING = (
    c.ServerStopRequested,
    c.ServerRebootRequested,
    c.ServerDeleteRequested,
    c.ServerStopped,
    c.ServerFailed,
    c.ServerTaskFailed,
)
# What may pass between a domain's real start and the moment its agent looks at its clock.
LOOK = SECOND


class Line:
    """A record of the log, with its place."""

    __slots__ = ("at", "epoch", "facts", "last", "record", "request", "stored_at")

    def __init__(self, commit, stored_at, record, last):
        self.at = commit.at
        self.epoch = commit.epoch
        self.stored_at = stored_at
        self.record = record
        self.request = record.request
        self.facts = record.facts
        self.last = last


def violations(world):
    """Return what does not hold, as sentences; empty if all is well."""
    found = list(world.defects)
    if not world.at_rest:
        found.append("the cell did not come to rest: " + _why(world))
    lines, broken = _read(world)
    if broken:
        return [*found, broken]
    for line in lines[world.genesis.records :]:
        world.met.update(type(fact).__name__ for fact in line.facts)
        world.met[type(line.request.action).__name__] += 1
    found += _times(lines)
    found += _acknowledged(world, lines)
    found += _operations(world, lines)
    found += _quotas(world, lines)
    found += _reported(world, lines)
    found += _boots(world, lines)
    if world.at_rest:
        found += _copies(world)
        found += _metering(world, lines)
    return found


def _why(world):
    leader = world.leader
    if leader is None:
        return "nobody leads"
    state = leader.folded.cell.state
    asking = [p.name for p in world.people if not p.finished]
    open_ones = [f"{x.kind} of {x.resource_id} on {x.host_id}" for x in state.operations.values()]
    differing = [d for h in world.hosts for d in world.differences(h, leader.folded.cell)]
    ordinals = {n: x.folded.cell.state.ordinal for n, x in world.candidates.items()}
    return f"asking {asking}, open {open_ones}, different {differing}, at {ordinals}"


def _read(world):
    """Check the chain and return the records behind the genesis."""
    prev, first, epoch, at = GENESIS, 1, 0, 0
    lines = []
    for stored in world.broker.commits:
        try:
            head = check_commit(stored.data, prev, first)
        except ChainBroken as error:
            return [], f"the chain is broken at sequence {stored.seq}: {error}"
        if head.epoch < epoch:
            return [], f"the epoch goes back from {epoch} to {head.epoch} at sequence {stored.seq}"
        if head.at < at:
            return [], f"time goes back from {at} to {head.at} at sequence {stored.seq}"
        prev, epoch, at = head.hash, head.epoch, head.at
        commit = decode_commit(stored.data)
        ordinal = first
        for record in commit.records:
            ordinal += 1 + len(record.facts)
            lines.append(Line(commit, stored.ts, record, ordinal - 1))
        first = head.next_first
    return lines, ""


def _times(lines):
    """Facts claim no time before their cause, and none after the commit that holds them."""
    found = []
    for line in lines:
        for fact in line.facts:
            observed = getattr(fact, "observed_at", None)
            if observed is not None and observed > line.at:
                found.append(f"{fact} of ordinal {line.last} was observed after its commit")
    return found


# What clients were told


def _acknowledged(world, lines):
    by_id = {}
    found = []
    for line in lines:
        request_id = line.request.request_id
        if request_id in by_id:
            found.append(f"the request {request_id} is in the log twice")
        by_id[request_id] = line
    for person in world.people:
        for intent in person.intents:
            for asked, outcome in intent.told:
                found += _told(intent, asked, outcome, by_id)
    return found + _keys(lines)


def _told(intent, asked, outcome, by_id):
    verdict = outcome.verdict
    if not isinstance(verdict, Accepted) and verdict.code in NOT_RECORDED:
        if verdict.code == "KeyReused" and not intent.reuses:
            return [f"{intent.action} was refused for a key that was its own"]
        return []
    line = by_id.get(outcome.request_id)
    if line is None:
        return [f"{asked} was acknowledged as {outcome.request_id}, which is not in the log"]
    found = []
    if line.last != outcome.ordinal:
        found.append(f"{asked} was told ordinal {outcome.ordinal}, the log has it at {line.last}")
    if msgspec.json.encode(line.record.verdict, order="sorted") != reply_of(outcome):
        found.append(f"{asked} was told {verdict}, the log has {line.record.verdict}")
    if line.request.action != intent.action:
        found.append(f"{asked} was answered as if it were {line.request.action}")
    if outcome.request_id != asked and line.request.key != intent.key:
        found.append(f"{asked} was answered with another's outcome")
    return found


def _keys(lines):
    done = Counter(
        (line.request.actor.user_id, line.request.key)
        for line in lines
        if line.request.key is not None
    )
    return [f"the key {key} was carried out {n} times" for (_, key), n in done.items() if n > 1]


# Operations


def _quotas(world, lines):
    """Who has a quota never holds more, and is refused only what would be more."""
    held, project_of, found = Counter(), {}, []
    for line in lines:
        project = line.request.actor.project_id
        code = getattr(line.record.verdict, "code", "")
        if code == "QuotaExceeded":
            world.met["quota"] += 1
            told = line.record.verdict.fields
            if (told["resource"], told["used"]) != ("servers", held[project]):
                found.append(f"{told} is told at ordinal {line.last}, {held[project]} are there")
            if held[project] < world.genesis.servers_max.get(project, 0):
                found.append(f"a server is refused at ordinal {line.last} while there is room")
        for fact in line.facts:
            if isinstance(fact, c.ServerCreated):
                project_of[fact.server.server_id] = fact.server.project_id
                held[fact.server.project_id] += 1
            elif isinstance(fact, c.ServerDeleted):
                held[project_of[fact.server_id]] -= 1
        for project_id, most in world.genesis.servers_max.items():
            if held[project_id] > most:
                found.append(f"{held[project_id]} servers of {most} at ordinal {line.last}")
    return found


def _operations(world, lines):
    found = []
    started = {}
    ended = {}
    for line in lines:
        for fact in line.facts:
            if isinstance(fact, o.OperationStarted):
                started[fact.operation.operation_id] = fact.operation
            elif isinstance(fact, ENDINGS):
                operation = started.get(fact.operation_id)
                if operation is None:
                    found.append(f"{fact} ends what never began")
                    continue
                if fact.operation_id in ended:
                    found.append(f"the operation {fact.operation_id} has two terminal facts")
                ended[fact.operation_id] = line
                found += _ending(operation, fact, line, world.skew_seen)
    for operation_id, operation in started.items():
        line = ended.get(operation_id)
        if line is None and world.at_rest:
            found.append(f"the operation {operation_id} ({operation.kind}) never ended")
        overdue = (line.at if line is not None else truth(world.loop)) - operation.deadline
        allowed = (OVERDUE_S + world.plan.trouble_s) * SECOND + 2 * world.skew_seen
        if overdue > allowed:
            found.append(f"the operation {operation_id} outlived its deadline")
    return found


def _ending(operation, fact, line, skew):
    """Whether whoever ended an operation could."""
    action, actor = line.request.action, line.request.actor
    name = f"{operation.kind} {operation.operation_id}"
    match fact:
        case o.OperationSucceeded() | o.OperationFailed():
            if not isinstance(action, o.ReportOperation):
                return [f"{name} was ended by {action}"]
            if actor.host_id != operation.host_id:
                return [f"{name} was ended by {actor.host_id}, whose it is not"]
            if action.generation != operation.generation:
                return [f"{name} was ended by a report of another generation"]
            if action.succeeded != isinstance(fact, o.OperationSucceeded):
                return [f"{name} was reported otherwise than it ended"]
        case o.OperationTimedOut():
            early = operation.deadline - line.stored_at
            if not isinstance(action, o.PassDeadline) or early > skew:
                return [f"{name} timed out {early} us before its deadline"]
        case _:
            if not isinstance(action, c.DeleteServer):
                return [f"{name} was cancelled by {action}"]
    return []


# Hosts


def _reported(world, lines):
    """What hosts reported is what they did."""
    found = []
    runs = {(r.server_id, r.boot) for host in world.hosts for r in host.runs}
    servers = {}
    for line in lines:
        for fact in line.facts:
            match fact:
                case c.ServerPlaced():
                    servers[fact.server_id] = fact.host_id
                case c.ServerStarted() | c.ServerRebooted():
                    if (fact.server_id, fact.boot) not in runs:
                        found.append(f"{fact} is told, and never happened")
                case c.ServerStopped():
                    actor = line.request.actor
                    if actor.kind != "agent" or actor.host_id != servers[fact.server_id]:
                        found.append(f"{fact} is told by {actor}")
                case _:
                    pass
    return found


def _boots(world, lines):
    """What an agent does to a domain has its reason in the log, stored before; and is done once."""
    found = []
    asked = {}
    against = {}
    for line in lines:
        for fact in line.facts:
            if isinstance(fact, STARTING):
                asked.setdefault((fact.server_id, fact.boot), line.stored_at)
            if isinstance(fact, ENDING):
                against.setdefault(fact.server_id, []).append(line.stored_at)
    for host in world.hosts:
        found += [f"{server} was started again under boot {boot}" for server, boot in host.repeated]
        for run in host.runs:
            key = run.server_id, run.boot
            if run.start < asked.get(key, run.start + 1):
                found.append(f"{key} was started before the log had it")
            if run.taken_down and run.noted:
                since = asked.get(key, 0)
                if not any(since <= t <= run.end for t in against.get(run.server_id, ())):
                    found.append(f"{key} was taken down at {run.end} without a reason")
    return found


# Copies of the truth


def _copies(world):
    """Replays and read models say what the leader says."""
    found = []
    datas = [stored.data for stored in world.broker.commits]
    replayed = digest(fold(datas))
    for name, candidate in world.candidates.items():
        if digest(candidate.folded.cell) != replayed:
            role = "leader" if candidate.engine is not None else "standby"
            found.append(f"{name}, the {role}, has another state than a replay")
    current = files.open_current(world.model_path)
    if current is None:
        return [*found, "there is no read model"]
    fresh = world.genesis.read_model_in_memory()
    try:
        for stored in world.broker.commits[len(world.genesis.datas) :]:
            models.apply_commit(fresh, stored.seq, stored.data)
        fresh.commit()
        if current.position != fresh.position:
            found.append(f"the read model stands at {current.position}, not at {fresh.position}")
        elif store.digest(current.db) != store.digest(fresh.db):
            found.append("the read model differs from a fresh one")
    finally:
        current.db.close()
        fresh.db.close()
    return found


# Metering


def _metering(world, lines):
    """What is metered is what ran, as far as it was reported."""
    found = []
    facts = []
    for line in lines:
        ordinal = line.last - len(line.facts)
        for fact in line.facts:
            ordinal += 1
            facts.append((ordinal, line.at, fact))
    metered = {}
    for interval in intervals(facts):
        if interval.meter == "compute.vcpu":
            metered.setdefault(interval.resource_id, []).append(interval)
    hosts = {}
    for _, _, fact in facts:
        if isinstance(fact, c.ServerPlaced):
            hosts[fact.server_id] = next(
                (h for h in world.hosts if h.host_id == fact.host_id), None
            )
    slack = LOOK + 2 * world.skew_seen
    plan = world.plan
    prompt = not (plan.slow_driver or plan.wrong_times or plan.skew_s)
    disturbed = _not_done(lines)
    for server_id, host in hosts.items():
        if host is None:
            continue
        mine = metered.get(server_id, [])
        runs = [run for run in host.runs if run.server_id == server_id]
        runs_now = server_id in host.running()
        is_open = any(interval.end is None for interval in mine)
        if is_open != runs_now and not host.lost:
            found.append(f"{server_id} is metered: {is_open}, runs: {runs_now}")
        if host.calm and prompt and server_id not in disturbed:
            world.met["metered_exactly"] += 1
            found += _exactly(server_id, mine, runs, slack, truth(world.loop))
    return found if world.plan.wrong_times else [*found, *_within(lines, world, slack)]


def _not_done(lines):
    """Return the servers of which something was given up, or told when it counted no more."""
    kinds = (o.OperationFailed, o.OperationTimedOut, o.OperationCancelled)
    given_up = set()
    of = {}
    for line in lines:
        action, verdict = line.request.action, line.record.verdict
        late = isinstance(verdict, Accepted) and "late" in verdict.reply
        if late and isinstance(action, c.ReportServerState):
            given_up.add(action.server_id)
        for fact in line.facts:
            if isinstance(fact, o.OperationStarted):
                of[fact.operation.operation_id] = fact.operation.resource_id
            elif isinstance(fact, kinds):
                given_up.add(of[fact.operation_id])
    return given_up


def _within(lines, world, slack):
    """Nobody is told to run before they did, or to have stopped while they still ran."""
    found = []
    runs = {}
    for host in world.hosts:
        for run in host.runs:
            runs.setdefault((run.server_id, run.boot), []).append(run)
    for line in lines:
        for fact in line.facts:
            if isinstance(fact, c.ServerStarted | c.ServerRebooted):
                mine = runs.get((fact.server_id, fact.boot), ())
                if mine and fact.observed_at + slack < min(run.start for run in mine):
                    early = min(run.start for run in mine) - fact.observed_at
                    found.append(f"{fact} says so {early} us before it ran")
            elif isinstance(fact, c.ServerStopped):
                mine = runs.get((fact.server_id, fact.boot), ())
                ends = [run.end for run in mine]
                if mine and (None in ends or fact.observed_at + slack < max(ends)):
                    found.append(f"{fact} says so while it still ran, to {ends}")
    return found


def _exactly(server_id, mine, runs, slack, now):
    """Where nothing befell the host or its agent, the sums agree, whatever befell the engine."""
    ran = sum((run.end or now) - run.start for run in runs)
    counted = sum((interval.end or now) - interval.start for interval in mine)
    if abs(ran - counted) > slack * (1 + len(runs)):
        return [f"{server_id} ran for {ran} us and is metered for {counted} us"]
    return []
