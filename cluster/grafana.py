"""Our folder, data source and dashboard on a Grafana server, through its HTTP API; twice changes nothing."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError
from grafana_api.grafana_face import GrafanaFace

from shoal.cluster.dashboard import DATASOURCE, TITLE, UID, dashboard


class GrafanaRefused(ConnectionError):
    """Grafana does not answer or does not do what was asked; one line says why."""


def open_grafana(url: str, token: str) -> GrafanaFace:
    place = urlsplit(url)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise GrafanaRefused(f"the address must be http://HOST:PORT or https://HOST, got {url}.")
    path = f"{place.path.strip('/')}/" if place.path.strip("/") else ""
    return GrafanaFace(
        token, host=place.hostname, port=place.port, protocol=place.scheme, url_path_prefix=path, timeout=15
    )


def install(grafana: GrafanaFace, prometheus: str) -> Iterator[str]:
    """Make what is missing and renew what differs; yield a line for each of the three."""
    url = grafana.api.url
    with grafana_errors(url):
        yield f"folder {TITLE}: {_folder(grafana)}"
        yield f"data source {DATASOURCE}: {_datasource(grafana, prometheus)}"
        yield f"dashboard {TITLE}: {_dashboard(grafana)}"


def _folder(grafana: GrafanaFace) -> str:
    if _if_there(lambda: grafana.folder.get_folder(UID)):
        return "is there"
    grafana.folder.create_folder(TITLE, UID)
    return "made"


def _datasource(grafana: GrafanaFace, prometheus: str) -> str:
    wanted = {
        "name": DATASOURCE,
        "uid": DATASOURCE,
        "type": "prometheus",
        "url": prometheus,
        "access": "proxy",  # asked by the server, not by every browser
        "jsonData": {"timeInterval": "10s"},  # how often Ray exports: $__rate_interval builds on it
    }
    there = _if_there(lambda: grafana.datasource.get_datasource_by_name(DATASOURCE))
    if there is None:
        grafana.datasource.create_datasource(wanted)
        return f"made, at {prometheus}"
    if all(there.get(key) == value for key, value in wanted.items()):
        return "is there"
    # Grafana took the way by number out of its newer versions; the library only knows that one
    grafana.api.PUT(f"/datasources/uid/{there['uid']}", json=wanted | {"uid": there["uid"]})
    return f"changed, from {there.get('url')} to {prometheus}"


def _dashboard(grafana: GrafanaFace) -> str:
    made = dashboard()
    there = _if_there(lambda: grafana.dashboard.get_dashboard(UID))
    if there is not None and there["dashboard"].get("tags") == made["tags"]:
        return f"is there, version {there['meta'].get('version', '?')}"
    told = grafana.dashboard.update_dashboard(
        {"dashboard": made | {"id": None}, "folderUid": UID, "overwrite": True, "message": made["tags"][-1]}
    )
    return (
        f"{'made' if there is None else 'renewed'}, version {told.get('version', '?')}, {told.get('url', '')}"
    )


def _if_there(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except GrafanaClientError as error:
        if error.status_code == 404:
            return None
        raise


@contextlib.contextmanager
def grafana_errors(url: str) -> Iterator[None]:
    try:
        yield
    except GrafanaUnauthorizedError as error:
        raise GrafanaRefused(f"{url} does not accept the token.") from error
    except GrafanaException as error:
        said = error.response.get("message") if isinstance(error.response, dict) else error.response
        raise GrafanaRefused(
            f"{url} refused with {error.status_code}: {' '.join(str(said).split())[:200]}"
        ) from error
    except (requests.exceptions.RequestException, ValueError) as error:
        raise GrafanaRefused(f"no Grafana answers at {url}: {str(error).splitlines()[0][:200]}") from error
