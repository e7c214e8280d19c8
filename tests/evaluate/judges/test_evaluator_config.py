"""Guards that an evaluator of AlpacaEval asks here what it asks there: its prompt, its parameters, its parser, with
what AlpacaEval fills in by itself; and that what cannot be done alike is refused by name instead of done otherwise.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcsft.errors import InputError
from hpcsft.evaluate.judges.evaluator_config import load_evaluator
from hpcsft.evaluate.judges.question import Message
from tests.evaluate.conftest import reply
from tests.evaluate.judges.ask import PAIR, preferred

PROMPT = "Which is best?\n{instruction}\n(a) {output_1}\n(b) {output_2}\n"
FILLED = "Which is best?\nWhat is 1 + 1?\n(a) It is {output_2}.\n(b) 2"
MATCH = {"outputs_to_match": {1: r"(?:^|\n) ?Output \(a\)", 2: r"(?:^|\n) ?Output \(b\)"}}
TOOL = {"type": "function", "function": {"name": "pick", "parameters": {"type": "object"}}}


def written(folder: Path, name: str = "mine", prompt: str = PROMPT, **config: Any) -> str:
    """An evaluator's folder as AlpacaEval lays it out."""
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "prompt.txt").write_text(prompt)
    values = {
        "prompt_template": f"{name}/prompt.txt",
        "fn_completions": "openai_completions",
        "completions_kwargs": {"model_name": "text-davinci-003", "max_tokens": 50, "temperature": 0},
        "completion_parser_kwargs": MATCH,
        "batch_size": 1,
    }
    (folder / name / "configs.yaml").write_text(yaml.safe_dump({name: {**values, **config}}))
    return str(folder / name)


def of_model(name: str, **settings: Any) -> dict[str, Any]:
    return {"completions_kwargs": {"model_name": name, **settings}}


def test_a_plain_evaluator_speaks_the_completions_api(tmp_path, endpoint):
    endpoint.answer = lambda request: (200, reply("\nOutput (b)"))
    evaluator = written(tmp_path)
    assert preferred([PAIR], evaluator=evaluator, base_url=endpoint.base_url, api="auto") == [0.0]
    (request,) = endpoint.requests
    assert (request["path"], request["prompt"]) == ("/v1/completions", FILLED)
    sent = {name: request[name] for name in ("model", "max_tokens", "temperature", "top_p")}
    assert sent == {"model": "text-davinci-003", "max_tokens": 50, "temperature": 0, "top_p": 1.0}


def test_what_an_evaluator_leaves_out_is_what_alpaca_eval_sends(tmp_path):
    found = load_evaluator(written(tmp_path, **of_model("gpt-4")), "openai")
    assert found.parameters == {"max_tokens": 2048, "temperature": 0.7, "top_p": 1.0}
    found = load_evaluator(written(tmp_path, **of_model("gpt-4", top_p=None, price_per_token=1, num_procs=3)), "openai")
    assert found.parameters == {"max_tokens": 2048, "temperature": 0.7}


@pytest.mark.parametrize(
    ("settings", "api"),
    [
        ({"model_name": "gpt-4"}, "chat"),
        ({"model_name": "gpt-3.5-turbo-0301"}, "chat"),
        ({"model_name": "gpt-3.5-turbo-instruct"}, "completions"),
        ({"model_name": "text-davinci-003"}, "completions"),
        ({"model_name": "Meta-Llama-3-70B-Instruct"}, "chat"),
        ({"model_name": "llama-instruct"}, "completions"),
        ({"model_name": "llama-instruct", "requires_chatml": True}, "chat"),
        ({"model_name": "gpt-4", "is_chat": False}, "completions"),
    ],
)
def test_the_api_follows_from_the_models_name(tmp_path, settings, api):
    assert load_evaluator(written(tmp_path, completions_kwargs=settings), "openai").api == api


def test_a_function_call_is_the_reply(tmp_path, endpoint):
    chatml = f"<|im_start|>system\nBe fair.\n<|im_end|>\n<|im_start|>user\n{PROMPT}<|im_end|>"
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    called["tool_calls"][0]["function"] = {"name": "pick", "arguments": '{"best_output": "Output (a)"}'}
    endpoint.answer = lambda request: (200, reply(None, message=called))
    choice = {"type": "function", "function": {"name": "pick"}}
    evaluator = written(
        tmp_path,
        prompt=chatml,
        completion_parser_kwargs={"outputs_to_match": {1: r"(?i)output \(a\)", 2: r"(?i)output \(b\)"}},
        **of_model("gpt-3.5-turbo-16k", tools=[TOOL], tool_choice=choice),
    )
    assert preferred([PAIR], evaluator=evaluator, base_url=endpoint.base_url, api="auto") == [1.0]
    (request,) = endpoint.requests
    assert (request["tools"], request["tool_choice"]) == ([TOOL], choice)
    assert [Message(**message) for message in request["messages"]] == [
        Message("system", "Be fair."),
        Message("user", FILLED),
    ]
    called.update(tool_calls=None, function_call={"name": "pick", "arguments": '{"best_output": "Output (b)"}'})
    assert preferred([PAIR], evaluator=evaluator, base_url=endpoint.base_url, api="auto") == [0.0]


