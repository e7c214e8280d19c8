"""Guards the page about the data: whole by itself, harmless whatever the data holds, and as the audit tells it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from hpcsft.data.audit import audit
from hpcsft.data.quarantine import BadRow, write_bad_rows
from hpcsft.data.shards import Manifest
from hpcsft.records import read_json
from hpcsft.report.data_page import data_page
from hpcsft.spec import parse_spec
from tests.data.rows import made_rows, write_shards
from tests.data.tokenizers import train_tokenizer
from tests.report.made import finished_run, made_audit

NASTY = '<script>alert(1)</script> "quoted" & <img src=x onerror=alert(1)> \x1b[31m \u202e {braces}'


class Page(HTMLParser):
    """Which elements a page has, what is in them, and whether each is closed."""

    EMPTY = {"meta"}

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def text(self, tag: str) -> list[str]:
        """The texts directly in elements of this kind."""
        return [text for inside, text in self.texts if inside == tag]


@pytest.fixture
def made(spec_values):
    """An audit whose numbers are known."""
    run, spec = finished_run(spec_values)
    return made_audit(spec, Manifest.model_validate(read_json(run.manifest)))


def quarantined(number: int) -> dict:
    bad = {"file": f"/d/{NASTY}", "row": 3, "reason": NASTY, "excerpt": NASTY}
    return {"reasons": [{"reason": NASTY, "rows": number}], "first": [bad]}


def test_nothing_in_the_data_becomes_part_of_the_page(made):
    made["samples"] = [{"row": 1, "tokens": 9, "runs": [{"text": NASTY, "learnt": True, "special": False}]}]
    made["rules"]["template"] = NASTY
    page = data_page({**made, "quarantine": quarantined(2), "fate": {**made["fate"], "quarantined": 2}}, NASTY)
    parsed = Page(page)
    assert "script" not in parsed.tags and "img" not in parsed.tags
    assert "\x1b" not in page and "\u202e" not in page
    harmless = NASTY.replace("\x1b", "␛").replace("\u202e", "<U+202E>")
    assert "".join(parsed.text("mark")).count(harmless) == 1
    assert parsed.text("title")[0] == f"{harmless}: data"
    assert harmless in parsed.text("td") and harmless in parsed.text("div")


def test_the_page_needs_nothing_but_itself(made):
    page = data_page(made, "tiny")
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    assert not {"src", "href", "srcset", "style"} & {name for name, _ in parsed.attributes}
    assert "url(" not in page and "@import" not in page
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in parsed.attributes
    assert "prefers-color-scheme: dark" in page and ("name", "viewport") in parsed.attributes


def test_it_tells_what_the_audit_tells(made):
    page = data_page(made, "tiny")
    parsed = Page(page)
    assert "1,234 were read: 0 kept, 5 dropped, 2 quarantined." in parsed.text("p")
    assert {"90", "10", "2,000", "500"} <= set(parsed.text("td"))
    assert "learn me" in parsed.text("mark") and "<s>" in parsed.text("i")
    assert "Row 17 of 64, 3 tokens" in parsed.text("summary")
    assert len(re.findall(r"<rect ", page)) == 2 * 32 - 16  # lengths 1 to 64 in 32 bars, learnt tokens in the first 16
    assert any("median 32, 95% up to 61, most 64" in text for text in parsed.text("figcaption"))


@pytest.mark.parametrize(("packing", "words"), [(True, "Rows are packed"), (False, "Rows are not packed")])
def test_what_it_says_of_packing_is_true(spec_values, made, packing, words):
    made["train"]["packing"]["packing"] = packing
    texts = Page(data_page(made, "tiny")).text("p")
    assert any(text.startswith(words) and "no position is padding" in text for text in texts)


def test_rows_that_repeat_tokens_are_explained(made):
    made["fate"].update(tokens_read=100, tokens_in_rows=250)
    assert any(text.startswith("More than were read") for text in Page(data_page(made, "tiny")).text("p"))


def test_a_clean_data_set_has_no_quarantine(made):
    made["fate"]["quarantined"] = 0
    assert "Quarantine" not in data_page(made, "tiny")


def test_the_audit_of_preprocessing_makes_a_page(spec_values, conversations, tmp_path, made):
    tokenizer = train_tokenizer("sentencepiece", (text for turns in conversations for text in turns))
    manifest = write_shards(tmp_path, made_rows(50), 20, below=2**62)
    write_bad_rows(tmp_path / "quarantine.jsonl", [BadRow(file="a", row=1, reason="turn 1 is empty", excerpt="{}")])
    manifest = manifest.model_copy(update={"counts": {"conversations_quarantined": 1}})
    document = audit(manifest, tmp_path, parse_spec(spec_values), tokenizer)
    assert document.keys() == made.keys()
    parsed = Page(data_page(document, "tiny"))
    assert parsed.tags.count("details") == 1 + 10
    assert "turn N is empty" in parsed.text("td")
