"""What a real bash offers at TAB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.completion import completion, typed_verb
from hpcsft.console import VERBS
from hpcsft.errors import HpcsftError
from tests.launch.command import ROOT, environment
from tests.places import bare_run

BASH = shutil.which("bash")
ASK = """
eval "$(hpcsft completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
_python_argcomplete hpcsft
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with two runs, a spec, and the `hpcsft` of this checkout in bin/."""
    run = bare_run(tmp_path / "runs", "llama-0a1b2c3d", {"train": "123"})
    for stage in ("train", "preprocess"):
        (run.logs / stage / "123_0").mkdir(parents=True)
    bare_run(tmp_path / "runs", "baichuan-0a1b2c3d")
    (tmp_path / "spec.json").write_text("{}")
    (tmp_path / "spec.txt").write_text("")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "hpcsft"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom hpcsft.console import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return tmp_path


def offered(home: Path, line: str) -> list[str]:
    env = environment() | {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    env["XDG_STATE_HOME"] = str(home / "state")  # not what other tests have submitted
    command = [BASH, "--norc", "-c", ASK, "bash", line]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=env, timeout=60, check=True)
    assert done.stderr == ""
    return [word.rstrip() for word in done.stdout.splitlines() if word.strip()]


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hpcsft ", [*VERBS, "schema", "completion"]),
        ("hpcsft re", ["reproduce", "resume"]),
        ("hpcsft logs ", ["llama-0a1b2c3d", "baichuan-0a1b2c3d"]),
        ("hpcsft cancel ll", ["llama-0a1b2c3d"]),
        ("hpcsft logs runs/", []),  # the shell completes paths itself
        ("hpcsft logs llama ", ["train", "preprocess"]),
        ("hpcsft logs 123 tr", ["train"]),
        ("hpcsft logs none ", []),
        ("hpcsft logs x --st", ["--stream"]),
        ("hpcsft logs x --stream ", ["both", "out", "err"]),
        ("hpcsft plan sp", ["spec.json"]),
        ("hpcsft completion ", ["bash", "zsh", "fish"]),
        ("hpcsft runs --sort d", ["disk"]),
        ("hpcsft clean llama-0a1b2c3d b", ["baichuan-0a1b2c3d"]),
    ],
)
def test_what_is_offered(line, words, home):
    assert sorted(offered(home, line)) == sorted(words)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script(shell, capsys):
    assert completion([shell]) == 0
    assert "hpcsft" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["csh"], ["bash", "zsh"]])
def test_another_shell_is_refused(words):
    with pytest.raises(HpcsftError, match=r"hpcsft completion bash\|zsh\|fish; given "):
        completion(words)


def test_the_verb_of_a_line_within_quotes():
    assert [typed_verb(line) for line in ("hpcsft", "hpcsft logs 'a", "/x/hpcsft  logs a")] == [None, "logs", "logs"]
