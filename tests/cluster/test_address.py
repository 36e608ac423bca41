"""Addresses at which no Ray is, and folders that Ray cannot use: known at once, and said in one line."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from shoal.cluster import address
from shoal.cluster.address import check_address, folder
from shoal.cluster.errors import NoRay


@pytest.fixture
def silent() -> str:
    """Return a port that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def web() -> str:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def refused(place: str) -> str:
    began = time.monotonic()
    with pytest.raises(NoRay) as raised:
        check_address(place)
    assert time.monotonic() - began < 40
    said = str(raised.value)
    assert "\n" not in said and said.startswith("RAY_ADDRESS: ") and place in said
    return said


@pytest.mark.parametrize(
    "place", ["127.0.0.1:1", "127.0.0.1:", "127.0.0.1", "cluster", ":6379", "a b:6379", "127.0.0.1:6379/x"]
)
def test_where_nothing_is_one_line_says_so_and_what_to_do(place: str) -> None:
    assert "Unset RAY_ADDRESS" in refused(place)


def test_what_answers_but_is_no_ray_is_none(silent, web) -> None:
    for place in (silent, web):
        assert "no Ray cluster answers" in refused(place)


def test_urls_are_told_where_they_belong() -> None:
    assert "shoal submit --address http://127.0.0.1:8265" in refused("http://127.0.0.1:8265")
    assert "Ray Client" in refused("ray://127.0.0.1:10001")
    assert "Unset RAY_ADDRESS" in refused("tcp://127.0.0.1:6379")


def test_auto_with_nothing_there(monkeypatch) -> None:
    def nothing(place: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(address.services, "canonicalize_bootstrap_address", nothing)
    assert "auto finds no Ray cluster" in refused("auto")
    # what `ray start` wrote down may be dead
    monkeypatch.setattr(address.services, "canonicalize_bootstrap_address", lambda place: "127.0.0.1:1")
    with pytest.raises(NoRay, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        check_address("auto")


def test_an_address_that_is_empty_is_none(monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert address.wanted_address() == address.EMBEDDED


def test_ray_keeps_its_files_where_a_sockets_name_fits(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert folder() is None
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert folder() == "/tmp/ray"
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(NoRay, match=f"RAY_TMPDIR: .*{long}.*too long names, 43 letters"):
        folder()


def test_a_folder_that_is_none_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(address, "LONGEST_SOCKET", 1000)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    with pytest.raises(NoRay, match=r"RAY_TMPDIR: .*Not a directory"):
        folder()
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file"))
    assert folder() == "/tmp/ray"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", "here")
    assert folder() == str(tmp_path / "here/ray")
