"""Guards the judge's pay: answers that repeat the prompt, are empty, loop or carry a template's markers are found and
counted, good ones are left alone, and too many bad ones are refused before a judge is asked.
"""

from __future__ import annotations

import pytest

from hpcsft.errors import Waiting
from hpcsft.evaluate.checks import Checks, check_answers, ends_in_loop, refuse_bad, repeats_prompt
from hpcsft.evaluate.outputs import Answer
from hpcsft.spec.evaluate import ChecksSpec

PROMPT = "Name the longest river of Africa."
GOOD = "The Nile is the longest river of Africa; it flows through eleven countries into the Mediterranean Sea."


def answer(output: str, row: int = 0, finish: str = "stop", instruction: str = PROMPT) -> Answer:
    return Answer(row=row, instruction=instruction, output=output, finish=finish, num_tokens=len(output.split()))


BAD = {
    "the prompt, then an answer": (answer(f"{PROMPT}\n\n{GOOD}"), {"echo"}),
    "the prompt in other white space": (answer("Name the longest\n river of  Africa. Nile"), {"echo"}),
    "the prompt behind a role": (answer(f"User: {PROMPT}\nNile"), {"echo"}),
    "the prompt behind a label": (answer(f"Question: {PROMPT}\nAnswer: Nile"), {"echo"}),
    "the prompt as a heading": (answer(f"# {PROMPT}\nNile"), {"echo"}),
    "the prompt in bold": (answer(f"**{PROMPT}** Nile"), {"echo"}),
    "the prompt in quotes": (answer(f"“{PROMPT}” Nile"), {"echo"}),
    "the prompt behind a first token": (answer(f"<s>User: {PROMPT}"), {"echo", "leftover"}),
    "a short prompt in Chinese": (answer("写一首关于春天的诗。春", instruction="写一首关于春天的诗"), {"echo"}),
    "a short prompt in Japanese": (answer("日本の首都はどこ？", instruction="日本の首都はどこ"), {"echo"}),
    "nothing": (answer(" \n"), {"empty"}),
    "nothing that is seen": (answer("\ufeff\u200b \u200b"), {"empty"}),
    "cut": (answer(GOOD, finish="length"), {"cut"}),
    "another turn": (answer(f"{GOOD}\nUser: And of Asia?"), {"leftover"}),
    "another turn in Chinese": (answer("尼罗河。\n用户：亚洲呢？\n助手：长江。"), {"leftover"}),
    "another turn with a wide colon": (answer(f"{GOOD}\n\nUser：And of Asia?"), {"leftover"}),
    "another turn of Alpaca": (answer(f"{GOOD}\n\n### Instruction:\nAnd of Asia?"), {"leftover"}),
    "its own role": (answer(f"Assistant: {GOOD}"), {"leftover"}),
    "Gemma": (answer(f"{GOOD}<end_of_turn>\n<start_of_turn>user"), {"leftover"}),
    "Gemma's end": (answer(f"{GOOD}<eos>"), {"leftover"}),
    "DeepSeek": (answer(f"{GOOD}<｜end▁of▁sentence｜>"), {"leftover"}),
    "Llama 3": (answer(f"{GOOD}<|reserved_special_token_1|>"), {"leftover"}),
    "first and last token": (answer(f"<s>{GOOD}</s>"), {"leftover"}),
    "ChatML": (answer(f"{GOOD}<|im_end|>"), {"leftover"}),
    "Llama 2": (answer(f"[INST] {GOOD}"), {"leftover"}),
    "an end token in letters": (answer(f"{GOOD}</s>"), {"leftover"}),
    "Alpaca": (answer("### Response:\nNile"), {"leftover"}),
    "a loop": (answer(GOOD + " It is long." * 12, finish="length"), {"loop", "cut"}),
    "a loop of Chinese": (answer("尼罗河是非洲最长的河流。" * 8), {"loop"}),
    "a loop cut in a word": (answer("The river is called the Nile. " * 5 + "The river is cal"), {"loop"}),
    "a numbered loop": (answer(" ".join(f"{n}. Eat healthy food." for n in range(1, 30))), {"loop"}),
    "one Chinese sign": (answer("哈" * 90), {"loop"}),
    "one sign": (answer("!" * 500), {"loop"}),
}


