"""The stage `preprocess`: files of conversations -> shards of training rows, a manifest and an audit.

Each of n tasks makes a run of neighbouring shards, about as many as the others; what comes out does not depend on n. A
shard that is there already, in the run or in the cache that runs share, is not made again. Whoever finds all shards
whole writes audit and manifest: their content is the same for all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.data.audit import audit, summary
from hpcsft.data.making import RowMaker
from hpcsft.data.quarantine import BadRow, join_bad_rows
from hpcsft.data.shards import Manifest, Shard, ShardWriter, shard_files
from hpcsft.data.sources import Source, find_sources
from hpcsft.data.splits import conversation_keys, count_splits, split_threshold
from hpcsft.data.store import remove_leftovers, take_shard, usable_cache, whole_shard
from hpcsft.errors import StageError, Stopped
from hpcsft.provenance.hashing import InputHashing
from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec
from hpcsft.stage import StageContext

SLOW_BYTES = 10**9
"""Digests of more are worth a word in the log."""


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
        maker = RowMaker.of(spec, run.template.read_text(encoding="utf-8") if run.template.exists() else None)
        rules = [_tokenizer_digest(maker.tokenizer), maker.template.source]
        caches = spec.data.cache and usable_cache(run.cache)
        return cls(run, spec, maker, find_sources(spec, rules, run.data_index if caches else None), caches)

    @property
    def fingerprint(self) -> str:
        """Digest of the state of all data and of all rules."""
        return hashlib.sha256("".join(source.fingerprint for source in self.sources).encode()).hexdigest()

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
                with contextlib.suppress(FileNotFoundError):  # the cache may be removed at any time
                    take_shard(cache, self.run.data, source.name, number)
                found = whole_shard(self.run.data, source.name, number, source.fingerprint)
        return found

    def make(self, source: Source, number: int, between_chunks: Callable[[], None]) -> None:
        """Make a shard, in the cache if there is one and it stays there."""
        if self.caches:
            cache = self.run.data_cache(source.fingerprint)
            try:
                cache.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._make_in(cache, source, number, between_chunks)
                return take_shard(cache, self.run.data, source.name, number)
            except (FileNotFoundError, PermissionError):
                pass
        self._make_in(self.run.data, source, number, between_chunks)

    def _make_in(self, folder: Path, source: Source, number: int, between_chunks: Callable[[], None]) -> None:
        remove_leftovers(folder, source.name, number)
        counts: Counter[str] = Counter()
        bad_rows: list[BadRow] = []
        with ShardWriter(folder, source.name, number, source.fingerprint) as writer:
            for made in self.maker.make(source.rows(number)):
                between_chunks()
                counts += made.counts
                bad_rows += made.bad_rows
                writer.add(made.rows)
            writer.commit(counts, bad_rows)


def preprocess(context: StageContext) -> None:
    """The body of the stage."""
    cpus = os.environ.get("SLURM_CPUS_PER_TASK") or str(len(os.sched_getaffinity(0)))
    os.environ.setdefault("RAYON_NUM_THREADS", cpus)  # the tokenizer would take every core of the node
    with InputHashing(context.run, context.spec, context.index, context.stage.tasks) as hashing:
        _make_shards(context)
        if hashing.missing_bytes > SLOW_BYTES:
            context.say(f"digests of {hashing.missing_bytes / 1e9:.1f} GB of inputs are waited for")
        try:
            hashing.finish(context.stop_if_asked)
        except Stopped:  # the shards are whole: another attempt would do nothing but read on
            context.say("asked to stop: some digests of inputs are left out")


def _make_shards(context: StageContext) -> None:
    workshop = Workshop.of(context.run, context.spec)
    ends = [len(workshop.shards) * (context.index + end) // context.stage.tasks for end in (0, 1)]
    mine = workshop.shards[slice(*ends)]
    if context.spec.data.cache and not workshop.caches:
        context.say(f"no access to {context.run.cache}: shards are made for this run alone")
    if context.run.manifest.exists() and read_json(context.run.manifest)["fingerprint"] != workshop.fingerprint:
        context.run.manifest.unlink(missing_ok=True)  # it names shards that are about to be replaced
    missing = [(source, number) for source, number in mine if workshop.find(source, number) is None]
    if missing:
        context.run.manifest.unlink(missing_ok=True)
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
    training = workshop is None
    workshop = workshop or Workshop.of(run, spec)
    shards = [workshop.find(source, number) for source, number in workshop.shards]
    if not all(shards):
        if training and all(shard_files(run.data, source.name, n).record.exists() for source, n in workshop.shards):
            what = "shards were made of other data or by other rules than there are now"
            hint = f"did files change meanwhile? `python jobs/preprocess.py {run.path}` makes them anew; then resume"
            raise StageError(f"{run.data}: {what}", hint)
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
    first = join_bad_rows(run.quarantine, files)
    if first and counts["conversations_quarantined"] > data.max_bad_share * counts["conversations_read"]:
        raise _too_many(first, counts, data.max_bad_share, run.quarantine)
    below = 0
    if not isinstance(data.validation, list):
        below = split_threshold(conversation_keys(run.data, shards), seed, data.validation)
    splits = count_splits(run.data, shards, seed, below)
    doubles = counts["conversations_kept"] - sum(split.conversations for split in splits.values())
    counts.subtract({"conversations_kept": doubles})
    counts.update({"conversations_dropped": doubles, "dropped_also_in_validation": doubles})
    if not splits["train"].rows:
        hint = "is data.max_length long enough for one exchange? `hpcsft preview` shows what becomes of the first rows"
        raise StageError("no training row is left after preprocessing", hint)
    return Manifest(
        fingerprint=workshop.fingerprint,
        template=workshop.maker.template.source,
        validation_below=below,
        seed=seed,
        shards=list(shards),
        splits=splits,
        counts=dict(sorted(counts.items())),
    )


def _too_many(first: BadRow, counts: Counter[str], max_share: float, quarantine: Path) -> StageError:
    bad, read = counts["conversations_quarantined"], counts["conversations_read"]
    return StageError(
        f"{bad} of {read} rows are no conversations, more than data.max_bad_share {max_share:g} allows; "
        f"the first: {first.file}, row {first.row}: {first.reason}",
        f"all of them stand in {quarantine}; see data.format in the README",
    )


def _tokenizer_digest(tokenizer: Any) -> str:
    """Digest of what decides tokens and rendered templates, the versions of the libraries among it."""
    versions = [metadata.version(package) for package in ("tokenizers", "transformers")]
    special = [tokenizer.special_tokens_map, tokenizer.num_special_tokens_to_add()]
    return hashlib.sha256(f"{versions}{special}{tokenizer.backend_tokenizer.to_str()}".encode()).hexdigest()
