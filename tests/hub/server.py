"""A small hub on this machine: the endpoints that `huggingface_hub` and `datasets` use, for repositories in memory.

The real client talks to it: HF_ENDPOINT=http://127.0.0.1:PORT. It knows commits and branches, private and gated
repositories, byte ranges, and how to break off in the middle of a file.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

GIVEN = "hf_agoodtokenofatestonly"
"""The token that opens private and gated repositories."""

API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)(?:/(?P<what>[a-z-]+)/(?P<revision>.+))?")
FILE = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
LARGE = (".safetensors", ".bin", ".gguf", ".parquet")


@dataclass
class Repository:
    """Commits, oldest first, each with all of its files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put `files` into a new commit at the end of `branch`; returns its 40 digits."""
        commit = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


class Hub:
    """The server. `requests` are those that it has answered: method, path, status, and the Authorization header."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str, int, str | None]] = []
        self.break_off_after: int | None = None
        """Bytes of a large file after which the connection is cut, once."""
        self.refuse_with: int | None = None
        """Answer everything with this status."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def repository(self, kind: str, name: str) -> Repository:
        """The repository of that kind (models, datasets) and name; made if there is none."""
        return self.repositories.setdefault((kind, name), Repository())

    def add_folder(self, kind: str, name: str, folder: Path, **more: bytes) -> str:
        """All files of `folder` in a new commit; returns it."""
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        return self.repository(kind, name).commit({**files, **more})

    def downloads(self) -> list[str]:
        """Names of the files that were given out, in whole or in part."""
        found = [FILE.fullmatch(urlsplit(path).path) for method, path, *_ in self.requests if method == "GET"]
        return [match["file"] for match in found if match]

    def stop(self) -> None:
        """From now on nobody answers at this address."""
        self._server.shutdown()
        self._server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *arguments: Any) -> None:
            pass

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else b""
            path = unquote(urlsplit(self.path).path)
            if hub.refuse_with:
                self._json(hub.refuse_with, {"error": "out of order"})
            elif match := FILE.fullmatch(path):
                self._file(match)
            elif match := API.fullmatch(path):
                self._api(match, body)
            else:
                self._json(404, {"error": f"no such endpoint: {path}"})

        def _found(self, kind: str, name: str, revision: str, gate: bool) -> tuple[str, dict[str, bytes]] | None:
            repository = hub.repositories.get((kind, name))
            opened = self.headers.get("Authorization") == f"Bearer {GIVEN}"
            if repository is None or (repository.private and not opened):
                self._json(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                return None
            if repository.gated and gate and not opened:
                self._json(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
                return None
            commit = repository.branches.get(revision, revision)
            if commit not in repository.commits:
                self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
                return None
            return commit, repository.commits[commit]

        def _api(self, match: re.Match[str], body: bytes) -> None:
            found = self._found(match["kind"], match["name"], (match["revision"] or "main").split("/")[0], gate=False)
            if found is None:
                return
            commit, files = found
            if match["what"] == "paths-info":
                wanted = self._paths(body)
                self._json(200, [_entry(name, files[name]) for name in wanted if name in files])
            elif match["what"] == "tree":
                self._tree(files, match["revision"].partition("/")[2])
            else:
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                self._json(
                    200, {"id": match["name"], "sha": commit, "siblings": siblings, "tags": [], "private": False}
                )

        def _tree(self, files: Mapping[str, bytes], folder: str) -> None:
            inside = {name: data for name, data in files.items() if not folder or name.startswith(f"{folder}/")}
            if inside:
                self._json(200, [_entry(name, data) for name, data in inside.items()])
            else:
                self._json(404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"})

        def _paths(self, body: bytes) -> list[str]:
            try:
                given = json.loads(body)["paths"]
            except ValueError:
                given = parse_qs(body.decode()).get("paths", [])
            return [given] if isinstance(given, str) else given

        def _file(self, match: re.Match[str]) -> None:
            kind = "datasets" if match["kind"] else "models"
            found = self._found(kind, match["name"], match["revision"], gate=True)
            if found is None:
                return
            commit, files = found
            name = match["file"]
            if name not in files:
                self._json(
                    404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
                )
                return
            data = files[name]
            headers = {"ETag": f'"{_digest(name, data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            status, start, end = 200, 0, len(data)
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                status, start, end = 206, int(wanted[1]), min(int(wanted[2] or len(data) - 1) + 1, len(data))
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            self._send(status, data[start:end], headers, cut=name.endswith(LARGE))

        def _json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
            self._send(status, json.dumps(value).encode(), {**(headers or {}), "Content-Type": "application/json"})

        def _send(self, status: int, data: bytes, headers: Mapping[str, str], cut: bool = False) -> None:
            hub.requests.append((self.command, self.path, status, self.headers.get("Authorization")))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if cut and hub.break_off_after is not None:
                data, hub.break_off_after = data[: hub.break_off_after], None
                self.close_connection = True
            self.wfile.write(data)

    return Handler


def _digest(name: str, data: bytes) -> str:
    return (hashlib.sha256 if name.endswith(LARGE) else hashlib.sha1)(data).hexdigest()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry
