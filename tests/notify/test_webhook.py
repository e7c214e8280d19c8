"""A webhook gets one POST of JSON, or it is told why not, soon, and without its address, which is a secret."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hpcsft.notify.webhook import post
from tests.evaluate.conftest import Endpoint

SECRET = "/services/T0/x7x7x7"
DOCUMENT = {"text": "llama: done\n你好", "state": "done"}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        server.answer = lambda request: (200, b"ok")
        yield server


def test_the_document_arrives(endpoint):
    assert post(endpoint.address + SECRET, DOCUMENT) is None
    assert endpoint.requests == [{**DOCUMENT, "path": SECRET, "key": None}]


@pytest.mark.parametrize("status", [204, 201])
def test_other_ways_to_say_that_it_was_taken(endpoint, status):
    """Discord says 204."""
    endpoint.answer = lambda request: (status, b"")
    assert post(endpoint.address + SECRET, DOCUMENT) is None


@contextlib.contextmanager
def answering_once() -> Iterator[tuple[int, list[bytes]]]:
    """The port of a server that takes one DOCUMENT, and what it was sent, headers and all."""
    said: list[bytes] = []

    def answer(server: socket.socket) -> None:
        connection = server.accept()[0]
        with connection:
            connection.settimeout(10)
            whole = b""
            while not whole.endswith(json.dumps(DOCUMENT).encode()):
                whole += connection.recv(65536)
            said.append(whole)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        yield server.getsockname()[1], said
        thread.join()


def redirected(place: str, status: int = 307) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Answers /new, and sends everybody else to `place`."""
    return lambda request: (200, b"ok") if request["path"] == "/new" else (status, b"", {"Location": place})


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_keeps_the_document(endpoint, status):
    endpoint.answer = redirected(f"{endpoint.address}/new", status)
    assert post(endpoint.address + SECRET, DOCUMENT) is None
    assert endpoint.requests[-1] == {**DOCUMENT, "path": "/new", "key": None}


def test_a_redirect_that_asks_for_a_get_is_no_delivery(endpoint):
    endpoint.answer = redirected(f"{endpoint.address}/new", 303)
    assert post(endpoint.address + SECRET, DOCUMENT) == "it answered with 303, a redirect that is not followed"
    assert len(endpoint.requests) == 1


def test_a_redirect_to_another_host_names_that_host(endpoint):
    with answering_once() as (port, said):
        endpoint.answer = redirected(f"http://127.0.0.1:{port}/new")
        assert post(endpoint.address + SECRET, DOCUMENT) is None
    assert said[0].startswith(b"POST /new ") and said[0].count(b"\r\nHost: ") == 1
    assert f"\r\nHost: 127.0.0.1:{port}\r\n".encode() in said[0]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x"])
def test_a_redirect_leads_nowhere_but_to_the_web(endpoint, place):
    endpoint.answer = redirected(place)
    assert post(endpoint.address + SECRET, DOCUMENT) == "it answered with 307, a redirect that is not followed"


def test_a_redirect_in_a_circle_ends(endpoint):
    endpoint.answer = redirected(f"{endpoint.address}/x")
    assert "a redirect that is not followed" in post(endpoint.address + SECRET, DOCUMENT)


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_refusal_is_told_by_its_number(endpoint, status):
    endpoint.answer = lambda request: (status, request["path"].encode())
    assert post(endpoint.address + SECRET, DOCUMENT) == f"it answered with {status}"


def test_a_server_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert post(f"http://127.0.0.1:{port}{SECRET}", DOCUMENT) == "Connection refused"


@pytest.mark.parametrize(
    "address", [f"http://127.0.0.1:1{SECRET} x", f"gopher://127.0.0.1{SECRET}", f"http://{SECRET}"]
)
def test_no_error_holds_the_address(address):
    """The checks of the spec let none of these through; the last line of defence is here."""
    assert SECRET not in post(address, DOCUMENT)


def test_a_server_that_hangs_is_not_waited_for(endpoint):
    end = threading.Event()
    endpoint.answer = lambda request: (end.wait(60), (200, b""))[1]
    before_s = time.monotonic()
    assert post(endpoint.address + SECRET, DOCUMENT, timeout_s=0.5) == "no answer within 0.5 s"
    assert time.monotonic() - before_s < 10
    end.set()


def test_a_server_that_drips_is_not_waited_for():
    """Each byte comes in time; the answer as a whole never does."""
    end = threading.Event()

    def drip(server: socket.socket) -> None:
        connection = server.accept()[0]
        with connection, contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b"H")
                if end.wait(0.1):
                    break

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        before_s = time.monotonic()
        address = f"http://127.0.0.1:{server.getsockname()[1]}{SECRET}"
        assert post(address, DOCUMENT, timeout_s=1) == "no answer within 1 s"
        assert time.monotonic() - before_s < 10
        end.set()
        thread.join()


def test_a_proxy_of_the_environment_is_used(endpoint, monkeypatch):
    monkeypatch.setenv("http_proxy", endpoint.address)
    assert post(f"http://hooks.example.org{SECRET}", DOCUMENT) is None
    assert endpoint.requests[0]["path"] == f"http://hooks.example.org{SECRET}"


def test_it_says_who_it_is_because_discord_bars_urllib():
    with answering_once() as (port, said):
        assert post(f"http://127.0.0.1:{port}/", DOCUMENT) is None
    assert b"\r\nUser-Agent: hpcsft\r\n" in said[0] and b"\r\nContent-Type: application/json\r\n" in said[0]
