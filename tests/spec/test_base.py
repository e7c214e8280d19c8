"""What may become part of a batch script, a folder or a job name, and what a time limit means.

A spec is often copied from a colleague: nothing in it but `cluster.setup` may ever run in a shell, and no `%` may reach
Slurm's file name patterns.
"""

from __future__ import annotations

from typing import Any

import pytest

from hpcsft.errors import SpecError
from hpcsft.spec import parse_spec
from hpcsft.spec.base import parse_time_min
from tests.spec.values import changed, minimal

POISON = [
    "a\nb",
    "a\n",
    'a"b',
    "a'b",
    "$(touch x)",
    "a$(touch x)",
    "a`touch x`",
    "a%a",
    "%j",
    "a\\b",
    "a;b",
    "a|b",
    "a&b",
    "a>b",
    "a<b",
    "a*(b)",
    "a b",
    "a\tb",
    "a#b",
    "a\0b",
    "a\u2028b",
    "é",
    "",
]

NAMES = ["name", "evaluate.checkpoints"]
EXPRESSIONS = ["cluster.constraint", "cluster.sbatch.exclude", "cluster.train.constraint"]
"""May combine names with & | ( ) [ ]; they are quoted where they are written."""
WORDS = [
    *(f"cluster.{field}" for field in ("partition", "account", "qos")),
    *(f"cluster.{stage}.partition" for stage in ("preprocess", "train", "generate", "benchmark", "judge", "report")),
    "cluster.train.account",
    "cluster.train.qos",
]
PATHS = ["runs_dir"]


def refused(path: str, value: object) -> list[str]:
    """The error lines for a spec with `value` at `path`, which must all be about `path`."""
    given = [value] if path == "evaluate.checkpoints" else value
    with pytest.raises(SpecError) as caught:
        parse_spec(changed(minimal(evaluate={"prompts": "p.json"}), path, given))
    assert all(problem.path.startswith(path) for problem in caught.value.problems)
    return caught.value.lines()


@pytest.mark.parametrize("value", POISON)
@pytest.mark.parametrize("path", [*NAMES, *WORDS, *PATHS])
def test_what_a_shell_or_slurm_would_read_is_refused(path, value):
    refused(path, value)


@pytest.mark.parametrize("value", [value for value in POISON if value not in ("a|b", "a&b", "a*(b)")])
@pytest.mark.parametrize("path", EXPRESSIONS)
def test_an_expression_allows_no_more_than_slurm_needs(path, value):
    refused(path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [("name", "a/b"), ("name", ".."), ("name", "-rf"), ("name", "x" * 65), ("cluster.account", "-x")],
)
def test_names_that_would_leave_their_folder_or_look_like_options_are_refused(path, value):
    refused(path, value)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("name", "a b", "1 to 64 letters, digits, dots, dashes or underscores, starting with a letter or digit"),
        ("cluster.qos", "a b", "letters, digits and . _ - , : * = @ + only, starting with a letter or digit"),
        ("runs_dir", "a b", "letters, digits and . _ / ~ + @ = , - only: this path is written into batch scripts"),
    ],
)
def test_the_error_tells_what_is_allowed_and_what_was_given(path, value, text):
    assert refused(path, value) == [f'error: {path}: {text}; given "{value}"']


@pytest.mark.parametrize("key", ["Exclude", "x y", "x=1", "x\n", "-x", "x;y", ""])
def test_names_of_sbatch_options_are_lower_case_words(key):
    with pytest.raises(SpecError, match="1 problem") as caught:
        parse_spec(minimal(cluster={"sbatch": {key: "1"}}))
    assert "must match pattern" in caught.value.lines()[0]


@pytest.mark.parametrize("key", ["1A", "A B", "A=B", "A\n", "A-B", "A;B", "$(A)", ""])
def test_names_of_environment_variables_are_identifiers(key):
    with pytest.raises(SpecError, match="1 problem") as caught:
        parse_spec(minimal(cluster={"env": {key: "1"}}))
    assert "must match pattern" in caught.value.lines()[0]


@pytest.mark.parametrize("name", ["HF_TOKEN", "MY_PASSWORD", "OPENAI_API_KEY"])
def test_a_variable_that_looks_like_a_secret_has_no_place_in_a_spec(name):
    """It would stand in spec.json and in every batch script."""
    (line,) = refused("cluster.env", {name: "x"})
    assert f"{name} looks like a secret, and a spec is no place for one: read it from a file of mode 0600" in line


