"""A model that has learnt a few answers by heart, and a judge behind a real HTTP server."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hpcsft.data.batches import RowStore
from tests.conftest import build_tiny_model
from tests.data.encoding import encoder_of, rows_of
from tests.data.rows import open_rows

QUESTIONS = {
    "What is 1 + 1?": "2",
    "Name a colour, and say </s> after it.": "blue",
    "Who was the 37th President of the United States?": "Richard Nixon",
    "你好吗？": "我很好，谢谢。",
    "Count.": "one two three four five six seven eight nine ten",
    "Which is the longest river of the world, and through which countries does it flow?": "the Nile",
    "Hello": "Hi",
    "Say it in two lines.": "first line\nsecond line",
    "什么是水？": "H2O",
}
"""What `answering_model` was taught. Answers of 1 to many tokens, so that some end long before others."""


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine threads that wait for each other make tiny tensors twenty times slower."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def answering_model(tmp_path_factory: pytest.TempPathFactory, conversations: list[list[str]]) -> Path:
    """A tiny Llama that answers QUESTIONS by heart: 2 s of training. It is sure of its words, so that greedy answers
    do not hang on the last bit of a logit."""
    import torch
    from transformers import AutoModelForCausalLM

    from hpcsft.models.loss import supervised_loss
    from hpcsft.models.tokenizer import load_tokenizer

    folder = build_tiny_model(tmp_path_factory.mktemp("answering"), conversations, tie_word_embeddings=False)
    rows = rows_of(encoder_of(load_tokenizer(str(folder))), [list(pair) for pair in QUESTIONS.items()])
    store: RowStore = open_rows(tmp_path_factory.mktemp("rows"), rows)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    everything = list(range(len(rows)))
    for _ in range(120):
        loss = supervised_loss(model, store.batch(everything)) / store.supervised(everything)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.02
    model.save_pretrained(folder)
    return folder


class Endpoint:
    """A judge's server on this machine. `answer` gets a request and returns (status, body), and further headers if it
    likes: a Content-Length that is more than the body cuts the reply."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        """Bodies of the requests, each with its `path` and `key`."""
        self.answer: Callable[[dict[str, Any]], tuple[Any, ...]] = lambda request: (200, reply("Output (a)"))
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.base_url = f"{self.address}/v1"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = self.headers["Authorization"] or self.headers["X-Api-Key"]
                request = {**body, "path": self.path, "key": key}
                with endpoint._lock:
                    endpoint.requests.append(request)
                status, value, *more = endpoint.answer(request)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                headers = {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(data)),
                    "retry-after-ms": "1",  # no test waits for a back-off
                    **(more[0] if more else {}),
                }
                with contextlib.suppress(ConnectionError):  # a client that was killed, or has lost its patience
                    self.send_response(status)
                    for name, text in headers.items():
                        if text is not None:
                            self.send_header(name, text)
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def reply(text: str | None, usage: tuple[int, int] | None = None, **more: Any) -> dict[str, Any]:
    """What either of OpenAI's APIs answers; each client reads its own part. `usage` is (input, output) tokens."""
    choice = {"index": 0, "finish_reason": "stop", "text": text, "message": {"role": "assistant", "content": text}}
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)} if usage else None
    return {"id": "1", "object": "x", "created": 1, "model": "m", "choices": [{**choice, **more}], "usage": counts}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A server that prefers what stands first, until a test gives it another `answer`."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with Endpoint() as server:
        yield server
