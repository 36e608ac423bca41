"""Prometheus and a browser beside a run, as far as this machine has them."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.nodes import free_ports

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus is installed")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and shutil.which("chromedriver")), reason="no Chromium with its driver is installed"
)

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


class Browser:
    """A headless Chromium, driven over the WebDriver protocol: pages that load more are waited for."""

    def __init__(self, folder: Path):
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, start_new_session=True
        )
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1500,1000"]
        options = {"binary": CHROMIUM, "args": [*arguments, f"--user-data-dir={folder}/profile"]}
        wait_until(self.ready, 120)
        made = self.ask("POST", "", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})
        self.url += f"/session/{made['sessionId']}"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/status", timeout=5) as answer:
                return json.loads(answer.read())["value"]["ready"]
        except OSError:
            return False

    def ask(self, method: str, what: str, given: dict[str, Any] | None = None) -> Any:
        place = self.url if "/session" in self.url else f"{self.url}/session"
        body = None if given is None else json.dumps(given).encode()
        asked = urllib.request.Request(f"{place}{what}", data=body, method=method)
        with urllib.request.urlopen(asked, timeout=480) as answer:
            return json.loads(answer.read())["value"]

    def open(self, url: str) -> None:
        self.ask("POST", "/url", {"url": url})

    def text(self) -> str:
        return str(self.ask("POST", "/execute/sync", {"script": "return document.body.innerText", "args": []}))

    def shows(self, *words: str, seconds: float = 240) -> str:
        """Wait until the page shows all of these words; return its text."""
        wait_until(lambda: all(word in self.text() for word in words), seconds, self.text)
        return self.text()

    def click(self, text: str) -> None:
        """Click on what says just this."""
        found = "[...document.querySelectorAll('*')].filter(e => e.innerText === arguments[0]).pop().click()"
        self.ask("POST", "/execute/sync", {"script": found, "args": [text]})

    def picture(self, place: Path) -> None:
        place.write_bytes(base64.b64decode(self.ask("GET", "/screenshot")))

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.ask("DELETE", "")
        self.process.terminate()
        self.process.wait(timeout=20)


def wait_until(true: Any, seconds: float, said: Any = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, said()
        time.sleep(0.2)
