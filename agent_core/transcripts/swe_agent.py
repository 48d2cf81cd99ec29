"""SWE-agent trajectories: one JSON document whose `history` is the list of messages.

Each message of `history` becomes one entry. `trajectory` repeats the same steps from the environment's side; it and
the agent's configuration are read for what they tell about the session, and are not imported.

SWE-agent writes the file anew after each step, and nothing in it names the run. What stays the same from the first
step on is taken for its identity: the environment, the configuration, the messages up to the agent's first answer,
and the first step with its observation and (since SWE-agent 1.0) its measured time, which tells two runs of one
task apart even if both begin with the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from agent_core.transcripts.fields import last_component, mapping, one_line, string, title
from agent_core.transcripts.identity import EntryKeys, content_hash, session_id_from
from agent_core.transcripts.imported import BrokenLine, ImportedEntry, ImportedSession
from agent_core.transcripts.lines import Record
from agent_core.transcripts.messages import MessagePayloads, first_text
from agent_core.transcripts.payloads import PayloadTooLarge, encode_payload

FORMAT = "swe-agent"

_PREAMBLE = re.compile(r"We're currently solving the following .*?\.\s*(?:Here's the issue text:\s*ISSUE:)?\s*")
_DEMONSTRATION = "Here is a demonstration"


def is_swe_agent(document: object) -> bool:
    """Whether a JSON document is a trajectory."""
    if not isinstance(document, dict) or not isinstance(document.get("history"), list):
        return False
    return any(isinstance(message, dict) and string(message, "role") for message in document["history"])


def read_trajectory(path: Path, document: Record) -> Iterator[ImportedSession | ImportedEntry | BrokenLine]:
    """The session of a trajectory, then its entries."""
    history = document["history"]
    assert isinstance(history, list), "recognised by it"
    session = _session(document, history)
    yield session
    keys = EntryKeys(FORMAT)
    messages = MessagePayloads()
    for place, message in enumerate(history, start=1):
        if not isinstance(message, dict):
            yield BrokenLine(path, place, "the message is not a JSON object")
            continue
        raw = orjson.dumps(message)
        try:
            payload = encode_payload(messages.payload(message, role="unknown"), raw)
        except PayloadTooLarge as problem:
            yield BrokenLine(path, place, str(problem))
            continue
        key = keys.of_placed(session.session_id, place, raw)
        yield ImportedEntry(session.session_id, "message", payload, 0, key, place)


def _session(document: Record, history: list[object]) -> ImportedSession:
    environment = one_line(string(document, "environment"))
    configuration = _json_object(document.get("replay_config"))
    first_step = _first_step(document)
    directory = last_component(string(_json_object(first_step.get("state")), "working_dir"))
    workspace = _repository(configuration) or directory or environment
    opening = _opening(history)
    identity = content_hash(
        orjson.dumps(document.get("environment")),
        orjson.dumps(document.get("replay_config")),
        orjson.dumps(_up_to_first_answer(history)),
        orjson.dumps(first_step),
    )
    info = mapping(document, "info")
    metadata: dict[str, object] = {"format": FORMAT}
    if environment:
        metadata["environment"] = environment
    if exit_status := one_line(string(info, "exit_status")):
        metadata["exit_status"] = exit_status
    if model_stats := _numbers(mapping(info, "model_stats")):
        metadata["model_stats"] = model_stats
    return ImportedSession(
        session_id=session_id_from("-".join(filter(None, (FORMAT, workspace, identity[:16])))),
        workspace=workspace,
        title=title(_PREAMBLE.sub("", opening, count=1)) or title(opening),
        model=one_line(string(mapping(mapping(configuration, "agent"), "model"), "name")),
        metadata=metadata,
    )


def _first_step(document: Record) -> Mapping[str, object]:
    steps = document.get("trajectory")
    return steps[0] if isinstance(steps, list) and steps and isinstance(steps[0], dict) else {}


def _up_to_first_answer(history: list[object]) -> list[object]:
    for index, message in enumerate(history):
        if isinstance(message, dict) and message.get("role") == "assistant" and message.get("is_demo") is not True:
            return history[: index + 1]
    return history


def _opening(history: list[object]) -> str:
    """The task: the first words to the agent that are no demonstration."""
    for message in history:
        if isinstance(message, dict) and message.get("role") == "user" and message.get("is_demo") is not True:
            text = first_text(message)
            if text and not text.startswith(_DEMONSTRATION):
                return text
    return ""


def _repository(configuration: Mapping[str, object]) -> str:
    """The repository worked on, unless it has only the name that SWE-agent gives to every one."""
    repository = mapping(mapping(configuration, "env"), "repo")
    name = last_component(string(repository, "repo_name", "github_url", "path"))
    return "" if name == "testbed" else name


def _json_object(value: object) -> Mapping[str, object]:
    """An object, or one that is written as JSON text, as SWE-agent did before 1.0."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return {}
    return value if isinstance(value, dict) else {}


def _numbers(record: Mapping[str, object]) -> dict[str, int | float]:
    numbers = {one_line(name, 64): value for name, value in record.items() if isinstance(value, int | float)}
    return dict(list(numbers.items())[:32])