def test_weights_come_from_log_probabilities(tmp_path, endpoint):
    tops = [{"token": "M", "logprob": math.log(0.3)}, {"token": "m", "logprob": math.log(0.1)}]
    endpoint.answer = lambda request: (
        200,
        reply("M", logprobs={"content": [{"token": "M", "logprob": -1.0, "top_logprobs": tops}]}),
    )
    evaluator = written(
        tmp_path,
        fn_completion_parser="logprob_parser",
        completion_parser_kwargs={"numerator_token": "m", "denominator_tokens": ["m", "M"], "is_binarize": False},
        completion_key="completions_all",
        **of_model("gpt-4-1106-preview", max_tokens=1, temperature=1, logprobs=True, top_logprobs=5),
    )
    (found,) = preferred([PAIR], evaluator=evaluator, base_url=endpoint.base_url, api="auto")
    assert found == pytest.approx(0.25, abs=1e-12)
    (request,) = endpoint.requests
    assert (request["logprobs"], request["top_logprobs"], request["max_tokens"]) == (True, 5, 1)


def test_the_prompt_may_lie_beside_the_evaluator_or_in_it(tmp_path):
    written(tmp_path, "text_davinci_003")
    other = written(tmp_path, "other", prompt="{instruction}{output_2}{output_1}")
    for template, text in [
        ("text_davinci_003/prompt.txt", FILLED),
        ("prompt.txt", "What is 1 + 1?2It is {output_2}."),
        ("{instruction}: {output_1}, {output_2}", "What is 1 + 1?: It is {output_2}., 2"),
    ]:
        config = yaml.safe_load(Path(other, "configs.yaml").read_text())
        config["other"]["prompt_template"] = template
        Path(other, "configs.yaml").write_text(yaml.safe_dump(config))
        assert load_evaluator(other, "openai").question.text(PAIR) == text


def test_marks_of_an_api_that_is_no_more_are_left_out(tmp_path):
    prompt = f"\n\nHuman: {PROMPT}\n\nAssistant:"
    kwargs = {"model_name": "claude-v1", "max_tokens_to_sample": 50, "client_function_name": "completions"}
    evaluator = written(tmp_path, prompt=prompt, fn_completions="anthropic_completions", completions_kwargs=kwargs)
    found = load_evaluator(evaluator, "anthropic")
    assert found.question.messages(PAIR) == [Message("user", FILLED)]
    assert (found.model, found.api, found.parameters) == ("claude-v1", "chat", {"max_tokens": 50, "temperature": 0.7})


def test_an_endpoint_of_the_evaluators_own_is_taken_unless_the_spec_has_one(tmp_path, endpoint):
    evaluator = written(tmp_path, **of_model("big", client_kwargs={"base_url": endpoint.base_url}))
    assert preferred([PAIR], evaluator=evaluator) == [1.0]
    assert preferred([PAIR], evaluator=evaluator, base_url=endpoint.address + "/other") == [1.0]
    assert [request["path"] for request in endpoint.requests] == ["/v1/chat/completions", "/other/chat/completions"]


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ({"batch_size": 5}, r"5 pairs in one question \(batch_size\) are not supported", "batch_size 1"),
        ({"fn_completions": "cohere_completions"}, "fn_completions 'cohere_completions' is not supported", "anthropic"),
        ({"fn_completions": "anthropic_completions"}, "anthropic_completions is for another kind", '"anthropic"'),
        ({"fn_completion_parser": "my_parser"}, "no parser 'my_parser'; there are: regex_parser", None),
        ({"completion_parser_kwargs": {"x": 1}}, "regex_parser takes outputs_to_match, not: x", None),
        ({"completion_parser_kwargs": "x"}, "completion_parser_kwargs is no mapping", None),
        ({"completions_kwargs": {}}, "completions_kwargs has no model_name", None),
        (of_model("m", tokens_to_favor=["a"]), "completions_kwargs tokens_to_favor is not supported", "top_logprobs"),
        (of_model("m", client_kwargs={"api_key": "k"}), "client_kwargs api_key is not supported", "base_url"),
        ({"processors_to_kwargs": {"MyProcessor": {}}}, "processor MyProcessor is not supported", "ChainOfThought"),
        ({"random_seed_column": ["x"]}, "setting random_seed_column is not supported", "prompt_template"),
        ({"prompt_template": "gone.txt"}, "no prompt_template 'gone.txt'", "gone.txt"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, config, message, hint):
    with pytest.raises(InputError, match=rf"evaluate.judge.evaluator: .*configs.yaml: {message}") as caught:
        load_evaluator(written(tmp_path, **config), "openai")
    assert hint is None or hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "not a configuration of AlpacaEval"),
        ("a: 1", "not a configuration of AlpacaEval"),
        (json.dumps({"a": {}, "b": {}}), "a pool of 2 evaluators is not supported: a, b"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, text, message):
    (tmp_path / "configs.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_evaluator(str(tmp_path), "openai")
