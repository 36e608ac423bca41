import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from plotly import graph_objects
from plotly.offline import get_plotlyjs

from shoal.cluster import lease
from shoal.cluster.storage import Store
from shoal.policies import population, space
from shoal.policies.population import Report
from shoal.policies.rules import LEFT_ALONE, Rules
from shoal.policies.standings import rank
from shoal.search.errors import InputError
from shoal.search.messages import Row
from shoal.search.records import tables
from shoal.search.records.lineage import ancestry, read_lineage
from shoal.search.report.drawing import calm_axis, log_ticks, number_axis
from shoal.search.report.figure_tables import curve_table
from shoal.search.report.story import Story, read_story
from shoal.search.report.wording import count, duration
from shoal.search.report.write import changed, write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STEPS = 20  # in a round

SEARCHED = {
    "learning_rate": {"kind": "float", "low": 0.0003, "high": 0.03, "log": True},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.5, "log": False},
    "batch": {"kind": "int", "low": 8, "high": 128, "log": True},
    "beta2": {"kind": "ordered", "values": [0.9, 0.95, 0.98, 0.99]},
    "optimiser": {"kind": "categorical", "values": ["adamw", "lion", "sgd"]},
    "tied": {"kind": "bool"},
}


@dataclass(frozen=True)
class Made:
    """What a synthetic run is made of; the losses behave, nothing is trained."""

    members: int = 8
    rounds: int = 10
    planned: int = 10
    groups: tuple[str, ...] = ("code", "docs", "law")
    searched: dict = field(default_factory=lambda: SEARCHED)
    name: str = "demo"
    trainable: str = "decoder"
    status: str | None = "done"
    rules: Rules = Rules()
    failing: tuple[int, ...] = ()
    seed: int = 2


def make(store: Store, made: Made) -> Store:
    """Write a run directory through the same records that a run writes."""
    domains = {
        name: space.DOMAINS[each["kind"]](
            **{key: tuple(value) if key == "values" else value for key, value in each.items() if key != "kind"}
        )
        for name, each in made.searched.items()
    }
    settings = {
        "name": made.name,
        "trainable": made.trainable,
        "training": {"steps": made.planned * STEPS},
        "hyperparameters": made.searched,
    }
    store.write("run.yaml", yaml.safe_dump(settings, sort_keys=False))
    state = population.start(domains, made.members, made.seed)
    tables.write_starts(store, state)
    rng = np.random.default_rng(made.seed)
    levels = np.full(made.members, 5.4)  # validation loss of each slot's weights
    exploits, rows = 0, []
    for round_ in range(1, made.rounds + 1):
        for member, each in enumerate(state):
            rate = each.hyperparameters.get("learning_rate", 0.003)
            levels[member] = trained(levels[member], rate, round_ / made.planned, rng)
        rows = [row(made, member, round_, levels[member], rng) for member in range(made.members)]
        reports = [Report(each.member, each.step, each.score) for each in rows]
        rules = made.rules if round_ < made.planned else LEFT_ALONE
        before = state
        state, orders = population.decide(rules, domains, before, reports, made.seed)
        tables.write_metrics(store, round_, rows)
        tables.write_events(store, round_, tables.copy_events(orders, dict(enumerate(rows)), before))
        for order in orders:
            levels[order.member] = levels[order.donor]
        exploits += len(orders)
    if made.status == "done":
        summarise(store, made, rows, exploits)
    elif made.status:
        store.write_json(
            "summary.json", {"status": made.status, "members": made.members, "rounds": made.planned}
        )
    return store


def trained(level, rate, progress, rng):
    """The best learning rate falls from 0.01 to 0.001, so a schedule beats every constant."""
    speed = 0.3 * math.exp(-abs(math.log(rate / (0.01 * 0.1**progress))))
    return 1.2 + (level - 1.2) * (1 - speed) + 0.01 * rng.normal()


def row(made, member, round_, level, rng):
    score = math.nan if member in made.failing and round_ > 1 else -level
    losses = {group: level + 0.3 * place + 0.02 * rng.normal() for place, group in enumerate(made.groups)}
    return Row(
        member,
        round_,
        round_ * STEPS,
        brood=member % 2,
        score=score,
        train_loss=level - 0.05,
        train_seconds=1.5,
        evaluate_seconds=0.2,
        losses=losses,
        tokens=round_ * STEPS * 2048,
    )


