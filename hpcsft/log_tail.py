"""Reads the ends of logs: what was appended since, and the last lines; and makes text of files safe for a terminal."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

CHUNK_BYTES = 1 << 20
LAST_BYTES = 1 << 16
TITLE = r"(?:\x1b\]|\x9d)[^\x00-\x08\x0a-\x1f\x7f-\x9f]*"
"""All but the end of what sets the title of a window and the like."""
ESCAPES = rf"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|{TITLE}(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-Z\\^-~]"
"""Also colours, cursor moves and more."""
CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
"""Control characters but for tab, line feed and carriage return; also Unicode's second block, C1."""
UNWANTED = re.compile(f"{ESCAPES}|{CONTROLS}")
UNFINISHED = re.compile(rf"(?:(?:\x1b\[|\x9b)[0-?]*[ -/]*|{TITLE}\x1b?|\x1b[ -/]*)\Z")
"""The beginning of one of ESCAPES, at the end of a text."""
LONGEST_ESCAPE = 256
"""Characters; what goes on longer than that is none."""
LINE_BREAKS = re.compile(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
BIDI_MARKS = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""They change the order in which a terminal shows what is beside them."""
SURROGATES = re.compile(r"[\ud800-\udfff]")
"""Halves of characters: they cannot be printed."""


def _at_once(path: str, flags: int) -> int:
    """For open(): a pipe in another user's run, that nobody writes into, keeps nobody waiting. It is an empty file."""
    return os.open(path, flags | os.O_NONBLOCK)


class Tail:
    """Reads what is appended to a file, each byte once. A file that is not there yet is empty.

    With `max_bytes` it begins so far before the end, and whenever it is further behind than that it skips to there.
    """

    def __init__(self, path: Path, max_bytes: int | None = None, offset: int = 0):
        self.path = path
        self.max_bytes = max_bytes
        self.offset = offset
        self._inode = 0

    def read(self) -> bytes:
        """The next bytes, at most CHUNK_BYTES; empty when there is nothing new.

        A file that was cut or replaced is read from its beginning. It is opened each time, because on a network
        filesystem that is what makes news of other hosts visible.
        """
        try:
            file = open(self.path, "rb", opener=_at_once)  # noqa: SIM115 (closed below; a missing file is no error)
        except FileNotFoundError:
            return b""
        with file:
            facts = os.fstat(file.fileno())
            if facts.st_size < self.offset or (self._inode and facts.st_ino != self._inode):
                self.offset = 0
            self._inode = facts.st_ino
            if self.max_bytes is not None:
                self.offset = max(self.offset, facts.st_size - self.max_bytes)
            file.seek(self.offset)
            data = file.read(min(CHUNK_BYTES, facts.st_size - self.offset))
        self.offset += len(data)
        return data


def offset_of_last(path: Path, num_lines: int) -> int:
    """Where the last `num_lines` lines of `path` begin, in bytes. Reads no more of the file than these lines."""
    with open(path, "rb", opener=_at_once) as file:
        end = start = file.seek(0, os.SEEK_END)
        left = num_lines
        while start and left >= 0:
            begin = max(0, start - LAST_BYTES)
            file.seek(begin)
            block = file.read(start - begin)
            if start == end and block.endswith(b"\n"):  # it ends the last line and begins none
                block = block[:-1]
            place = len(block)
            while left and (place := block.rfind(b"\n", 0, place)) >= 0:
                left -= 1
                if not left:
                    return begin + place + 1
            start = begin
    return 0 if num_lines else end


def last_lines(path: Path, count: int, max_bytes: int = LAST_BYTES) -> list[str]:
    """The last `count` lines of `path` as a terminal would show them, from its last `max_bytes`; none without it."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            data = file.read(max_bytes)
    except FileNotFoundError:
        return []
    if size > max_bytes:  # the first line is a part of one, unless there is no other
        data = data.partition(b"\n")[2] or data
    return shown_lines(data)[-count:] if count else []


def shown_lines(data: bytes) -> list[str]:
    """The lines of `data` as a terminal would show them: of a progress bar its last state, no colours, no controls."""
    lines = UNWANTED.sub("", data.decode("utf-8", errors="replace")).split("\n")
    if not lines[-1]:
        lines.pop()
    return [_last_segment(line).expandtabs() for line in lines]


def safe_text(text: str) -> str:
    """`text` with its lines as they are, without escape sequences, control characters and writing directions."""
    return SURROGATES.sub("\N{REPLACEMENT CHARACTER}", BIDI_MARKS.sub("", UNWANTED.sub("", text))).replace("\r", "")


def one_line(text: str) -> str:
    """A message from a file as one line for a terminal, cut nowhere: ` / ` for line breaks, and nothing that moves it.

    Escape sequences, control characters and marks of the writing direction are left out.
    """
    lines = LINE_BREAKS.split(re.sub(ESCAPES, "", text))
    plain = (re.sub(CONTROLS, "", BIDI_MARKS.sub("", line)).replace("\t", " ").strip() for line in lines)
    return SURROGATES.sub("\N{REPLACEMENT CHARACTER}", " / ".join(filter(None, plain)))


class TerminalText:
    """What is read of a log, part by part, as text that changes nothing on a terminal; progress bars still move.

    A part may end in the middle of a character or of an escape sequence: that waits for the next one.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting = ""

    def feed(self, data: bytes) -> str:
        """What can be written by now."""
        text = self._waiting + self._decoder.decode(data)
        unfinished = UNFINISHED.search(text, max(0, len(text) - LONGEST_ESCAPE))
        end = unfinished.start() if unfinished else len(text)
        self._waiting = text[end:]
        return UNWANTED.sub("", text[:end])


def _last_segment(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part), "")
