"""Run directories of the toy as a run leaves them, written without Ray."""

from pathlib import Path

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.search.config.run import Run
from shoal.search.driver.conductor import Conductor, Watcher
from shoal.search.driver.population import conductor_at, go_back
from shoal.search.load import load_run
from shoal.search.messages import Message
from shoal.search.records import directory, tables
from shoal.search.worker import brood
from shoal.search.worker.teams import Team
from shoal.trainables.toy import Toy

TOY = str(Path(__file__).parents[2] / "examples/toy.yaml")


class Told:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def recorded(self, part) -> None: ...

    def failed(self, row, trace) -> None: ...

    def round(self, round_, rows, orders) -> None: ...


def written(place: Path, rounds: int, *changes: str) -> Run:
    """Write a run of the toy up to a round and return it; it has not come to its end."""
    run = load_run(TOY, [f"directory={place}", "training.steps=40", *changes])
    store = directory.create(run)
    state = population.start(run.space(), run.population.members, run.seed)
    tables.write_starts(store, state)
    goes_on(Conductor(run, store, run.space(), run.rules(), state, lambda *told: None, Told()), rounds)
    store.write_json(directory.SUMMARY, {"status": "interrupted"})
    return run


def open_conductor(run: Run, store: Store, watcher: Watcher) -> Conductor:
    """Return the conductor that goes on from the run's newest whole round; its orders go nowhere."""
    return conductor_at(go_back(run, store, watcher), run, store, lambda *told: None, watcher)


def goes_on(conductor: Conductor, until: int) -> None:
    """Train to a round as one brood does, from the conductor's own round and its files."""
    store, given = conductor.store, {}
    members = {number: Toy(known.hyperparameters) for number, known in enumerate(conductor.state)}
    if conductor.round:
        for number, member in members.items():
            saved = checkpoints.load_member(store, conductor.round, number)
            member.load(saved, conductor.state[number].hyperparameters)
    found = [Team({number: member}) for number, member in members.items()]
    conductor.give_orders = given.__setitem__
    for round_ in range(conductor.round + 1, until + 1):
        rows = brood.train_teams(found, conductor.run.population.interval, {})
        step = round_ * conductor.run.population.interval
        conductor.receive(Message([row._replace(round=round_, step=step) for row in rows]))
        brood.follow(None, round_, given[round_].orders, found)
        for number, member in members.items():
            checkpoints.save_member(store, round_, number, member.state())
    conductor.wait()


def content(place: Path) -> dict[str, bytes]:
    """Return every file of a directory by its place."""
    return {
        str(file.relative_to(place)): file.read_bytes() for file in sorted(place.rglob("*")) if file.is_file()
    }


def newest(run: Run) -> Path:
    round_ = checkpoints.latest(Store(run.directory), range(run.population.members))
    return Path(run.directory, f"checkpoints/round-{round_:06d}")
