"""The dashboard and its way to Grafana: no dead panel, nothing done twice, no token in sight."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import promql_parser
import pytest
import yaml

from shoal.cluster import dashboard, metrics
from tests.helpers.grafana_server import TOKEN, Grafana
from tests.helpers.manifests import K8S
from tests.search.platform.test_cli import refused, shoal  # noqa: F401 - fixtures

SERIES = {metric.series for metric in metrics.METRICS}
VARIABLES = {"$__rate_interval": "1m", "$run": "toy"}


def expressions(made: dict) -> list[str]:
    """Return every PromQL expression of a dashboard: of panels and of annotations."""
    panels = [target["expr"] for panel in made["panels"] for target in panel["targets"]]
    return panels + [mark["expr"] for mark in made["annotations"]["list"]]


def filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def named(text: str) -> set[str]:
    return set(re.findall(r"ray_shoal_\w+", text))


def rules() -> dict:
    return yaml.safe_load((K8S / "overlays/monitoring/rules.yaml").read_text())["spec"]


def test_no_panel_asks_for_what_nobody_emits_and_no_metric_is_left_out() -> None:
    made = dashboard.dashboard()
    assert named(json.dumps(made)) == SERIES
    assert all(named(expression) for expression in expressions(made))
    assert len({panel["title"] for panel in made["panels"]}) == len(made["panels"])


def test_a_renamed_metric_takes_its_panel_along(monkeypatch) -> None:
    monkeypatch.setattr(metrics, "STEP", metrics.Metric("shoal_age", "gauge", "Steps."))
    assert "ray_shoal_age" in named(json.dumps(dashboard.dashboard()))
    assert "ray_shoal_step" not in named(json.dumps(dashboard.dashboard()))


def test_every_expression_is_promql_over_labels_that_the_metric_has() -> None:
    for expression in expressions(dashboard.dashboard()):
        promql_parser.parse(filled(expression))
        declared = {label for each in metrics.METRICS if each.series in expression for label in each.labels}
        grouped = {
            label.strip()
            for part in re.findall(r"(?:by|on) \(([^)]*)\)", expression)
            for label in part.split(",")
        }
        assert grouped <= declared


def test_alerts_ask_for_declared_metrics() -> None:
    for group in rules()["groups"]:
        for rule in group["rules"]:
            assert named(rule["expr"]) and named(rule["expr"]) <= SERIES
            promql_parser.parse(rule["expr"])


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus's promtool is not installed")
def test_promtool_accepts_the_alert_rules(tmp_path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rules()))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and "3 rules found" in done.stdout, done.stderr


RINGS = """
rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'ray_shoal_member_steps_total{run="stuck"}', values: '0+8x10 80x50'}
      - {series: 'ray_shoal_step{run="stuck"}', values: '0+2x10 20x50'}
      - {series: 'ray_shoal_member_steps_total{run="busy"}', values: '0+8x60'}
      - {series: 'ray_shoal_step{run="busy"}', values: '0+2x60'}
      - {series: 'ray_shoal_member_steps_total{run="ended"}', values: '0+8x10 80x50'}
      - {series: 'ray_shoal_step{run="ended"}', values: '0+2x10 stale'}
      - {series: 'ray_shoal_failed_members{run="busy"}', values: '0x20 2x40'}
      - {series: 'ray_shoal_checkpoint_lag_seconds{run="stuck"}', values: '60x20 7200x40'}
    alert_rule_test:
      - eval_time: 50m
        alertname: ShoalRunStandsStill
        exp_alerts:
          - exp_labels: {severity: warning, run: stuck}
            exp_annotations: {summary: The run stuck has trained no step for 15 minutes.}
      - eval_time: 20m
        alertname: ShoalRunStandsStill
        exp_alerts: []
      - eval_time: 50m
        alertname: ShoalMembersFail
        exp_alerts:
          - exp_labels: {severity: warning, run: busy}
            exp_annotations: {summary: The run busy has 2 members without a score.}
      - eval_time: 50m
        alertname: ShoalCheckpointIsOld
        exp_alerts:
          - exp_labels: {severity: warning, run: stuck}
            exp_annotations: {summary: A kill of the run stuck would lose 2h 0m 0s of work.}
