"""Guards what goes over the wire: both of OpenAI's APIs are spoken as their client speaks them, to a real HTTP server,
and a verdict never comes from a reply that gives none.
"""

from __future__ import annotations

import json

import pytest

from hpcsft.errors import InputError, Waiting
from hpcsft.evaluate.judges import check_judge_files, make_judge
from hpcsft.evaluate.judges.question import QUESTION, Question
from hpcsft.evaluate.verdicts import Usage
from hpcsft.spec.evaluate import JudgeSpec
from tests.evaluate.conftest import reply
from tests.evaluate.judges.ask import PAIR, judged, number_in, numbered, preferred

ASKED = Question(QUESTION).text(PAIR)


@pytest.mark.parametrize(
    ("api", "model", "path"),
    [
        ("chat", "gpt-3.5-turbo-instruct", "/v1/chat/completions"),
        ("completions", "gpt-4", "/v1/completions"),
        ("auto", "gpt-3.5-turbo-instruct", "/v1/completions"),
        ("auto", "gpt-4", "/v1/chat/completions"),
    ],
)
def test_both_apis_are_asked_for_a_short_and_certain_reply(endpoint, monkeypatch, api, model, path):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    endpoint.answer = lambda request: (200, reply("Output (b)"))
    assert preferred([PAIR], base_url=endpoint.base_url, api=api, model=model, api_key_env="MY_KEY") == [0.0]
    (request,) = endpoint.requests
    assert (request["path"], request["key"], request["model"]) == (path, "Bearer sk-secret", model)
    assert (request["temperature"], request["max_tokens"]) == (0, 50)
    if path == "/v1/completions":
        assert request["prompt"] == ASKED + "\n\n"
    else:
        assert request["messages"] == [{"role": "user", "content": ASKED}]


def test_a_template_of_ones_own_is_asked(endpoint, tmp_path):
    (tmp_path / "q.txt").write_text("{instruction} 1: {output_1} 2: {output_2} {x}\n")
    spec = {"base_url": endpoint.base_url, "template": str(tmp_path / "q.txt"), "max_tokens": 5, "temperature": 0.5}
    assert preferred([PAIR], **spec) == [1.0]
    (request,) = endpoint.requests
    assert request["messages"][0]["content"] == "What is 1 + 1? 1: It is {output_2}. 2: 2 {x}"
    assert (request["max_tokens"], request["temperature"]) == (5, 0.5)


def test_verdicts_belong_to_their_pairs_however_many_are_under_way(endpoint):
    endpoint.answer = lambda request: (200, reply(f"Output ({'ab'[number_in(request) % 2]})"))
    assert preferred(numbered(40), base_url=endpoint.base_url, max_concurrency=8) == [1.0, 0.0] * 20
    assert len(endpoint.requests) == 40


def test_a_server_of_ones_own_needs_no_key(endpoint):
    assert preferred([PAIR], base_url=endpoint.base_url) == [1.0]
    assert endpoint.requests[0]["key"] == "Bearer none"


def test_without_a_key_nobody_is_asked(endpoint):
    with pytest.raises(Waiting, match="the judge needs a key, but MY_KEY is not set") as caught:
        make_judge(JudgeSpec(api_key_env="MY_KEY"))
    assert "export MY_KEY=..." in caught.value.hint and "python jobs/judge.py RUN_DIR" in caught.value.hint
    with pytest.raises(Waiting, match="OPENAI_API_KEY"):
        make_judge(JudgeSpec())


def test_the_key_may_be_in_a_file_that_nobody_else_can_read(endpoint, tmp_path):
    file = tmp_path / "judge.key"
    file.write_text("sk-from-a-file\n")
    file.chmod(0o600)
    assert preferred([PAIR], base_url=endpoint.base_url, api_key_file=str(file)) == [1.0]
    assert endpoint.requests[0]["key"] == "Bearer sk-from-a-file"
    check_judge_files(JudgeSpec(api_key_file=str(file)))
    file.chmod(0o644)
    with pytest.raises(Waiting, match=r"api_key_file: .*judge\.key has mode 0644: others have access to it") as caught:
        make_judge(JudgeSpec(api_key_file=str(file)))
    assert f"chmod 600 {file}" in caught.value.hint
    with pytest.raises(InputError, match=r"evaluate\.judge\.api_key_file: .* has mode 0644") as refused:
        check_judge_files(JudgeSpec(api_key_file=str(file)))
    assert refused.value.hint == f"chmod 600 {file}"


def test_an_endpoint_that_repeats_the_key_does_not_spread_it(endpoint, monkeypatch):
    """Some put the request's headers into their errors, and a careless server into its replies."""
    monkeypatch.setenv("OPENAI_API_KEY", "canary-0123456789")
    replied = (200, reply("Output (a) for canary-0123456789"))
    for answer in (replied, (400, {"error": {"message": "no canary-0123456789"}})):
        endpoint.answer = lambda request, answer=answer: answer
        (verdict,) = judged([PAIR], base_url=endpoint.base_url)
        assert "canary" not in verdict.raw and "[secret]" in verdict.raw


@pytest.mark.parametrize("text", ["I cannot compare these.", "", None])
def test_a_reply_without_a_verdict_is_no_verdict(endpoint, text):
    endpoint.answer = lambda request: (200, reply(text, (7, 3)))
    (verdict,) = judged([PAIR], base_url=endpoint.base_url)
    assert (verdict.first_better, verdict.raw, verdict.refused) == (None, text or "", False)
    assert verdict.usage == Usage(7, 3)


def test_texts_cross_the_wire_unchanged(endpoint):
    pair = PAIR._replace(instruction="一加一？ \U0001f642")
    endpoint.answer = lambda request: (200, reply("Output (a) 好\ud83d"))
    (verdict,) = judged([pair], base_url=endpoint.base_url)
    content = endpoint.requests[0]["messages"][0]["content"]
    assert json.dumps(content) == json.dumps(Question(QUESTION).text(pair))
    assert verdict.raw == "Output (a) 好?"  # half a character could not be written into the journal


def test_a_model_that_wants_other_parameters_gets_its_way(endpoint):
    def particular(request):
        if "max_tokens" in request:
            text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
            return 400, {"error": {"message": text}}
        if "temperature" in request:
            return 400, {"error": {"message": "Unsupported value: 'temperature' does not support 0 with this model."}}
        return 200, reply("Output (a)")

    endpoint.answer = particular
    assert preferred(numbered(4), base_url=endpoint.base_url) == [1.0] * 4
    assert len(endpoint.requests) == 2 + 4
    assert endpoint.requests[-1]["max_completion_tokens"] == 50
