"""The chat template of a trained model as Jinja text, for whoever serves it.

Servers render a conversation to one text and tokenize that. Training tokenizes each piece by itself, so the text is
written such that the tokens are the same wherever they can be. All that precedes the first answer always is, or there
is no such text. Of user_assistant an earlier answer is not: its first word is joined there with the space after
"Assistant:", which training keeps a token of its own. And a special token that a message spells is control to a server.
"""

from __future__ import annotations

from typing import Any

from hpcsft.data.encode import encode_prefix
from hpcsft.data.formats import Conversation, Turn
from hpcsft.data.templates import BUILT_IN, make_template
from hpcsft.data.tokens import TextEncoder

USER_ASSISTANT = (
    "{BOS}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'LATER\\nAssistant: ' + message['content'] + eos_token }}"
    "{% else %}{{ ('FIRST' if loop.first else 'LATER\\n') + message['role'].capitalize() + ': ' + message['content'] "
    "+ eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'LATER\\nAssistant: ' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PROBES: tuple[Conversation, ...] = tuple(
    [*head, Turn("user", text)]
    for head in ([], [Turn("system", "Be brief.")])
    for text in ("Who was it?", "  x  12\n\n\ty\n", "你好,世界 12", "")
)


def chat_template(name: str, source: str | None, tokenizer: Any) -> str | None:
    """Jinja text for what `data.template` calls `name`, with the tokens of training for all before the first answer.

    `source` is the Jinja text that training used, if it did; else the tokenizer's own or the file `name` is read. None
    if no text gives those tokens. StageError as in `make_template`.
    """
    if name not in BUILT_IN:
        from hpcsft.data.jinja_template import find_source

        return source if source is not None else find_source(name, tokenizer)
    template, texts = make_template(name, tokenizer), TextEncoder(tokenizer)
    expected = [encode_prefix(template, texts, turns) for turns in PROBES]
    for text in _candidates(name, tokenizer):
        if [_as_served(text, tokenizer, turns) for turns in PROBES] == expected:
            return text
    return None


def _candidates(name: str, tokenizer: Any) -> list[str]:
    """Some sentencepiece tokenizers put a space before what follows a special token, to others it has to be written."""
    if name == "chatml":
        return [CHATML]
    bos = "" if tokenizer.bos_token_id is None else "{{ bos_token }}"
    spaces = (("", ""), ("", " "), (" ", " "))
    return [
        USER_ASSISTANT.replace("{BOS}", bos).replace("FIRST", first).replace("LATER", later) for first, later in spaces
    ]


def _as_served(text: str, tokenizer: Any, turns: Conversation) -> list[int]:
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    rendered = tokenizer.apply_chat_template(messages, chat_template=text, add_generation_prompt=True, tokenize=False)
    return tokenizer(rendered, add_special_tokens=False)["input_ids"]
