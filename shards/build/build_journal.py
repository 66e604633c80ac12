"""Notes of finished shards: what lets a build that was killed go on where it was."""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from shards.build.build_shard import ShardResult
from shards.build.staging import Workplace


@dataclass(frozen=True)
class _Note:
    """A finished shard, and the key of the input and settings that it was made from."""

    key: str
    result: ShardResult


_ADAPTER = TypeAdapter(_Note)


def note_result(place: Workplace, name: str, key: str, result: ShardResult) -> None:
    """Notes that a shard is finished; called once its files are in place."""
    place.notes.write(name, _ADAPTER.dump_json(_Note(key, result)))


def finished_result(place: Workplace, name: str, key: str) -> ShardResult | None:
    """What a finished shard gave; None unless it was made from the same input and its files still have their hashes."""
    try:
        note = _ADAPTER.validate_json(place.notes.read(name))
    except (FileNotFoundError, ValidationError):
        return None
    if note.key != key:
        return None
    for record in note.result.files:
        try:
            if place.content.sha256(record.path) != record.sha256:
                return None
        except FileNotFoundError:
            return None
    return note.result
