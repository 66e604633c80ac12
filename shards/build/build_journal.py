"""The journal of a build: an entry for each finished shard, so that a build that was killed goes on where it was."""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from shards.build.build_shard import ShardResult
from shards.build.staging import Staging


@dataclass(frozen=True)
class _Entry:
    """A finished shard, and the key of the input and settings that it was made from."""

    key: str
    result: ShardResult


_ADAPTER = TypeAdapter(_Entry)


def write_entry(staging: Staging, name: str, key: str, result: ShardResult) -> None:
    """Records that a shard is finished; called once its files are in place."""
    staging.journal.write(name, _ADAPTER.dump_json(_Entry(key, result)))


def read_entry(staging: Staging, name: str, key: str) -> ShardResult | None:
    """The result of a finished shard; None unless its input is the same and its files still have their hashes."""
    try:
        entry = _ADAPTER.validate_json(staging.journal.read(name))
    except (FileNotFoundError, ValidationError):
        return None
    if entry.key != key:
        return None
    for record in entry.result.files:
        try:
            if staging.content.sha256(record.path) != record.sha256:
                return None
        except FileNotFoundError:
            return None
    return entry.result
