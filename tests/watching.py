"""Prometheus and a browser beside a run, as far as this machine has them."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.nodes import free_ports

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus is installed")
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")

CONFIGURATION = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: ray
    file_sd_configs: [{{files: ['{discovery}'], refresh_interval: 1s}}]
"""


class Prometheus:
    """A server that scrapes what a Ray head's discovery file names."""

    def __init__(self, folder: Path, discovery: Path):
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        (folder / "prometheus.yml").write_text(CONFIGURATION.format(discovery=discovery))
        program = [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        self.process = subprocess.Popen(program, cwd=folder)

    def ask(self, kind: str, **parameters: Any) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{kind}?{query}", timeout=20) as answer:
            return json.loads(answer.read())["data"]["result"]

    def at(self, expression: str, moment: float) -> dict[tuple[tuple[str, str], ...], float]:
        """Return the value at a time by the series' labels."""
        found = self.ask("query", query=expression, time=moment)
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in found}

    def over(self, expression: str, start: float, end: float) -> list[tuple[float, float]]:
        """Return an expression's only series, second by second."""
        found = self.ask("query_range", query=expression, start=start, end=end, step=1)
        assert len(found) == 1, found
        return [(float(moment), float(value)) for moment, value in found[0]["values"]]

    def __enter__(self) -> "Prometheus":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)


def browse(url: str, folder: Path, name: str) -> str:
    """Return a page's text as Chromium renders it, and leave a screenshot."""
    common = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder}/profile",
        "--window-size=1600,1000",
        "--virtual-time-budget=20000",
    ]
    picture = [*common, f"--screenshot={folder}/{name}.png", url]
    subprocess.run(picture, check=True, timeout=120, capture_output=True)
    text = [*common, "--dump-dom", url]
    return subprocess.run(text, check=True, timeout=120, capture_output=True, text=True).stdout


def wait_until(true: Any, seconds: float, said: Any = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, said()
        time.sleep(0.2)
