"""A run as Prometheus sees it: what PromQL answers is what the run wrote down itself."""

import os
import re
import tempfile
import time
from pathlib import Path

import pytest

from shoal.cluster import dashboard
from shoal.cluster.storage import Store
from shoal.search.records.lineage import read_lineage
from tests.cluster.test_grafana import expressions, filled
from tests.helpers.listening import addresses, descendants
from tests.helpers.runs import small_run, start
from tests.helpers.watching import Prometheus, needs_prometheus, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@needs_prometheus
def test_promql_answers_what_the_run_wrote_down(texts, tmp_path) -> None:
    directory = tmp_path / "run"
    changes = [
        "cluster={broods: 1, workers_per_brood: 2, dashboard: true, stack: false}",
        "training={steps: 6000, batch: 8, warmup: 2, evaluation_rows: 8}",
        "population={members: 4, interval: 1200, exploit: {kind: truncation, fraction: 0.5}}",
    ]
    with tempfile.TemporaryDirectory(prefix="sh-", ignore_cleanup_errors=True) as short:
        discovery = Path(short) / "ray" / "prom_metrics_service_discovery.json"
        discovery.parent.mkdir()
        began = time.time()
        # Ray passes metrics on every 10 s by default
        process = start(
            "run",
            *small_run(texts, directory),
            *changes,
            RAY_TMPDIR=short,
            RAY_metrics_report_interval_ms="1000",
        )
        with Prometheus(tmp_path, discovery) as prometheus:
            wait_until(discovery.exists, 120)
            listening = addresses(descendants(process.pid))
            assert listening and not [place for place in listening if not place.startswith("127.")]
            said, _ = process.communicate(timeout=1120)
            assert process.returncode == 0, said
            ended = time.time()
            compare_with_files(prometheus, directory, began, ended)
            no_panel_is_dead(prometheus, began, ended)
            series = prometheus.at('count({__name__=~"ray_shoal_.+"})', ended - 5)
            print("series", series, os.linesep, said)


def compare_with_files(prometheus: Prometheus, directory: Path, began: float, ended: float) -> None:
    rows = Store(str(directory)).read_table("metrics.parquet").to_pylist()
    mixed = Store(str(directory)).read_table("mixing.parquet").to_pylist()
    copies = [event for event in read_lineage(Store(str(directory))) if event.parent is not None]
    seen = prometheus.over(lately("max(ray_shoal_step)"), began, ended)
    moments = {step: [at for at, other in seen if other == step] for _, step in seen}
    # the last look at a step that stood for some seconds: all that its round emitted had arrived by then
    quiet = {int(step): ats[-1] for step, ats in moments.items() if ats[-1] - ats[0] >= 3}
    assert len(quiet) >= 4, seen
    for step, moment in quiet.items():
        scores = sorted(row["score"] for row in rows if row["step"] == step)
        assert len(scores) == 4

        def value(expression: str, moment: float = moment) -> float:
            (found,) = prometheus.at(lately(expression), moment).values()
            return found

        assert value("max(ray_shoal_best_score)") == pytest.approx(scores[-1], rel=1e-9)
        assert value("max(ray_shoal_median_score)") == pytest.approx((scores[1] + scores[2]) / 2, rel=1e-9)
        assert value("max(ray_shoal_worst_score)") == pytest.approx(scores[0], rel=1e-9)
        assert value("max(ray_shoal_failed_members)") == 0
        assert value("sum(ray_shoal_exploits_total)") == sum(
            event.step <= step and event.parent != event.member for event in copies
        )
        assert value("sum(ray_shoal_member_steps_total)") == 4 * step
        assert value("sum(ray_shoal_tokens_total)") == 4 * step * 8 * 32
        shares = [row["proportion"] for row in mixed if row["step"] == step and row["group"] == "digits"]
        assert len(shares) == 4
        found = value('max(ray_shoal_proportion{group="digits"})')
        assert found == pytest.approx(sum(shares) / 4, rel=1e-9)
        best = max((row for row in rows if row["step"] == step), key=lambda row: row["score"])
        assert value('max(ray_shoal_group_loss{group="digits"})') == pytest.approx(
            best["loss_digits"], rel=1e-9
        )


def lately(expression: str) -> str:
    """Return an expression over each series' last value: on a busy machine a scrape may be missed."""
    return re.sub(r"(ray_shoal_\w+(?:\{[^}]*\})?)", r"last_over_time(\1[10s])", expression)


def no_panel_is_dead(prometheus: Prometheus, began: float, ended: float) -> None:
    """Every query of the dashboard has an answer while the run lasts, but for what did not happen in it."""
    silent = []
    for expression in expressions(dashboard.dashboard()):
        query = filled(expression).replace("toy", "demo")
        found = prometheus.ask("query_range", query=query, start=began, end=ended, step=1)
        if not found:
            silent.append(expression)
    # nobody failed and no policy chose rows; whether the mixture moved is the policy's to say
    quiet = ("ray_shoal_failures_total", "ray_shoal_kept_fraction", "ray_shoal_ledger_rows")
    assert all(any(word in expression for expression in silent) for word in quiet), silent
    assert all(any(word in each for word in (*quiet, "changes(")) for each in silent), silent
