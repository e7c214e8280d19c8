"""Guards the answers: the same whichever prompts are answered together, without the prompt, cut where they end."""

from __future__ import annotations

import pytest
import torch

from hpcsft.evaluate.generation.padding import left_padded
from hpcsft.models.load import load_model
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.records import write_json
from tests.evaluate.conftest import QUESTIONS
from tests.evaluate.generation.answering import PROMPTS, answerer_of, answers_of


@pytest.fixture(scope="module")
def one_at_a_time(answering_model) -> dict[int, tuple[list[int], bool]]:
    """Greedy answers by the definition: the most likely token again and again, without padding and without cache."""
    model = load_model(str(answering_model), "float32")
    tokenizer = load_tokenizer(str(answering_model))
    found = {}
    for row, prompt in PROMPTS.items():
        ids = [tokenizer.bos_token_id]
        for text in (f"User: {prompt.instruction}", None, "\nAssistant: "):
            plain = {"add_special_tokens": False, "split_special_tokens": True}
            ids += [tokenizer.eos_token_id] if text is None else tokenizer(text, **plain)["input_ids"]
        start = len(ids)
        with torch.no_grad():
            while len(ids) < start + 40:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] == tokenizer.eos_token_id:
                    break
        found[row] = ids[start:]
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_greedy_answers_do_not_depend_on_the_batch(answering_model, one_at_a_time, batch_size):
    tokenizer = load_tokenizer(str(answering_model))
    answers = answers_of(answerer_of(answering_model, batch_size=batch_size))
    assert sorted(answers) == list(PROMPTS)
    for row, ids in one_at_a_time.items():
        ended = ids[-1] == tokenizer.eos_token_id
        answer = answers[row]
        assert (answer.output, answer.num_tokens) == (tokenizer.decode(ids[:-1] if ended else ids).strip(), len(ids))
        assert answer.finish == ("stop" if ended else "length")
        assert answer.instruction == PROMPTS[row].instruction
        assert (answer.batching, answer.dtype) == (f"sorted/{batch_size}", "float32")


def test_what_was_learnt_is_answered_and_nothing_else(answering_model):
    answers = answers_of(answerer_of(answering_model, batch_size=4))
    assert {answer.instruction: answer.output for answer in answers.values()} == QUESTIONS
    assert {answer.finish for answer in answers.values()} == {"stop"}


@pytest.mark.parametrize("max_new_tokens", [1, 3, 6])
def test_an_answer_that_does_not_end_is_cut_and_says_so(answering_model, one_at_a_time, max_new_tokens):
    answers = answers_of(answerer_of(answering_model, max_new_tokens=max_new_tokens, batch_size=4))
    tokenizer = load_tokenizer(str(answering_model))
    cut = 0
    for row, ids in one_at_a_time.items():
        if len(ids) > max_new_tokens:
            cut += 1
            expected = tokenizer.decode(ids[:max_new_tokens]).strip()
            assert (answers[row].output, answers[row].finish) == (expected, "length")
            assert answers[row].num_tokens == max_new_tokens
        else:
            assert (answers[row].finish, answers[row].num_tokens) == ("stop", len(ids))
    assert cut and (max_new_tokens < 3 or cut < len(answers))


@pytest.mark.parametrize("template", ["user_assistant", "chatml"])
def test_an_answer_ends_with_the_end_token_of_the_template(answering_model, one_at_a_time, template):
    """For ChatML the model is made to say <|im_end|> where it says </s>, and reads what it has learnt."""
    answerer = answerer_of(answering_model, template, max_new_tokens=200)
    plain = answerer_of(answering_model, "user_assistant")
    (eos,) = plain.ending.end_tokens
    (end,) = {eos} if template == "user_assistant" else answerer.ending.end_tokens - {eos}
    with torch.no_grad():
        head = answerer.model.lm_head.weight
        head[[eos, end]] = head[[end, eos]]
    answerer.questioner = plain.questioner
    answers = answers_of(answerer)
    assert {row: answer.num_tokens for row, answer in answers.items()} == {
        row: len(ids) for row, ids in one_at_a_time.items()
    }
    assert {answer.instruction: answer.output for answer in answers.values()} == QUESTIONS


def test_a_text_ends_an_answer_and_is_not_part_of_it(answering_model):
    answers = answers_of(answerer_of(answering_model, stop=["line\nsecond", " four"], batch_size=4))
    by_instruction = {answer.instruction: answer for answer in answers.values()}
    lines, count = by_instruction["Say it in two lines."], by_instruction["Count."]
    assert (lines.output, lines.finish) == ("first", "turn")
    assert (count.output, count.finish) == ("one two three", "turn")
    others = {row: answer for row, answer in answers.items() if answer not in (lines, count)}
    assert {answer.finish for answer in others.values()} == {"stop"}


def test_greedy_is_greedy_whatever_the_model_recommends(answering_model, tmp_path):
    """Qwen2.5 ships repetition_penalty 1.05, Llama 2 chat top_p 0.9: neither is in the spec."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in answering_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_json(folder / "generation_config.json", {"repetition_penalty": 3.0, "eos_token_id": 1})
    for batching in ("sorted", "continuous"):
        answers = answers_of(answerer_of(folder, batching=batching))
        assert {answer.instruction: answer.output for answer in answers.values()} == QUESTIONS


def test_without_a_gpu_auto_is_sorted(answering_model):
    assert answerer_of(answering_model, batching="auto").batching == "sorted"


def test_padding_is_on_the_left_and_masked_by_length():
    input_ids, mask = left_padded([[5], [9, 9, 7]], pad=9)
    assert input_ids.tolist() == [[9, 9, 5], [9, 9, 7]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