def summarise(store, made, rows, exploits):
    best = rank({each.member: each.score for each in rows})[0]
    store.write_json(
        "summary.json",
        {
            "status": made.status,
            "best_member": best,
            "best_score": rows[best].score,
            "exploits": exploits,
            "wall_seconds": 245.3,
            "tokens": sum(each.tokens for each in rows),
            "test_loss": {group: 0.1 + place - rows[best].score for place, group in enumerate(made.groups)},
            "members": made.members,
            "rounds": made.rounds,
        },
    )


def with_baseline(store: Store, made: Made) -> Store:
    make(store, made)
    make(Store(f"{store.uri}/baseline"), Made(**vars(made) | {"rules": LEFT_ALONE}))
    return store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run with everything a report can show."""
    return with_baseline(Store(str(tmp_path_factory.mktemp("whole"))), Made())


@pytest.fixture(scope="module")
def page(whole):
    return page_of(whole)


def page_of(store: Store) -> str:
    write_report(store)
    return store.read("report.html").decode()


def figures_of(page: str) -> dict:
    found = re.findall(r'<script type="application/json" id="([\w-]+)-figure">(.*?)</script>', page, re.S)
    return {name: json.loads(text) for name, text in found}


def told(page: str) -> str:
    """The page as a person reads it, without scripts, styles and tags."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


def points(trace: dict) -> list:
    return list(zip(trace["x"], trace["y"], strict=True))


def test_the_header_says_who_won_and_where_its_weights_came_from(whole, page):
    page, summary = told(page), whole.read_json("summary.json")
    path = ancestry(read_lineage(whole), summary["best_member"])
    assert len(path) > 2, "the fixture should have a chain of copies"
    assert f"Member {summary['best_member']} won with validation loss {-summary['best_score']:.4f}" in page
    assert f"Its weights began in member {path[0].member} and were copied {len(path) - 1} times" in page
    chain = " → ".join(f"member {each.member}" for each in path)
    steps = re.sub(r" steps \d+ to \d+", "", page.replace("  ", " "))
    assert chain.replace(" → ", " ") in steps
    for shown in ("exploits 18", "members 8", "tokens 3.28 M", "wall time 4 min 05 s", "rounds 10"):
        assert shown in page
    for group, loss in summary["test_loss"].items():
        assert f"test loss, {group} {loss:.4f}" in page


def test_every_figure_is_one_that_plotly_takes(page):
    figures = figures_of(page)
    schedules = [f"schedule-{place}" for place in range(6)]
    assert [*figures] == ["genealogy", "scores", *schedules, "group-0", "group-1", "group-2", "baseline"]
    for figure in figures.values():
        graph_objects.Figure(figure)  # refuses unknown attributes and values


def test_the_schedule_of_the_winner_is_told_and_drawn(whole, page):
    path = ancestry(read_lineage(whole), whole.read_json("summary.json")["best_member"])
    rates = [each.hyperparameters["learning_rate"] for each in path]
    assert f"learning_rate {' → '.join(f'{rate:.4g}' for rate in rates)} (log scale)" in told(page)
    figure = figures_of(page)["schedule-0"]
    assert figure["layout"]["yaxis"]["type"] == "log"
    winner = points(figure["data"][1])
    assert winner[0] == (0, pytest.approx(rates[0], rel=1e-5))
    assert winner[-1] == (200, pytest.approx(rates[-1], rel=1e-5))
    assert f"{path[0].from_step} to {path[0].to_step}" in told(page)


def test_categories_have_an_axis_in_the_order_of_their_domain(page):
    figures = figures_of(page)
    assert figures["schedule-3"]["layout"]["yaxis"]["ticktext"] == ["0.9", "0.95", "0.98", "0.99"]
    assert figures["schedule-4"]["layout"]["yaxis"]["ticktext"] == ["adamw", "lion", "sgd"]
    assert figures["schedule-5"]["layout"]["yaxis"]["ticktext"] == ["false", "true"]


def by_hand(store: Store) -> Store:
    """Two members, three rounds of 10 steps; after round 2 member 0 (loss 3) copies member 1 (loss 2)."""
    store.write(
        "run.yaml", "name: hand\ntraining: {steps: 30}\nhyperparameters: {h: {kind: float, low: 0, high: 9}}"
    )
    start = (population.MemberState({"h": 1.0}), population.MemberState({"h": 2.0}))
    tables.write_starts(store, start)
    losses = {1: (5.0, 4.0), 2: (3.0, 2.0), 3: (1.0, 1.5)}
    for round_, found in losses.items():
        rows = [Row(member, round_, 10 * round_, score=-loss) for member, loss in enumerate(found)]
        tables.write_metrics(store, round_, rows)
    order = population.Order(0, 1, {"h": 4.0})
    told = {member: Row(member, 2, 20, score=score) for member, score in ((0, -3.0), (1, -2.0))}
    tables.write_events(store, 2, tables.copy_events([order], told, start))
    return store


