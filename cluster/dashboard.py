"""The Grafana dashboard of a run, made from the metrics that the code declares.

A panel names a `Metric`, never a text: a metric that is renamed is renamed here, and one that is taken out
breaks the import. Prometheus keeps a series for every worker process, so all queries add up or take the most.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from shoal.cluster import metrics
from shoal.cluster.metrics import Metric

UID, TITLE, DATASOURCE = "shoal", "Shoal", "shoal-prometheus"
SELECTED = '{run=~"$run"}'
RATE = "[$__rate_interval]"
WIDTH, HEIGHT = 12, 8  # columns and rows of a panel; the dashboard has 24 columns


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]  # (PromQL, legend)
    help: str


def now(metric: Metric) -> str:
    """Return the newest value of a gauge; the process that set it last may have been replaced."""
    return f"max by ({', '.join(metric.labels)}) ({metric.series}{SELECTED})"


def per_second(metric: Metric, *labels: str) -> str:
    return f"sum by ({', '.join(labels or metric.labels)}) (rate({metric.series}{SELECTED}{RATE}))"


def legend(metric: Metric, text: str = "") -> str:
    """Return how a query's lines are named: by their labels and a text."""
    return " ".join([*(f"{{{{{label}}}}}" for label in metric.labels), *([text] if text else [])])


def gauge(title: str, metric: Metric) -> Panel:
    return Panel(title, metric.unit, ((now(metric), legend(metric)),), metric.help)


def speed(title: str, metric: Metric, unit: str) -> Panel:
    return Panel(title, unit, ((per_second(metric), legend(metric)),), metric.help)


def panels() -> list[Panel]:
    scores = {"best": metrics.BEST_SCORE, "median": metrics.MEDIAN_SCORE, "worst": metrics.WORST_SCORE}
    exploits = f"60 * {per_second(metrics.EXPLOIT_COUNT)}"
    failed = now(metrics.FAILED_MEMBERS)
    failures = f"60 * {per_second(metrics.FAILURES)}"
    split = (
        f"{per_second(metrics.SECONDS)} / on (run) group_left () {per_second(metrics.MEMBER_STEPS)}",
        legend(metrics.SECONDS),
    )
    return [
        Panel(
            "Score of the members",
            metrics.BEST_SCORE.unit,
            tuple((now(metric), legend(metric, name)) for name, metric in scores.items()),
            "Best, median and worst score of the last round; higher is better.",
        ),
        gauge("Steps of each member", metrics.STEP),
        Panel("Exploits a minute", "short", ((exploits, "{{run}}"),), metrics.EXPLOIT_COUNT.help),
        Panel(
            "Failed members",
            "short",
            ((failed, "{{run}} now without a score"), (failures, "{{run}} failures a minute")),
            metrics.FAILED_MEMBERS.help,
        ),
        gauge("Validation loss by group", metrics.GROUP_LOSS),
        gauge("Proportions", metrics.PROPORTION),
        gauge("Rows kept", metrics.KEPT_FRACTION),
        gauge("Rows of the ledger", metrics.LEDGER_ROWS),
        Panel("Workers' seconds a member-step", "s", (split,), "Where the time goes: " + metrics.SECONDS.help),
        speed("Member-steps a second", metrics.MEMBER_STEPS, "ops"),
        speed("Tokens a second", metrics.TOKEN_COUNT, "short"),
        speed("Rows a second", metrics.ROW_COUNT, "rowsps"),
        gauge("Checkpoint lag", metrics.CHECKPOINT_LAG),
    ]


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana's JSON; its last tag is a digest of all the rest."""
    made: dict[str, Any] = {
        "uid": UID,
        "title": TITLE,
        "description": "Populations in training. Written by `shoal grafana install`: changes are overwritten.",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [datasource_variable(), run_variable()]},
        "annotations": {"list": annotations()},
        "panels": [place(number, panel) for number, panel in enumerate(panels())],
    }
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]
    return made | {"tags": ["shoal", f"shoal-{digest}"]}


def place(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 24 // WIDTH)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": column * WIDTH, "y": row * HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": name}
            for index, (query, name) in enumerate(panel.queries)
        ],
    }


SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def datasource_variable() -> dict[str, Any]:
    chosen = {"text": DATASOURCE, "value": DATASOURCE}
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "current": chosen}


def run_variable() -> dict[str, Any]:
    return {
        "name": "run",
        "type": "query",
        "datasource": SOURCE,
        "query": f"label_values({metrics.STEP.series}, run)",
        "refresh": 2,  # whenever the time range changes
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": "All", "value": "$__all"},
    }


def annotations() -> list[dict[str, Any]]:
    """Return marks across all panels: where members copied, and where a mixture changed."""
    exploits = f"sum by (run) (increase({metrics.EXPLOIT_COUNT.series}{SELECTED}{RATE})) > 0"
    mixture = f"sum by (run, group) (changes({metrics.PROPORTION.series}{SELECTED}{RATE})) > 0"
    marks = {"Exploits": (exploits, "orange", "run"), "Mixture changes": (mixture, "blue", "run,group")}
    return [
        {
            "name": name,
            "datasource": SOURCE,
            "enable": True,
            "iconColor": colour,
            "expr": query,
            "step": "10s",
            "titleFormat": name,
            "textFormat": " ".join(f"{{{{{tag}}}}}" for tag in tags.split(",")),
            "tagKeys": tags,
        }
        for name, (query, colour, tags) in marks.items()
    ]
