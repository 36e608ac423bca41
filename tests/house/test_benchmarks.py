"""The arithmetic of the benchmarks, on numbers that can be checked by hand."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch

from benchmarks import distill_speed, mixing, objectives, population, stream
from benchmarks.exploit import median
from benchmarks.parts import loaders, lookups, processes
from benchmarks.parts.asha import train_by_asha
from benchmarks.parts.mixers import METHODS, Result, choose, grid
from benchmarks.parts.tasks import Task
from benchmarks.quality import better, interval, summary, train
from shoal.cluster.row_order import RowOrder
from shoal.cluster.rows import token_rows
from shoal.cluster.storage import Store
from shoal.cluster.streams import WholeStream
from shoal.policies.population import start as first_members
from shoal.policies.rules import LEFT_ALONE, Rules
from shoal.policies.space import Float
from shoal.trainables.distill.encoder import ElasticEncoder
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.teachers import Teacher
from shoal.trainables.toy import Toy


def start(process: str, trial: str, time: float, source: str = "") -> dict:
    return {"process": process, "role": "trial", "trial": trial, "source": source, "time": time}


def test_an_exploit_lasts_from_the_receivers_last_report(tmp_path) -> None:
    said = [("a", 10.0), ("b", 11.0), ("a", 12.0), ("b", 13.0), ("a", 20.0)]
    lines = [json.dumps({"trial": trial, "time": time}) for trial, time in said]
    (tmp_path / "1.reports").write_text("\n".join(lines))
    # b goes on from a's weights 2.5 s after it reported; a goes on from its own, which is no exploit
    events = [
        start("1", "a", 1.0),
        start("2", "b", 1.0),
        start("3", "b", 15.5, "a"),
        start("4", "a", 16.0, "a"),
    ]
    assert processes.exploit_seconds(str(tmp_path), events) == [2.5]
    assert processes.copies(events) == 1 and processes.processes_started(events) == 2


def test_a_median_passes_over_what_is_missing() -> None:
    assert median([3.0, None, 1.0, 2.0]) == 2.0
    assert median([None, None]) is None
    assert median([4, 1, 3, 2]) == 2  # a count that occurred


def test_an_interval_holds_the_mean_and_narrows() -> None:
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert 1.0 < low < 3.0 < high < 5.0
    assert interval([2.0, 2.0]) == (2.0, 2.0)
    assert summary([0.5, 1.5])["mean"] == pytest.approx(1.0)


def test_methods_are_compared_seed_by_seed() -> None:
    # the seeds differ by far more than the methods: 1 and 2, 9 and 10 against 1.5 and 2.5, 9.5 and 10.5
    first, second = [1.0, 2.0, 9.0, 10.0], [1.5, 2.5, 9.5, 10.5]
    found = better(first, second, higher=False)
    assert (found["mean"], found["low"], found["high"]) == (0.5, 0.5, 0.5)
    assert better(first, second, higher=True)["mean"] == -0.5


def test_the_stream_benchmark_counts_batches_until_the_new_mixture_and_reads_what_it_says(tmp_path) -> None:
    store = Store(str(tmp_path))
    files = stream.write_groups(store, 2)
    streams = {}
    for group, names in files.items():
        order = RowOrder(group, [stream.FILE_ROWS] * 2, 0)
        blocks = [store.read_table(names[file]) for file in order.files(0)]
        streams[group] = WholeStream(blocks, order, token_rows(stream.LENGTH))
    assert stream.batches_to_new_mixture(streams) == 1
    rows = [next(stream.changing(stream.members_of(streams))), next(stream.gather(500))]
    arrays = loaders.save_arrays(store, files)
    rows += [next(loaders.torch_rows(arrays, stream.BATCH, at_once)).numpy() for at_once in (False, True)]
    assert all(each.shape == (stream.BATCH, stream.LENGTH) and each.dtype == "uint16" for each in rows)
    # three groups in equal parts: the first token is a row's group
    (member,) = stream.members_of(streams)
    counts = np.bincount(member.next()[:, 0], minlength=3)
    assert set(counts.tolist()) == {21, 22}
    mapped, at_once = loaders.Mapped(arrays), loaders.MappedAtOnce(arrays)
    chosen = [3, 2 * stream.FILE_ROWS, 20_000]  # rows of the first, second and third group
    assert (
        [int(mapped[place][0]) for place in chosen] == at_once.__getitems__(chosen)[:, 0].tolist() == [0, 1, 2]
    )


def test_the_plain_loop_trains_as_the_shared_weights_do() -> None:
    torch.manual_seed(0)
    origin = ElasticEncoder(distill_speed.TEACHER)
    shared = SharedTeacher(Teacher(ElasticEncoder(distill_speed.TEACHER)))
    first, second = (distill_speed.member(shared, origin) for _ in range(2))
    first.step()
    distill_speed.plain_step(second)
    pairs = zip(first.module.parameters(), second.module.parameters(), strict=True)
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in pairs)


class Counted(Toy):
    made: ClassVar[list["Counted"]] = []

    def __init__(self, hyperparameters: dict, seed: int):
        super().__init__(hyperparameters)
        self.seed, self.steps = seed, 0
        self.made.append(self)

    def train(self, steps: int) -> float:
        self.steps += steps
        return super().train(steps)


SPACE = {"h0": Float(0.0, 1.0), "h1": Float(0.0, 1.0)}
TOY = Task("toy", Counted, SPACE, members=4, steps=40, interval=4, unit="Q", higher=True)


@pytest.mark.parametrize("method", ["population", "alone", "asha"])
def test_every_method_has_the_same_member_steps_and_the_same_first_members(method: str) -> None:
    Counted.made.clear()
    if method == "asha":
        best = train_by_asha(TOY, 3)
    else:
        best = train(TOY, Rules() if method == "population" else LEFT_ALONE, 3)
    assert sum(member.steps for member in Counted.made) == 4 * 40
    first = [known.hyperparameters for known in first_members(SPACE, 4, 3)]
    assert [member.seed for member in Counted.made[:4]] == [3000, 3001, 3002, 3003]
    if method != "population":  # whose clones have others by now
        assert [member.hyperparameters for member in Counted.made[:4]] == first
        assert best.score() == max(member.score() for member in Counted.made)


def test_students_interval_of_paired_differences() -> None:
    # five values: t(4, 0.975) = 2.776, sd 1.5811, so 2.776 * 1.5811 / sqrt(5)
    assert mixing.interval(np.array([0.0, 1.0, 2.0, 3.0, 4.0])) == pytest.approx(1.9632, abs=1e-3)
    assert mixing.interval(np.zeros(5)) == 0.0


def test_a_choice_among_runs_is_made_by_validation_and_charged() -> None:
    runs = [
        Result(test=5.0, validation=3.0),
        Result(test=4.0, validation=3.5),
        Result(test=6.0, validation=2.0),
    ]
    best = choose(runs, steps=100)
    assert (best.test, best.extra_steps, best.evaluations) == (6.0, 200, 3)


def test_methods_are_paired_with_stratified_by_seed() -> None:
    even = [Result(8.0, 8.0), Result(9.0, 9.0)]
    found = dict.fromkeys(METHODS, even) | {"aioli": [Result(7.0, 7.0), Result(8.0, 8.0)]}
    table = mixing.summary("2 groups", found)
    row = next(row for row in table if row["method"] == "aioli")
    # both seeds fell by 1, so there is no spread at all
    assert (row["delta_perplexity"], row["low"], row["high"]) == (-1.0, -1.0, -1.0)
    won = mixing.wins([table])
    assert won["aioli"] == "1 of 1, 1 certain; 0 certainly worse"
    assert won["ado"] == "0 of 1, 0 certain; 0 certainly worse"


@pytest.mark.parametrize(("groups", "mixtures"), [(2, 2), (3, 6), (5, 10)])
def test_the_grid_stands_around_the_equal_mixture(groups: int, mixtures: int) -> None:
    found = np.array(grid(groups))
    assert found.shape == (mixtures, groups) and np.allclose(found.sum(axis=1), 1)
    assert found[0].tolist() == pytest.approx([3 / (groups + 2), *[1 / (groups + 2)] * (groups - 1)])


@pytest.mark.parametrize(("each", "repeats"), [(10.0, 3), (100.0, 2), (1000.0, 1)])
def test_a_loaded_machine_measures_a_population_less_often_and_says_so(
    monkeypatch, capsys, each, repeats
) -> None:
    now = [0.0]

    def on_ray(*settings) -> tuple[float, float]:
        now[0] += each
        return 2.0, 1.0

    monkeypatch.setattr(population.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(population, "on_ray", on_ray)
    monkeypatch.setattr(population, "bare", lambda *settings: 1.0)
    found = population.compare("Perceptron", 2, 10, 5, True, repeats=3, seconds=250.0)
    assert (found["repeats"], found["ratio"]) == (repeats, 2.0)
    assert ("only" in capsys.readouterr().out) == (repeats < 3)


def test_a_probe_of_lookups_holds_its_value_once_before_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        probe = lookups.probe(rng)
        assert probe.tokens[probe.value].tolist() == probe.tokens[probe.answer].tolist()
        assert probe.answer.stop == len(probe.tokens) and probe.value.start >= 0
        assert probe.answer.start - probe.value.start in (lookups.LONGEST - 2, lookups.LONGEST - 1)


def test_the_fixed_values_of_an_objective_lie_in_the_domain_that_is_searched() -> None:
    for task in objectives.TASKS.values():
        assert len(task.fixed) == 5 and list(task.fixed) == sorted(task.fixed)
        within = [task.domain.low <= value <= task.domain.high for value in task.fixed]
        # one value may lie below, where an objective does nothing
        assert all(within[1:]) and (within[0] or task.number == "margin")


def test_one_row_in_a_hundred_is_rare_and_two_in_a_hundred_have_a_label() -> None:
    assert objectives.rare(0, 5000)["label"].mean() == pytest.approx(0.01, abs=0.005)
    assert objectives.few_labels(0, 5000)["unlabelled"].mean() == pytest.approx(0.98, abs=0.01)
    assert objectives.few_labels(1, 100)["unlabelled"].sum() == 0


def test_a_masked_decoder_of_equal_total_has_as_many_weights_as_the_dense_one() -> None:
    from benchmarks.parts.recipe_masks import SHARES, WIDTH, weights_of, width_of
    from benchmarks.parts.recipe_text import HEAD, decoder
    from shoal.trainables.settings import Recipe

    widths = [width_of(WIDTH, share) for share in SHARES]
    assert all(
        width % HEAD == 0 and width**2 == round(WIDTH**2 * share)
        for width, share in zip(widths, SHARES, strict=True)
    )
    wide, narrow = (weights_of(decoder(Recipe(), 0, width)) for width in (WIDTH, widths[1]))
    # by hand: 12 squares of the width in each of 2 blocks; 256 rows of the embedding and 5 norms beside them
    assert wide == (24 * 96**2, 261 * 96) and narrow == (24 * 48**2, 261 * 48)
    thin = decoder(Recipe(density=(sum(narrow) - wide[1]) / wide[0]), 0, WIDTH)
    there = sum(int(layer.mask_count) for layer in thin.applied.masked.values())
    assert there + wide[1] == sum(narrow)
