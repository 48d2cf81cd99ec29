"""Items of a conversation as HTML. Every text goes through `visible`, a bound, and an escape. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from markupsafe import Markup

from ops.dashboard.freshness import duration
from ops.dashboard.transcript.code import code_block, language_of
from ops.dashboard.transcript.conversation import Call, Item, Message, Note, Part
from ops.dashboard.transcript.markdown import markdown
from ops.dashboard.transcript.visible import SHOWN_CHARACTERS, clipped, one_line

MAX_PARTS = 50
"""Of one item that are shown."""
MAX_ARGUMENTS = 30
SUMMARY_CHARACTERS = 110
DIFFERENCE_CHARACTERS = 8_000
"""Of both texts of an edit together; a difference of larger ones is not worked out."""
COMMANDS = frozenset({"command", "cmd", "script"})
"""Arguments that hold shell commands."""

_NAMES = {"user": "User", "assistant": "Assistant", "system": "System"}


def render(item: Item, raw: str) -> Markup:
    """An item as HTML.

    Args:
        item: The item.
        raw: The path below which the dashboard serves entries as they are stored, by seq.
    """
    match item:
        case Message():
            return _message(item, raw)
        case Call():
            return _call(item, raw)
        case Note():
            return _note(item, raw)


def clock(at_ms: int) -> Markup:
    """A time in milliseconds since 1970, in UTC, without its year: others around it tell that."""
    return _time(at_ms, "%b %d, %H:%M:%S")


def moment(at_ms: int) -> Markup:
    """A time in milliseconds since 1970, in UTC, to the minute."""
    return _time(at_ms, "%Y-%m-%d %H:%M")


def _time(at_ms: int, form: str) -> Markup:
    try:
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return Markup("<span>{}</span>").format(at_ms)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        at.isoformat(timespec="milliseconds"), f"{at:%Y-%m-%d %H:%M:%S}", f"{at:{form}}"
    )


def _message(message: Message, raw: str) -> Markup:
    detail = message.title if message.title not in {message.speaker, ""} else ""
    tokens = "" if message.output_tokens is None else f"{message.output_tokens} tokens"
    return Markup(
        '<article class="item said said-by-{}" id="entry-{}" aria-label="{}">'
        '<header class="item-head"><b>{}</b><span class="muted">{}</span>'
        '<span class="muted item-tokens">{}</span>{}</header>'
        '<div class="said-body">{}</div></article>'
    ).format(
        message.speaker,
        message.seq,
        _NAMES[message.speaker],
        _NAMES[message.speaker],
        one_line(detail, 60),
        tokens,
        _foot(message.seq, message.at_ms, raw),
        _parts(message.parts, message.seq, raw, marked_down=message.speaker != "system"),
    )


def _call(call: Call, raw: str) -> Markup:
    status, word = ("pending", "no result yet") if call.result is None else ("completed", "done")
    if call.failed:
        status, word = "errored", "failed"
    took = ""
    if call.ended_at_ms is not None and call.ended_at_ms > call.at_ms:
        took = duration((call.ended_at_ms - call.at_ms) / 1000)
    arguments = Markup("") if call.arguments is None else Markup("").join(_arguments(call, raw))
    result = Markup("")
    if call.result is not None:
        seq = call.result_seq or call.seq
        result = Markup('<div class="call-label">Result</div>{}').format(
            _parts(call.result, seq, raw, marked_down=False)
        )
    return Markup(
        '<details class="item call call-{}" id="entry-{}"><summary><span class="call-dot" title="{}"></span>'
        '<b class="mono">{}</b><span class="call-summary mono" dir="auto">{}</span>'
        '<span class="muted call-took">{}</span><span class="call-word">{}</span></summary>'
        '<div class="call-body">{}{}<footer class="item-foot">{}</footer></div></details>'
    ).format(
        status,
        call.seq,
        word,
        one_line(call.name, 60),
        _summary(call.arguments),
        took,
        "" if status == "completed" else word,
        arguments,
        result,
        _foot(call.seq, call.at_ms, raw),
    )


def _note(note: Note, raw: str) -> Markup:
    return Markup(
        '<details class="item note" id="entry-{}"><summary><span class="muted">{}</span></summary>'
        '{}<footer class="item-foot">{}</footer></details>'
    ).format(
        note.seq, one_line(note.title, 80), _json(note.content, note.seq, raw), _foot(note.seq, note.at_ms, raw)
    )


def _foot(seq: int, at_ms: int, raw: str) -> Markup:
    return Markup(
        '<span class="item-meta muted">{} · <a href="{}/{}" target="_blank" rel="noopener" '
        'aria-label="Entry {} as it is stored">#{}</a></span>'
    ).format(clock(at_ms), raw, seq, seq, seq)


def _parts(parts: list[Part], seq: int, raw: str, *, marked_down: bool) -> Markup:
    shown = [_part(part, seq, raw, marked_down=marked_down) for part in parts[:MAX_PARTS]]
    if len(parts) > MAX_PARTS:
        shown.append(_more(f"{len(parts) - MAX_PARTS} more parts", seq, raw))
    return Markup("").join(shown)


def _part(part: Part, seq: int, raw: str, *, marked_down: bool) -> Markup:
    if part.kind == "other":
        return _json(part.content, seq, raw)
    text, left_out = clipped(part.text)
    more = _more(f"{left_out:,} more characters", seq, raw) if left_out else Markup("")
    # Cut in the middle, Markdown would say something else; and what is as long is no prose.
    marked_down = marked_down and not left_out
    body = markdown(text) if marked_down else code_block(text)
    if part.kind == "reasoning":
        return Markup('<details class="reasoning"><summary>Reasoning</summary>{}{}</details>').format(body, more)
    return Markup('<div class="text" dir="auto">{}{}</div>').format(body, more)


def _more(what: str, seq: int, raw: str) -> Markup:
    return Markup(
        '<p class="more">… {}. <a href="{}/{}" target="_blank" rel="noopener">Show all of entry {}</a></p>'
    ).format(what, raw, seq, seq)


def _arguments(call: Call, raw: str) -> Iterator[Markup]:
    arguments = call.arguments
    if not isinstance(arguments, Mapping):
        yield _json(arguments, call.seq, raw)
        return
    old, new = arguments.get("old_string"), arguments.get("new_string")
    edits = isinstance(old, str) and isinstance(new, str) and len(old) + len(new) <= DIFFERENCE_CHARACTERS
    language = language_of(arguments.get("file_path", arguments.get("path")))
    for number, (name, value) in enumerate(arguments.items()):
        if number == MAX_ARGUMENTS:
            yield _more(f"{len(arguments) - MAX_ARGUMENTS} more arguments", call.seq, raw)
            return
        if edits and name in {"old_string", "new_string"}:
            continue
        yield _argument(str(name), value, language, call.seq, raw)
    if edits:
        assert isinstance(old, str), "checked above"
        assert isinstance(new, str), "checked above"
        yield Markup('<div class="call-label">Change</div>{}').format(code_block(_difference(old, new), "diff"))


def _argument(name: str, value: object, language: str, seq: int, raw: str) -> Markup:
    label = one_line(name, 60)
    if isinstance(value, str) and ("\n" in value or len(value) > SUMMARY_CHARACTERS or name in COMMANDS):
        text, left_out = clipped(value)
        code = code_block(text, "bash" if name in COMMANDS else language)
        more = _more(f"{left_out:,} more characters", seq, raw) if left_out else ""
        return Markup('<div class="call-label">{}</div>{}{}').format(label, code, more)
    if isinstance(value, str):
        return Markup(
            '<div class="argument"><span class="muted">{}</span> <span class="mono" dir="auto">{}</span></div>'
        ).format(label, clipped(value).text)
    return Markup('<div class="call-label">{}</div>{}').format(label, _json(value, seq, raw))


def _difference(old: str, new: str) -> str:
    lines = difflib.unified_diff(clipped(old).text.splitlines(), clipped(new).text.splitlines(), lineterm="", n=3)
    # The first two name files, of which there are none here.
    return "\n".join(list(lines)[2:])


def _summary(arguments: object) -> str:
    """What tells one call from another at a glance: its first text."""
    values = list(arguments.values()) if isinstance(arguments, Mapping) else [arguments]
    first = next((value for value in values if isinstance(value, str) and value.strip()), "")
    return one_line(first, SUMMARY_CHARACTERS)


def _json(content: object, seq: int, raw: str) -> Markup:
    try:
        text = json.dumps(content, ensure_ascii=False, indent=2)
    except (RecursionError, ValueError):
        return _more("nested too deeply to be shown", seq, raw)
    shown, left_out = clipped(text, SHOWN_CHARACTERS // 4)
    more = _more(f"{left_out:,} more characters", seq, raw) if left_out else ""
    return Markup("{}{}").format(code_block(shown, "json"), more)
