"""Guards what a verdict is filed under: everything that can change it is part of a judge's identity, and nothing else,
so that no verdict is taken for another judge's and none is paid for twice.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from hpcsft.errors import InputError, Waiting
from hpcsft.evaluate.judges import check_judge_files, judge_identity, judge_name, key_problem, make_judge
from hpcsft.evaluate.judges.parsers import parser_of
from hpcsft.evaluate.judges.settings import judge_settings
from hpcsft.spec.evaluate import JudgeSpec

TEMPLATE = "Which is better?\n{instruction}\n{output_1}\n{output_2}\nOutput (a) or Output (b)?\n"


def test_the_name_of_a_judge():
    assert judge_name(JudgeSpec(kind="local", model="/models/judge-7b")) == "local/judge-7b"
    assert judge_name(JudgeSpec(model="org/gpt")) == "openai/org/gpt"
    assert judge_name(JudgeSpec(kind="anthropic", model="claude")) == "anthropic/claude"
    assert judge_name(JudgeSpec(evaluator="/evaluators/alpaca_eval_gpt4/")) == "alpaca_eval_gpt4"


def test_whatever_can_change_a_verdict_is_in_the_identity(tmp_path):
    (tmp_path / "a.txt").write_text(TEMPLATE)
    (tmp_path / "b.txt").write_text(TEMPLATE.replace("better", "shorter"))
    changes: list[dict[str, Any]] = [
        {},
        {"kind": "anthropic"},
        {"model": "other"},
        {"api": "completions"},
        {"temperature": 0.5},
        {"max_tokens": 7},
        {"template": str(tmp_path / "a.txt")},
        {"template": str(tmp_path / "b.txt")},
    ]
    assert len({judge_identity(JudgeSpec(**{"model": "judge", **change})) for change in changes}) == len(changes)


def test_what_cannot_change_a_verdict_is_not(tmp_path):
    spec = JudgeSpec(model="judge")
    same = JudgeSpec(
        model="judge", api="chat", orders="random", order_seed=3, max_concurrency=1, max_tries=2, timeout_s=1,
        max_unparsed=1, api_key_env="K", price={"input": 1, "output": 2}, max_cost_usd=3, batch_size=2,
    )  # fmt: skip
    assert judge_identity(same) == judge_identity(spec)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(TEMPLATE)
    a, b = (JudgeSpec(model="judge", template=str(tmp_path / name)) for name in ("a.txt", "b.txt"))
    assert judge_identity(a) == judge_identity(b)  # the text counts, not where it lies


def test_the_parser_and_the_ending_are_in_the_identity():
    settings = judge_settings(JudgeSpec())
    other = parser_of("regex_parser", {"outputs_to_match": {1: "a"}})
    changes = [{}, {"parser": other}, {"parser": other._replace(settings={})}, {"ending": " "}]
    assert len({settings._replace(**change).identity() for change in changes}) == len(changes)


def test_a_server_that_moves_is_the_same_judge(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    before = judge_identity(JudgeSpec())
    assert judge_identity(JudgeSpec(base_url="http://node7:8000/v1")) == before
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    assert judge_identity(JudgeSpec()) == before


def test_a_key_is_needed_where_no_address_is_given(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "MINE"):
        monkeypatch.delenv(name, raising=False)
    assert key_problem(JudgeSpec()) == "OPENAI_API_KEY is not set"
    assert key_problem(JudgeSpec(api_key_env="MINE")) == "MINE is not set"
    assert key_problem(JudgeSpec(base_url="http://x")) is None
    assert key_problem(JudgeSpec(kind="local", model="/m")) is None
    monkeypatch.setenv("OPENAI_BASE_URL", "http://x")
    assert key_problem(JudgeSpec()) is None
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    assert key_problem(JudgeSpec()) is None


def test_a_local_judge_is_another_in_another_precision(monkeypatch):
    from hpcsft.evaluate.judges import local_judge

    spec = JudgeSpec(kind="local", model="/models/judge")
    before = judge_identity(spec)
    sampled = spec.model_copy(update={"temperature": 1.0, "max_tokens": 9})
    assert judge_identity(sampled) == before  # it has no use for them
    monkeypatch.setattr(local_judge, "judge_dtype", lambda: "bfloat16")
    assert judge_identity(spec) != before


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_without_the_package_it_says_what_to_install(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(Waiting, match=f"the judge needs the package {kind}, which is not installed") as caught:
        make_judge(JudgeSpec(kind=kind))
    assert f"pip install 'hpcsft[{kind}]'" in caught.value.hint


def test_files_are_checked_without_making_a_judge(tmp_path):
    check_judge_files(JudgeSpec())
    with pytest.raises(InputError, match=r"evaluate.judge.template: .*gone.txt: cannot be read: No such file"):
        check_judge_files(JudgeSpec(template=str(tmp_path / "gone.txt")))
    with pytest.raises(InputError, match=r"evaluate.judge.evaluator: .*configs.yaml: cannot be read: No such file"):
        check_judge_files(JudgeSpec(evaluator=str(tmp_path)))