@pytest.mark.parametrize("name", ["BASH_ENV", "PS4"])
def test_what_a_shell_runs_is_no_variable(name):
    """bash carries out commands in the value of BASH_ENV whenever it starts."""
    (line,) = refused("cluster.env", {name: "$(touch /tmp/x)"})
    assert f"{name}: shells run what is in it" in line


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cluster.env", {"https_proxy": "http://me:canary-1@proxy:3128"}),
        ("cluster.env", {"https_proxy": "me:canary-1@proxy:3128"}),
        ("cluster.env", {"MINE": "hf_canary1" + "a" * 34}),
        ("cluster.setup", ["export https_proxy=http://me:canary-1@proxy:3128"]),
        ("cluster.setup", ["hf auth login --add-to-git hf_canary1" + "a" * 34]),
        ("notify.command", ["curl", "-d", "done", "https://me:canary-1@example.org/hook"]),
        ("notify.command", ["curl", "-H", "Authorization: Bearer sk-canary-1" + "a" * 34, "https://example.org"]),
    ],
)
def test_a_key_is_known_wherever_it_stands_and_not_shown(field, value):
    lines = refused(field, value)
    assert "a key or a password" in lines[0] and "canary" not in str(lines)


def test_a_password_may_come_from_a_variable_of_the_shell():
    line = "export https_proxy=http://me:$(cat ~/.proxy)@proxy:3128 http_proxy=http://me:$PW@proxy:3128"
    assert parse_spec(minimal(cluster={"setup": [line]})).cluster.setup == [line]


@pytest.mark.parametrize(
    "line", ["export HF_TOKEN=hf_abcdefgh", "A=1 MY_PASSWORD='x y z 1 2' run", 'declare -x API_KEY="0123456789"; true']
)
def test_nor_has_one_that_setup_would_set(line):
    assert "looks like a secret" in refused("cluster.setup", [line])[0]


@pytest.mark.parametrize(
    "line",
    [
        "export HF_TOKEN=$(cat ~/.hf)",
        'export API_KEY="$MINE"',
        "export SSH_KEY=~/.ssh/id_rsa",
        "TOKENIZERS_PARALLELISM=false1234",
        "export MY_TOKEN=none",
    ],
)
def test_setup_may_fetch_a_secret(line):
    parse_spec(minimal(cluster={"setup": [line]}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.path", "a\0b"),
        ("data.train", ["a\0b"]),
        ("evaluate.prompts", "a\0b"),
        ("cluster.setup", ["a\0b"]),
        ("cluster.env", {"A": "a\0b"}),
        ("notify.command", ["a", "b\0"]),
    ],
)
def test_no_argument_or_path_holds_a_nul(path, value):
    assert "text without a NUL character" in refused(path, value)[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "llama-7b_v1.5"),
        ("runs_dir", "~/runs/a-b_c.d+e@f=g,h"),
        ("cluster.partition", "gpu,gpu-long"),
        ("cluster.constraint", "a100*4"),
        ("cluster.constraint", "[rack1|rack2]&a100"),
        ("cluster.sbatch.exclude", "n[1-3]"),
        ("cluster.account", 1234),
        ("cluster.time", 90),
        ("cluster.account", "proj@lab"),
        ("cluster.sbatch.exclude", "n1,n2"),
        ("cluster.sbatch.gres", "gpu:a100:4"),
        ("cluster.sbatch.exclusive", True),
        ("cluster.sbatch.nice", 100),
    ],
)
def test_what_clusters_really_use_is_allowed(path, value):
    parse_spec(changed(minimal(), path, value))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:30", 90.5),
        ("12:00:00", 720),
        ("00:00:01", 1 / 60),
        ("100:00:00", 6000),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("1-12:30:30", 2190.5),
        ("0-0:10", 10),
        ("2-0", 2880),
    ],
)
def test_time_limits_mean_what_slurm_means(text, minutes):
    """sbatch(1), --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours, and so on."""
    assert parse_time_min(text) == pytest.approx(minutes)


@pytest.mark.parametrize(
    "text", ["", "x", "12h", "1:2:3:4", "-1", "1-", "1-2:3:4:5", "1.5", " 1", "1\n", ":30", "1::2", "INFINITE"]
)
def test_what_is_no_time_limit(text):
    with pytest.raises(ValueError, match="a Slurm time limit such as 12:00:00"):
        parse_time_min(text)


@pytest.mark.parametrize("text", ["0", "00:00:00", "0-0", "0:0"])
def test_no_time_at_all_is_refused(text):
    """For Slurm 0 is no limit, and that is not what anyone means who writes it."""
    with pytest.raises(ValueError, match="above zero"):
        parse_time_min(text)


@pytest.mark.parametrize("path", ["cluster.time", "cluster.train.time", "cluster.report.time"])
@pytest.mark.parametrize(
    ("text", "message"), [("soon", "a Slurm time limit such as"), ("0", "a time limit above zero")]
)
def test_time_limits_are_checked_wherever_they_stand(path, text, message):
    assert refused(path, text)[0].startswith(f"error: {path}: {message}")


def test_sections_are_frozen():
    """A plan is made from a spec: it must not change afterwards."""
    spec: Any = parse_spec(minimal())
    with pytest.raises(ValueError, match="frozen"):
        spec.train.epochs = 7


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(SpecError) as caught:
        parse_spec(minimal(train={"learning_rate": value}))
    assert "finite number" in caught.value.lines()[0]
