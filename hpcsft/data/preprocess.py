"""The stage `preprocess`: files of conversations -> shards of training rows and a manifest.

Conversations are numbered over all files in order; shard k holds conversations k * CONVERSATIONS_PER_SHARD and on, and
task i of n makes the shards k with k mod n = i. What comes out does not depend on n. A shard that is
there already is not made again. Whoever finds all shards whole writes the manifest: its content is the same for all.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcsft.data.audit import audit, summary
from hpcsft.data.encode import Row, RowMaker, TurnEncoder
from hpcsft.data.formats import Conversation, RowError, conversation_of
from hpcsft.data.readers import RawRow, find_files, read_rows
from hpcsft.data.shards import BadRow, Manifest, Shard, write_rows
from hpcsft.data.templates import SpecialTokens, make_template
from hpcsft.errors import StageError
from hpcsft.models.load import load_tokenizer
from hpcsft.records import read_json, write_json
from hpcsft.spec import ExperimentSpec
from hpcsft.stage import StageContext

CONVERSATIONS_PER_SHARD = 4096
ENCODE_CHUNK = 512
"""Conversations that are tokenized at once: more only costs memory."""
MAX_BAD_SHARE = 0.05
"""Above this share of rows that are no conversations the stage stops."""


@dataclass(frozen=True)
class Source:
    """Files of conversations, and which of their conversations go into which split."""

    name: str
    files: list[str]
    total: int
    split_of: dict[int, str] | None
    """Conversation -> split, for those that are used; None when all are of the split `name`."""

    @property
    def state(self) -> str:
        """Digest of names, sizes and times of the files: a file that was repaired is another source."""
        stats = [(file, os.stat(file)) for file in self.files]
        facts = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def split(self, number: int) -> str | None:
        """The split of conversation `number`; None if it is not used."""
        return self.name if self.split_of is None else self.split_of.get(number)

    @property
    def num_shards(self) -> int:
        """Shards of this source."""
        return -(-self.total // CONVERSATIONS_PER_SHARD)


def preprocess(context: StageContext) -> None:
    """The body of the stage."""
    spec, folder = context.spec, context.run.data
    sources = find_sources(spec)
    tokenizer = load_tokenizer(spec.model.path)
    template = make_template(spec.data.template, SpecialTokens.of(tokenizer))
    maker = RowMaker(spec.data, TurnEncoder(tokenizer, template))
    work = [(source, shard) for source in sources for shard in range(source.num_shards)]
    mine = work[context.index :: context.stage.tasks]
    missing = [(source, shard) for source, shard in mine if not _is_made(folder, source, shard)]
    context.progress(len(mine) - len(missing), len(mine), "shards")
    if missing:
        context.run.manifest.unlink(missing_ok=True)  # it names shards that are about to be replaced
    made = len(mine) - len(missing)
    for source in sources:
        wanted = {shard for owner, shard in missing if owner is source}
        for shard in _make_shards(folder, source, wanted, spec.data.format, maker, context.stop_if_asked):
            made += 1
            context.progress(made, len(mine), "shards")
            context.say(f"shard {source.name}-{shard:05d} is whole")
    finish(context, sources)


def finish(context: StageContext, sources: Sequence[Source] | None = None) -> None:
    """Write audit and manifest if every shard is whole, else do nothing.

    Every task ends with this, and training begins with it: on a shared filesystem two tasks that end together may
    each not yet see the other's last shard.
    """
    run, spec = context.run, context.spec
    if run.manifest.exists():
        return
    work = [(source, shard) for source in sources or find_sources(spec) for shard in range(source.num_shards)]
    shard_files = [_shard_file(run.data, source, shard) for source, shard in work]
    if not all(_is_made(run.data, source, shard) for source, shard in work):
        return
    manifest = _manifest(spec, [Shard.model_validate(read_json(file)) for file in shard_files])
    write_json(run.audit, audit(manifest, run.data, load_tokenizer(spec.model.path)))
    write_json(run.manifest, manifest)
    context.say(summary(manifest))


def find_sources(spec: ExperimentSpec) -> list[Source]:
    """The training files, split by the seed into training and validation, and the validation files if there are any."""
    data = spec.data
    files = find_files(data.train, "data.train")
    total = sum(1 for _ in read_rows(files))
    own_files = isinstance(data.validation, list)
    splits = split_conversations(total, data.sample, 0.0 if own_files else float(data.validation), spec.seed)
    sources = [Source("train", files, total, splits)]
    if own_files:
        held_out = find_files(data.validation, "data.validation")
        sources.append(Source("validation", held_out, sum(1 for _ in read_rows(held_out)), None))
    return sources


def split_conversations(total: int, sample: float | int | None, validation: float, seed: int) -> dict[int, str] | None:
    """Conversation -> "train" or "validation"; None when all are for training.

    A share above zero holds out at least one conversation, and training always keeps at least one.
    """
    if sample is None and not validation:
        return None
    chosen = list(range(total))
    random.Random(f"{seed}/sample").shuffle(chosen)
    if sample is not None:
        count = sample if isinstance(sample, int) else max(1, round(sample * total))
        chosen = chosen[:count]
    held_out = min(max(1, round(validation * len(chosen))), len(chosen) - 1) if validation else 0
    return {number: "validation" if place < held_out else "train" for place, number in enumerate(chosen)}


def _shard_file(folder: Path, source: Source, shard: int) -> Path:
    return folder / f"{source.name}-{shard:05d}.json"


def _is_made(folder: Path, source: Source, shard: int) -> bool:
    """Is the shard there, and made from the files as they are now?"""
    file = _shard_file(folder, source, shard)
    return file.exists() and read_json(file).get("source") == source.state


def _make_shards(
    folder: Path, source: Source, shards: set[int], format: str, maker: RowMaker, between_chunks: Callable[[], None]
) -> Iterator[int]:
    """Make `shards` in one pass over the files, and yield each when it is whole."""
    if not shards:
        return
    numbered = enumerate(read_rows(source.files))
    for shard, rows in itertools.groupby(numbered, key=lambda item: item[0] // CONVERSATIONS_PER_SHARD):
        if shard in shards:
            used = ((number, raw) for number, raw in rows if source.split(number))
            _make_shard(folder, source, shard, used, format, maker, between_chunks)
            yield shard
        if shard >= max(shards):
            return


def _make_shard(
    folder: Path,
    source: Source,
    shard: int,
    rows: Iterator[tuple[int, RawRow]],
    format: str,
    maker: RowMaker,
    between_chunks: Callable[[], None],
) -> None:
    maker.counts = Counter()
    by_split: dict[str, list[Row]] = {}
    bad_rows: list[BadRow] = []
    while chunk := list(itertools.islice(rows, ENCODE_CHUNK)):
        between_chunks()
        numbers: list[int] = []
        conversations: list[Conversation] = []
        for number, raw in chunk:
            maker.counts["conversations_read"] += 1
            try:
                conversations.append(conversation_of(raw.parse(), format))
                numbers.append(number)
            except RowError as error:
                bad_rows.append(BadRow(file=raw.file, row=raw.number, reason=str(error)))
        for row in maker.rows(numbers, conversations):
            by_split.setdefault(source.split(row.conversation) or "", []).append(row)
    stem = _shard_file(folder, source, shard).stem
    files = [write_rows(folder / f"{stem}.{split}.arrow", split, by_split[split]) for split in sorted(by_split)]
    write_json(
        _shard_file(folder, source, shard),
        Shard(source=source.state, files=files, counts=dict(sorted(maker.counts.items())), bad_rows=bad_rows),
    )


def _manifest(spec: ExperimentSpec, shards: Sequence[Shard]) -> Manifest:
    counts = sum((Counter(shard.counts) for shard in shards), Counter())
    bad_rows = [bad for shard in shards for bad in shard.bad_rows]
    counts["rows_bad"] = len(bad_rows)
    if bad_rows and len(bad_rows) > MAX_BAD_SHARE * counts["conversations_read"]:
        bad = bad_rows[0]
        share = f"{len(bad_rows)} of {counts['conversations_read']} rows are no conversations"
        raise StageError(
            f"{share}; the first: {bad.file}, row {bad.row}: {bad.reason}", "see data.format in the README"
        )
    manifest = Manifest(fingerprint=fingerprint(spec), shards=list(shards), counts=dict(sorted(counts.items())))
    if not manifest.total("train", "rows"):
        hint = "is data.max_length long enough for one exchange? data/SHARD.json tells what was dropped"
        raise StageError("no training row is left after preprocessing", hint)
    return manifest


def fingerprint(spec: ExperimentSpec) -> str:
    """Digest of the parts of the spec that decide the rows."""
    parts = {"model": spec.model.path, "data": spec.data.model_dump(mode="json"), "seed": spec.seed}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
