"""A hub with a tiny model and real dialogs, and a way to ask it as a login node would."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.hub.server import Hub
from tests.launch.command import ROOT, TIMEOUT_S, environment

MODEL, DATA = "owner/tiny", "owner/talk"

FETCH = """
import json, sys
sys.path.insert(0, {root!r})
from hpcsft.errors import report_errors
from hpcsft.hub.fetch import fetch_inputs, locate
from hpcsft.hub.fetched import local_spec
from hpcsft.inputs import check_inputs
from hpcsft.spec import load_spec

def main(argv):
    spec = load_spec(argv[1])
    if argv[0] == "look":
        local = locate(spec)
        print(json.dumps({{"facts": check_inputs(local).model_dump(), "model": local.model.path}}))
    else:
        print(fetch_inputs(spec).model_dump_json())
    return 0

sys.exit(report_errors(main, sys.argv[1:]))
"""


@dataclass
class LoginNode:
    """A machine with an empty home, from which the hub can be reached."""

    hub: Hub
    home: Path
    values: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.home / "hf" / "hub"

    def environment(self) -> dict[str, str]:
        """Of every command."""
        unwanted = ("HF_", "HUGGING", "TRANSFORMERS_")
        kept = {name: value for name, value in environment().items() if not name.startswith(unwanted)}
        ours = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home / "hf")}
        return {**kept, **ours, **self.variables}

    def run(self, *command: object, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run a command there and wait for its end."""
        words = [sys.executable, *map(str, command)]
        return subprocess.run(
            words, capture_output=True, text=True, cwd=self.home, timeout=timeout_s, env=self.environment(), check=False
        )

    def spec_file(self, **model: Any) -> Path:
        """The spec, with other values in its section `model`."""
        file = self.home / "spec.json"
        file.write_text(json.dumps({**self.values, "model": {**self.values["model"], **model}}))
        return file

    def _ask(self, what: str, **model: Any) -> subprocess.CompletedProcess[str]:
        return self.run("-c", FETCH.format(root=str(ROOT)), what, self.spec_file(**model))

    def fetch(self, **model: Any) -> dict[str, Any]:
        """What is fetched for the spec, as a run directory keeps it; `said` is what the user reads."""
        done = self._ask("fetch", **model)
        assert done.returncode == 0, done.stderr
        return {**json.loads(done.stdout), "said": done.stderr.splitlines()}

    def look(self, **model: Any) -> dict[str, Any]:
        """What checks find before anything is fetched."""
        done = self._ask("look", **model)
        assert done.returncode == 0, done.stderr
        return {**json.loads(done.stdout), "said": done.stderr.splitlines()}

    def refused(self, what: str = "fetch", **model: Any) -> list[str]:
        """The lines of the error that ends it."""
        done = self._ask(what, **model)
        assert done.returncode == 2, done.stderr
        lines = done.stderr.splitlines()
        return lines[[line.startswith("error: ") for line in lines].index(True) :]


@pytest.fixture
def hub(tiny_model: Path, ultrachat_file: Path) -> Iterator[Hub]:
    """A hub with the tiny model, beside code that nobody may run, and the dialogs."""
    hub = Hub()
    hub.add_folder("models", MODEL, tiny_model, **{"evil.py": b"raise SystemExit('ran')", "README.md": b"# tiny"})
    files = {"train.jsonl": ultrachat_file.read_bytes(), "README.md": b"---\nlicense: mit\n---\n"}
    hub.repository("datasets", DATA).commit(files)
    yield hub
    hub.stop()


@pytest.fixture
def login_node(hub: Hub, spec_values: dict[str, Any], tmp_path: Path) -> LoginNode:
    """A login node whose spec names the model on the hub; the data are a file."""
    home = tmp_path / "home"
    home.mkdir()
    spec_values["model"]["path"] = f"hub:{MODEL}"
    spec_values["evaluate"] = None
    return LoginNode(hub, home, spec_values)