def test_a_hand_worked_run_is_drawn_as_it_went(store):
    page = page_of(by_hand(store))
    figures = figures_of(page)
    assert "Member 0 leads with validation loss 1.0000 after 30 steps" in told(page)
    members, jumps, winner, star = (points(trace) for trace in figures["scores"]["data"])
    gap = (None, None)
    first, second = [(10, 5.0), (20, 3.0)], [(20, 2.0), (30, 1.0)]
    assert members == [*first, gap, *second, gap, (10, 4.0), (20, 2.0), (30, 1.5)]
    assert jumps == [(20, 3.0), (20, 2.0)]
    assert winner == [(10, 4.0), (20, 2.0), *second] and star == [(30, 1.0)]
    # lanes lean 4.5 steps after a copy; the weights of member 0's first stay are lost
    *lanes, thick, _ = (points(trace) for trace in figures["genealogy"]["data"])
    assert [(0, 0), (20, 0)] in lanes
    assert [(24.5, 0), (30, 0), gap, (0, 1), (30, 1)] in lanes
    assert [(20, 1), (24.5, 0)] in lanes
    assert thick == [(0, 1), (20, 1), (24.5, 0), (30, 0)]
    assert points(figures["schedule-0"]["data"][1]) == [(0, 2.0), (20, 2.0), (20, 4.0), (30, 4.0)]


def test_a_space_within_the_space_is_drawn_by_whole_names(store):
    store.write(
        "run.yaml",
        "name: nest\ntraining: {steps: 10}\nhyperparameters: {a: {h: {kind: float, low: 0, high: 9}, "
        "deep: {flag: {kind: bool}}}}",
    )
    start = (population.MemberState({"a": {"h": 1.5, "deep": {"flag": True}}}),)
    tables.write_starts(store, start)
    tables.write_metrics(store, 1, [Row(member=0, round=1, step=10, score=-1.0)])
    story = read_story(store)
    assert story.hyperparameters == ["a.h", "a.deep.flag"]
    assert story.path[0].hyperparameters == {"a.h": 1.5, "a.deep.flag": True}
    assert figures_of(page_of(store))["schedule-1"]["layout"]["yaxis"]["ticktext"] == ["false", "true"]


def test_the_median_and_the_middle_half_are_those_of_the_members_that_did_not_fail():
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, math.nan]
    rows = {member: [{"round": 1, "step": 10, "loss_code": loss}] for member, loss in enumerate(losses)}
    story = Story("", {}, {}, [], rows)
    assert story.quantiles("loss_code", (0.25, 0.5, 0.75)) == [[(10, 2.0)], [(10, 3.0)], [(10, 4.0)]]


def test_the_run_without_exploits_stands_beside(whole, page):
    story = read_story(whole)
    ours, alone = (-read["best_score"] for read in (story.summary, story.controls["baseline"].summary))
    assert ours < alone, "the fixture should gain by exploits"
    assert f"best validation loss {ours:.4f} {alone:.4f} {ours - alone:+.4f}" in told(page)
    step = next(step for step, value in story.best_so_far(story.rows) if value <= alone)
    assert step < 200 and f"had reached {alone:.4f} by step {step}; without exploits that took 200" in told(
        page
    )


def test_the_toy_has_a_score_and_no_loss(store):
    searched = {name: {"kind": "float", "low": 0.0, "high": 1.0} for name in ("h0", "h1")}
    page = page_of(make(store, Made(members=4, trainable="toy", groups=(), searched=searched)))
    assert " won with score -" in told(page)
    assert "loss" not in told(page).lower()
    assert [*figures_of(page)] == ["genealogy", "scores", "schedule-0", "schedule-1"]


def test_one_member_alone_is_its_own_root(store):
    page = told(page_of(make(store, Made(members=1, rules=LEFT_ALONE))))
    assert "Its weights are its own: it copied nobody." in page


def test_a_run_that_goes_on_says_how_far_it_is(store):
    made = make(store, Made(rounds=3, status="running"))
    lease.take(store.uri)  # a run without a driver has stopped
    page = told(page_of(made))
    assert "running, step 60 of 200" in page and " leads with " in page and "rounds 3 of 10" in page
    store.delete("summary.json")
    assert "running, step 60 of 200" in told(page_of(store))


def test_failed_members_are_last_and_marked(store):
    page = page_of(make(store, Made(failing=(1, 2))))
    assert told(page).count(" failed ") >= 2 and "a failed member" in told(page)
    assert "NaN" not in json.dumps(figures_of(page))
    ranking = read_story(store).ranking
    assert set(ranking[-2:]) == {1, 2}


def test_a_run_of_which_all_failed_still_has_a_report(store):
    page = told(page_of(make(store, Made(members=4, failing=(0, 1, 2, 3)))))
    assert "No member has a finite validation loss at step 200: all of them failed." in page


def test_a_large_run_stays_light(store):
    searched = {name: SEARCHED[name] for name in ("learning_rate", "beta2")}
    page = page_of(make(store, Made(members=64, rounds=100, planned=100, searched=searched)))
    assert len(page) - len(get_plotlyjs()) < 1_500_000
    assert max(len(figure["data"]) for figure in figures_of(page).values()) < 20
    assert "more copies" in told(page)


HOSTILE = '</script><script>alert("x")</script><a href="https://example.org">&amp;'


def hostile(store: Store) -> Store:
    """A run with every kind of figure, and with names that would break a careless page."""
    searched = SEARCHED | {HOSTILE: {"kind": "categorical", "values": [HOSTILE, "plain"]}}
    return with_baseline(store, Made(groups=(HOSTILE, "code"), name=HOSTILE, searched=searched))


def test_text_from_users_stays_text(store):
    page = page_of(hostile(store))
    assert "alert(" not in re.sub(r"&lt;script&gt;alert\(|\\u003cscript>alert\(", "", page)
    assert page.count("<script") == len(figures_of(page)) + get_plotlyjs().count("<script") + 2
    assert html.escape(store.read("run.yaml").decode()) in page
    assert HOSTILE in told(page)


def without_tables(page: str) -> list[str]:
    """Return the figures that have no table, neither of their own nor of their section."""
    found = []
    for part in re.findall(r"<section>.*?</section>", page, re.S):
        alone = re.sub(r"<figure>.*?</figure>", "", part, flags=re.S)
        for figure in re.findall(r"<figure>.*?</figure>", part, re.S):
            if "<table>" not in figure and "as a table</summary>" not in alone:
                found += re.findall(r'class="plot" id="([^"]+)"', figure)
    return found


def test_every_figure_has_its_table(page):
    assert without_tables(page) == []
    assert without_tables(page.replace("<table>", "<p>").replace("as a table", "")), "the test can fail"
    scores = re.search(r'aria-label="Validation loss as a table">(.*?)</table>', page, re.S)[1]
    assert '<th scope="col">the winner&#x27;s weights</th>' in scores and '<th scope="row">' in scores


def test_a_table_of_a_long_run_has_evenly_many_steps_and_the_last():
    curve = [(step, step / 10) for step in range(1, 1001)]
    table = curve_table({"best": curve, "worst": [*curve[:-1], (1000, None)]})
    assert len(table.rows) + table.left_out == 1000 and len(table.rows) <= 60
    assert table.rows[-1] == ["1000", "100.0000", ""]


def test_a_phone_and_a_keyboard_reach_everything(page):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    boxes = re.findall(r'<div class="box scroll"([^>]*)>', page)
    assert boxes and all('tabindex="0" role="region" aria-label="' in box for box in boxes)
    plots = re.findall(r'<div class="plot"([^>]*)>', page)
    assert plots and all('role="img" aria-label="' in plot for plot in plots)
    assert page.count("<details>") == page.count("<summary>") and ":focus-visible" in page
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    wide = [size for size in re.findall(r"(?<![-\w])width: ?(\d+)px", style) if int(size) > 336]
    columns = re.findall(r"minmax\((\S+ ?\S*)", style)
    assert not wide and all(column.startswith(("0,", "114px,", "min(100%,")) for column in columns)


def test_the_page_asks_the_network_for_nothing(page):
    assert page.count(get_plotlyjs()) == 1
    own = page.replace(get_plotlyjs(), "")
    assert not re.search(r"""(src|href|action)\s*=|@import|url\(|https?://|\bfetch\(""", own)
    assert "default-src 'none'" in own


def test_the_same_run_is_drawn_the_same_in_the_same_place(whole, page):
    assert write_report(whole) == f"{whole.uri}/report.html"
    assert whole.read("report.html").decode() == page


