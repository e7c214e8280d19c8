"""Guards the whole: a server that fails 30% of its calls in every way there is, and SIGKILL in the middle, end in the
verdicts of an undisturbed judge, with nothing asked twice that was on disk and no failure kept.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from hpcsft.evaluate.judges import judge_identity, make_judge
from hpcsft.evaluate.judges.journal import VerdictJournal
from hpcsft.evaluate.verdicts import Comparison
from hpcsft.records import read_jsonl
from hpcsft.spec.evaluate import JudgeSpec
from tests.evaluate.conftest import reply
from tests.evaluate.judges.ask import number_in, numbered

ROOT = Path(__file__).resolve().parents[3]
PAIRS = numbered(200)
ERRORS = ("429", "500", "timeout", "cut", "nonsense")

CHILD = """
import sys
from hpcsft.evaluate.judges import judge_identity, make_judge
from hpcsft.evaluate.judges.journal import VerdictJournal
from hpcsft.spec.evaluate import JudgeSpec
from pathlib import Path
from tests.evaluate.judges.ask import numbered

spec = JudgeSpec.model_validate_json(sys.argv[2])
for _ in VerdictJournal(Path(sys.argv[1]), make_judge(spec), judge_identity(spec)).complete(numbered(200)):
    pass
"""


def undisturbed(number: int) -> float:
    """The verdict of this judge on a pair: any, but always the same."""
    return float(zlib.crc32(b"%d" % number) % 2)


def error_of(number: int, attempt: int) -> str | None:
    """What goes wrong with so manyth try at a question: something, in 30% of the cases."""
    draw = zlib.crc32(b"%d/%d" % (number, attempt)) % 1000
    return ERRORS[draw % len(ERRORS)] if draw < 300 else None


def test_a_faulty_server_and_a_kill_end_in_the_same_verdicts(endpoint, tmp_path, monkeypatch):
    path = tmp_path / "base" / "verdicts.jsonl"
    path.parent.mkdir()
    met: list[str | None] = []

    def faulty(request: dict[str, Any]) -> tuple[Any, ...]:
        number = number_in(request)
        met.append(error_of(number, sum(number_in(other) == number for other in endpoint.requests)))
        if met[-1] == "429":
            return 429, {"error": {"message": "slow down"}}, {"retry-after-ms": None, "Retry-After": "0.02"}
        if met[-1] == "500":
            return 500, b"<html>oops</html>"
        if met[-1] == "cut":
            return 200, b'{"choices": [{"ind', {"Content-Length": "500"}
        if met[-1] == "timeout":
            time.sleep(0.5)
        text = "Both are fine." if met[-1] == "nonsense" else f"Output ({'ba'[int(undisturbed(number))]})"
        return 200, reply(text, (100, 5))

    def deadly(request: dict[str, Any]) -> tuple[Any, ...]:
        if len(list(read_jsonl(path))) >= 80:
            child.send_signal(signal.SIGKILL)
        return faulty(request)

    endpoint.answer = deadly
    spec = JudgeSpec(
        model="judge", api="chat", base_url=endpoint.base_url, timeout_s=0.3, max_concurrency=8, max_tries=12
    )
    command = [sys.executable, "-c", CHILD, str(path), spec.model_dump_json()]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    assert child.wait(timeout=60) == -signal.SIGKILL, child.stderr.read()
    child.stderr.close()
    committed = {row["row"] for row in read_jsonl(path) if row["first_better"] is not None}
    assert 60 <= len(committed) < len(PAIRS)

    endpoint.answer = faulty
    monkeypatch.setenv("OPENAI_API_KEY", "second")  # requests of the dead process may still arrive
    judge = make_judge(spec)
    journal = VerdictJournal(path, judge, judge_identity(spec))
    counts = list(journal.complete(PAIRS))
    judge.close()
    assert counts[0] == len(committed) and counts[-1] == len(PAIRS)

    def verdict(pair: Comparison) -> float | None:
        return journal.known[pair.key(journal.identity)].first_better

    assert [verdict(pair) for pair in PAIRS] == [undisturbed(pair.row) for pair in PAIRS]
    rows = list(read_jsonl(path))
    given = [row["row"] for row in rows if row["first_better"] is not None]
    assert sorted(given) == list(range(len(PAIRS))), "one verdict each, and no second one"
    again = {number_in(request) for request in endpoint.requests if request["key"] == "Bearer second"}
    assert not again & committed
    assert {row["raw"] for row in rows if row["first_better"] is None} == {"Both are fine."}
    assert not any(row["refused"] for row in rows)
    assert set(met) == {None, *ERRORS} and 0.2 < sum(map(bool, met)) / len(met) < 0.4