"""


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus's promtool is not installed")
def test_alerts_ring_for_the_runs_that_they_are_for(tmp_path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    (tmp_path / "test.yaml").write_text(RINGS)
    command = ["promtool", "test", "rules", "test.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_kept_dashboard_is_what_the_code_writes(shoal) -> None:  # noqa: F811
    said = shoal("grafana", "install", "--dry-run", "--url", "http://grafana")
    assert said.code == 0 and said.out == (K8S / "overlays/monitoring/shoal.json").read_text()


@pytest.fixture
def grafana(monkeypatch) -> Iterator[Grafana]:
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    server = Grafana()
    yield server
    server.close()


def test_install_makes_everything_once(grafana, shoal) -> None:  # noqa: F811
    first = shoal("grafana", "install", "--url", grafana.url)
    assert first.code == 0 and first.out == (
        "folder Shoal: made\n"
        "data source shoal-prometheus: made, at http://localhost:9090\n"
        "dashboard Shoal: made, version 1, /d/shoal/shoal\n"
    )
    grafana.asked.clear()
    again = shoal("grafana", "install", "--url", f"{grafana.url}/")
    assert again.out == (
        "folder Shoal: is there\ndata source shoal-prometheus: is there\ndashboard Shoal: is there, version 1\n"
    )
    assert {asked.split()[0] for asked in grafana.asked} == {"GET"}
    assert json.loads(json.dumps(dashboard.dashboard() | {"id": None})) == grafana.dashboards["shoal"][0]


def test_install_renews_what_differs(grafana, shoal, monkeypatch) -> None:  # noqa: F811
    shoal("grafana", "install", "--url", grafana.url)
    monkeypatch.setattr(dashboard, "TITLE", "Shoals")
    said = shoal("grafana", "install", "--url", grafana.url, "--prometheus", "http://prometheus:9090")
    assert "changed, from http://localhost:9090 to http://prometheus:9090" in said.out
    assert "renewed, version 2" in said.out
    # the older version is still in Grafana's history
    assert len(grafana.dashboards["shoal"]) == 2
    assert grafana.datasources["shoal-prometheus"]["url"] == "http://prometheus:9090"


def test_the_token_may_lie_in_a_file(grafana, shoal, tmp_path, monkeypatch) -> None:  # noqa: F811
    monkeypatch.delenv("GRAFANA_TOKEN")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    said = shoal("grafana", "install", "--url", grafana.url, "--token-file", str(tmp_path / "token"))
    assert said.code == 0
    assert "--token " not in shoal("grafana", "install", "--help").out


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ((403, {"message": "Permissions needed: folders:read"}), "refused with 403: Permissions needed"),
        ((500, {"message": "database is locked"}), "refused with 500: database is locked"),
        ((200, "<html>a proxy</html>"), "no Grafana answers"),
    ],
)
def test_grafana_refusing_is_one_line(broken, said, grafana, refused) -> None:  # noqa: F811
    grafana.broken = broken
    found = refused("grafana", "install", "--url", grafana.url)
    assert said in found and found.count("\n") == 1


def test_a_wrong_token_or_address_is_one_line(grafana, refused, monkeypatch) -> None:  # noqa: F811
    assert "no Grafana answers" in refused("grafana", "install", "--url", "http://127.0.0.1:1")
    assert "address must be" in refused("grafana", "install", "--url", "127.0.0.1:3000")
    assert "cannot be read" in refused("grafana", "install", "--url", grafana.url, "--token-file", "/nowhere")
    monkeypatch.setenv("GRAFANA_TOKEN", "glsa_wrong")
    said = refused("grafana", "install", "--url", grafana.url)
    assert "does not accept the token" in said and "glsa_wrong" not in said
    monkeypatch.delenv("GRAFANA_TOKEN")
    assert "set GRAFANA_TOKEN" in refused("grafana", "install", "--url", grafana.url)