@pytest.mark.parametrize("name", ["lineage.parquet", "metrics.parquet"])
def test_a_missing_table_is_the_users_to_mend(store, name):
    make(store, Made(rounds=2)).delete(name)
    with pytest.raises(InputError, match=rf"must hold {name} with at least one row.*has finished a round"):
        write_report(store)


def test_a_directory_without_a_run_is_refused(store):
    with pytest.raises(InputError, match=r"not a run directory: it has no run\.yaml"):
        write_report(store)


def test_metrics_of_another_run_are_refused(store):
    make(store, Made(members=2, rounds=1, status=None, rules=LEFT_ALONE))
    tables.write_metrics(store, 2, [Row(member=7, round=2, step=40, score=0.0)])
    with pytest.raises(InputError, match=r"without a start in the lineage: 7"):
        write_report(store)


def test_a_steep_beginning_and_a_divergence_lie_off_the_axis():
    curve = [(step, 9.0 if step < 10 else 2 - step / 100) for step in range(100)]
    axis, note = calm_axis([curve], lower_is_better=True)
    # after the first fifth the values are 1.01 to 1.80; 98 % of these lie below 1.7842; 6 % room on both sides
    assert axis["range"] == pytest.approx([1.01 - 0.06 * 0.7742, 1.7842 + 0.06 * 0.7742])
    assert note.startswith("17 points lie off")  # the ten at 9, and 1.90 to 1.84
    mirrored, _ = calm_axis([[(step, -value) for step, value in curve]], lower_is_better=False)
    assert mirrored["range"] == pytest.approx([-end for end in axis["range"][::-1]])


def test_an_even_curve_is_shown_whole():
    axis, note = calm_axis([[(1, 3.0), (2, None), (3, 1.0)]], lower_is_better=True)
    assert axis["range"] == pytest.approx([0.88, 3.12]) and note == ""
    assert calm_axis([[(1, None)]], lower_is_better=True) == ({}, "")


def test_log_axes_have_round_ticks_within_their_bounds():
    assert log_ticks(0.0003, 0.03) == [0.0003, 0.001, 0.003, 0.01, 0.03]
    assert log_ticks(8, 128) == [10, 20, 50, 100]
    assert log_ticks(1e-9, 1) == [1e-8, 1e-6, 1e-4, 1e-2, 1]
    assert log_ticks(3.1, 4.9) == [3.1, 4.9]
    assert number_axis([0.5], {"low": 0.1, "high": 10.0, "log": True})["range"] == pytest.approx([-1.16, 1.16])


def test_changes_and_sizes_are_short():
    assert changed(0.001, 0.0008) == "0.0008 (x0.80)" and changed(0.9, 0.9) == "0.9"
    assert changed("adamw", "sgd") == "sgd" and changed(False, True) == "true" and changed(0, 5) == "5"
    assert (count(999), count(12_345), count(3_280_000), count(2e12)) == ("999", "12.3 k", "3.28 M", "2 T")
    assert (duration(4.25), duration(245.3), duration(7260)) == ("4.25 s", "4 min 05 s", "2 h 01 min")


def browse(store: Store, folder: Path) -> tuple[str, str]:
    """Return the page after its scripts ran, and what the browser logged."""
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000",
        "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder}/profile", "--window-size=1400,2400",
        f"--screenshot={folder}/page.png", "--dump-dom", f"file://{store.path('report.html')}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=480, check=True)
    return done.stdout, done.stderr


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_a_browser_draws_every_figure_without_a_complaint(store, tmp_path):
    expected = [*figures_of(page_of(hostile(store)))]
    assert len(expected) == 12
    dom, log = browse(store, tmp_path)
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    plots = dict(re.findall(r'<div class="plot[^>]* id="([\w-]+)"(.*?)</figure>', dom, re.S))
    assert [*plots] == expected
    for name, drawn in plots.items():
        assert "main-svg" in drawn and re.search(r'class="(js-line|point)"[^>]* d="M', drawn), name
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_lists_and_infinities_are_shown_as_the_file_has_them(store):
    sizes = {"kind": "ordered", "values": [[32], [64, 32], [128, math.inf]]}
    searched = {"sizes": sizes, "clip": {"kind": "categorical", "values": [0.5, math.inf]}}
    page = page_of(make(store, Made(members=4, rounds=4, planned=4, searched=searched)))
    axes = [figure["layout"]["yaxis"]["ticktext"] for name, figure in figures_of(page).items() if "sch" in name]
    assert axes == [["[32]", "[64, 32]", "[128, inf]"], ["0.5", "inf"]]
