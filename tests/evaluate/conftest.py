"""A model that has learnt a few answers by heart, and a judge behind a real HTTP server."""

from __future__ import annotations

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
    """An OpenAI-compatible server on this machine. `answer` gets a request and returns (status, body)."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        """Bodies of the requests, each with its `path` and `key`."""
        self.answer: Callable[[dict[str, Any]], tuple[int, Any]] = lambda request: (200, reply("Output (a)"))
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

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
                request = {**body, "path": self.path, "key": self.headers["Authorization"]}
                with endpoint._lock:
                    endpoint.requests.append(request)
                status, value = endpoint.answer(request)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("retry-after-ms", "1")  # the client honours it: no test waits for its back-off
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def reply(text: str | None) -> dict[str, Any]:
    """What either API answers; each client reads its own part."""
    choice = {"index": 0, "finish_reason": "stop", "text": text, "message": {"role": "assistant", "content": text}}
    return {"id": "1", "object": "completion", "created": 1, "model": "m", "choices": [choice]}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A server that prefers what stands first, until a test gives it another `answer`."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Endpoint() as server:
        yield server