@pytest.mark.parametrize(("given", "kinds"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_found(given, kinds):
    found = check_answers([answer(GOOD, row=3), given.model_copy(update={"row": 7})])
    assert {kind: rows for kind, rows in found.examples.items()} == {kind: [7] for kind in kinds}
    assert {kind for kind in ("echo", "empty", "leftover", "loop", "cut") if getattr(found, kind)} == kinds


@pytest.mark.parametrize(
    "given",
    [
        answer(GOOD),
        answer("Hello! How can I help?", instruction="Hello"),
        answer("Users: a word for people.\nThe assistant: see above."),
        answer("Say `a < b` and a<b>c; 3 | 4"),
        answer("No, no, no!"),
        answer("Use <s>strike</s> and <s>through</s>."),
        answer("It is <eos>, which ends a text.", instruction="What does <eos> stand for in a language model?"),
        answer("User: Hi\nAssistant: Hello\nUser: Bye", instruction="Let a user talk to an assistant."),
        answer("Here it is.\nUser: Hi\nAssistant: Hello", instruction="Write a dialogue of two."),
        answer("Done.\nUser: Anne", instruction="Write this in capitals, with a remark before it.\nUser: anne"),
        answer("Human: the species Homo sapiens"),
        answer("These are the terms.\nDog: an animal.\nHuman: another one."),
        answer("Anne: Hi,\nhow are you?\nUser: Fine."),
        answer("It is asked, as a rule, in this way:\n### Instruction:\nwhat to do"),
        answer("Such a file is read.\n```\nUser: git\n```"),
        answer("The heading\n" + "-" * 90),
        answer("| a | b |\n| --- | --- |\n" + "| 0 | 0 |\n" * 12),
        answer("\n".join(f"7 times {n} is {7 * n}" for n in range(1, 20))),
        answer("你好！有什么可以帮您？", instruction="你好！"),
        answer("| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |"),
        answer("1. Wash it.\n2. Dry it.\n3. Cut it.\n4. Eat it.\n5. Wash up.\n6. Dry up.\n7. Sleep.\n8. Wake up."),
    ],
)
def test_good_answers_are_left_alone(given):
    assert check_answers([given]) == Checks(num_answers=1)


def test_a_loop_is_three_times_the_same_and_long_enough():
    sentence = "All work and no play makes Jack a dull boy, and that is the end of it. "
    assert not ends_in_loop(sentence * 2) and ends_in_loop(sentence * 4)
    assert not ends_in_loop("ha " * 20) and ends_in_loop("ha " * 30)
    assert not ends_in_loop(sentence * 5 + "And now for something completely different.")
    assert not ends_in_loop("")


def test_a_long_tail_takes_no_time():
    assert not ends_in_loop("".join(f"{n} bottles of beer; " for n in range(200_000)))


def test_an_echo_needs_a_prompt_that_says_something():
    assert repeats_prompt("Why is the sky blue?", "Why is the sky blue? Because")
    assert not repeats_prompt("Hi", "Hi there") and not repeats_prompt(
        "Why is the sky blue?", "The sky is blue because"
    )


def test_the_line_names_kinds_and_rows():
    found = check_answers([answer("", row=row) for row in range(7)] + [answer(GOOD, row=9, finish="length")])
    assert found.told() == ("8 answers: 7 are empty (rows 0, 1, 2, 3, 4, ...); 1 were cut at max_new_tokens (row 9)")
    assert check_answers([answer(GOOD)]).told() == "1 answers: nothing found"


def test_too_many_are_refused_with_all_that_is_wrong_and_the_way_on():
    checks = {
        "base": Checks(num_answers=10, echo=10, loop=9, cut=10),
        "epoch-1": Checks(num_answers=10, echo=2, empty=3),
        "epoch-2": Checks(num_answers=10),
    }
    with pytest.raises(Waiting, match="no judge is paid for such answers") as caught:
        refuse_bad(checks, ChecksSpec())
    assert "base: 10 of 10 answers repeat the prompt (evaluate.checks.echo is 0.2)" in caught.value.message
    assert "epoch-1: 3 of 10 answers are empty" in caught.value.message
    assert caught.value.message.count("answers ") == 2 and "--force" in caught.value.hint
    refuse_bad({"epoch-1": Checks(num_answers=10, echo=2, empty=2, loop=10, cut=10)}, ChecksSpec())
    with pytest.raises(Waiting, match="1 of 10 answers end in a loop"):
        refuse_bad({"base": Checks(num_answers=10, loop=1)}, ChecksSpec(loop=0))
