"""The stage `preprocess`: files of conversations -> shards of training rows, a manifest and an audit.

Each of n tasks makes a run of neighbouring shards, about as many as the others; what comes out does not depend on n. A
shard that is there already, in the run or in the cache that runs share, is not made again. Whoever finds all shards
whole writes audit and manifest: their content is the same for all.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from hpcsft.data.audit import audit, summary
from hpcsft.data.making import RowMaker
from hpcsft.data.quarantine import BadRow, read_bad_rows, write_bad_rows
from hpcsft.data.shards import Manifest, Shard, ShardWriter, shard_files
from hpcsft.data.sources import Source, find_sources
from hpcsft.data.splits import conversation_keys, count_splits, split_threshold
from hpcsft.data.store import take_shard, usable_cache, whole_shard
from hpcsft.errors import StageError
from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec
from hpcsft.stage import StageContext

ROWS_VERSION = 1
"""Raised when the same data, tokenizer and rules give other rows than before, so that no cache serves the old ones."""


class Workshop(NamedTuple):
    """What shards are made with, and where."""

    run: RunDir
    spec: ExperimentSpec
    maker: RowMaker
    sources: list[Source]
    caches: bool
    """Are shards made in the cache that runs share?"""

    @classmethod
    def of(cls, run: RunDir, spec: ExperimentSpec) -> Workshop:
        """The workshop of a run; every task of its array gets the same."""
        maker = RowMaker.of(spec)
        rules = [ROWS_VERSION, tokenizers.__version__, _tokenizer_digest(maker.tokenizer), maker.template.source]
        caches = spec.data.cache and usable_cache(run.cache)
        return cls(run, spec, maker, find_sources(spec, rules, run.data_index if caches else None), caches)

    @property
    def shards(self) -> list[tuple[Source, int]]:
        """Every shard of every source, in order."""
        return [(source, number) for source in self.sources for number in range(source.num_shards)]

    def find(self, source: Source, number: int) -> Shard | None:
        """A whole shard of the run, taken from the cache if it is there; None if it has to be made."""
        found = whole_shard(self.run.data, source.name, number, source.fingerprint)
        if found is None and self.caches:
            cache = self.run.data_cache(source.fingerprint)
            if whole_shard(cache, source.name, number, source.fingerprint):
                take_shard(cache, self.run.data, source.name, number)
                found = whole_shard(self.run.data, source.name, number, source.fingerprint)
        return found

    def make(self, source: Source, number: int, between_chunks: Callable[[], None]) -> None:
        """Make a shard, in the cache if there is one."""
        folder = self.run.data
        if self.caches:
            folder = self.run.data_cache(source.fingerprint)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        counts: Counter[str] = Counter()
        bad_rows: list[BadRow] = []
        with ShardWriter(folder, source.name, number, source.fingerprint) as writer:
            for made in self.maker.make(source.rows(number)):
                between_chunks()
                counts += made.counts
                bad_rows += made.bad_rows
                writer.add(made.rows)
            writer.commit(counts, bad_rows)
        if folder != self.run.data:
            take_shard(folder, self.run.data, source.name, number)


def preprocess(context: StageContext) -> None:
    """The body of the stage."""
    cpus = os.environ.get("SLURM_CPUS_PER_TASK") or str(len(os.sched_getaffinity(0)))
    os.environ.setdefault("RAYON_NUM_THREADS", cpus)  # the tokenizer would take every core of the node
    workshop = Workshop.of(context.run, context.spec)
    ends = [len(workshop.shards) * (context.index + end) // context.stage.tasks for end in (0, 1)]
    mine = workshop.shards[slice(*ends)]
    if context.spec.data.cache and not workshop.caches:
        context.say(f"no access to {context.run.cache}: shards are made for this run alone")
    missing = [(source, number) for source, number in mine if workshop.find(source, number) is None]
    if missing:
        context.run.manifest.unlink(missing_ok=True)  # it may name shards that are about to be replaced
    made = len(mine) - len(missing)
    context.progress(made, len(mine), "shards")
    for source, number in missing:
        workshop.make(source, number, context.stop_if_asked)
        made += 1
        context.progress(made, len(mine), "shards")
        context.say(f"shard {source.name}-{number:05d} is whole")
    finish(context, workshop)


def finish(context: StageContext, workshop: Workshop | None = None) -> None:
    """Write audit and manifest if every shard is whole, else do nothing.

    Every task ends with this, and training begins with it: on a shared filesystem two tasks that end together may
    each not yet see the other's last shard.
    """
    run, spec = context.run, context.spec
    if run.manifest.exists():
        return
    workshop = workshop or Workshop.of(run, spec)
    shards = [workshop.find(source, number) for source, number in workshop.shards]
    if not all(shards):
        return
    manifest = _manifest(workshop, shards)
    write_json(run.audit, audit(manifest, run.data, spec, workshop.maker.tokenizer))
    write_json(run.manifest, manifest)
    context.say(summary(manifest))


def _manifest(workshop: Workshop, shards: Sequence[Shard]) -> Manifest:
    run, data, seed = workshop.run, workshop.spec.data, workshop.spec.seed
    counts: Counter[str] = sum((Counter(shard.counts) for shard in shards), Counter())
    counts["conversations_quarantined"] = sum(shard.bad_rows for shard in shards)
    files = [shard_files(run.data, shard.source, shard.number).quarantine for shard in shards if shard.bad_rows]
    bad_rows = [bad for file in files for bad in read_bad_rows(file)]
    write_bad_rows(run.quarantine, bad_rows)
    if len(bad_rows) > data.max_bad_share * counts["conversations_read"]:
        raise _too_many(bad_rows, counts["conversations_read"], data.max_bad_share, run.quarantine)
    below = 0
    if not isinstance(data.validation, list):
        below = split_threshold(conversation_keys(run.data, shards), seed, data.validation)
    splits = count_splits(run.data, shards, seed, below)
    if not splits["train"].rows:
        hint = "is data.max_length long enough for one exchange? `hpcsft preview` shows what becomes of the first rows"
        raise StageError("no training row is left after preprocessing", hint)
    return Manifest(
        fingerprint=hashlib.sha256("".join(source.fingerprint for source in workshop.sources).encode()).hexdigest(),
        template=workshop.maker.template.source,
        validation_below=below,
        seed=seed,
        shards=list(shards),
        splits=splits,
        counts=dict(sorted(counts.items())),
    )


def _too_many(bad_rows: list[BadRow], read: int, max_share: float, quarantine: Path) -> StageError:
    first = bad_rows[0]
    return StageError(
        f"{len(bad_rows)} of {read} rows are no conversations, more than data.max_bad_share {max_share:g} allows; "
        f"the first: {first.file}, row {first.row}: {first.reason}",
        f"all of them stand in {quarantine}; see data.format in the README",
    )


def _tokenizer_digest(tokenizer: Any) -> str:
    ids = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.num_special_tokens_to_add()]
    return hashlib.sha256(f"{ids}{tokenizer.backend_tokenizer.to_str()}".encode()).hexdigest()
