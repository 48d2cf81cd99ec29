"""Code as HTML, coloured where its language is one of those that are known. Pure."""

from __future__ import annotations

from pathlib import PurePath

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

COLOURED_CHARACTERS = 10_000
"""A lexer is a set of regular expressions that were not made against malice; more than this stays plain."""

LANGUAGES = {
    name: language
    for language, names in {
        "bash": "bash sh shell console zsh",
        "c": "c h",
        "cpp": "cpp c++ cc hpp",
        "css": "css",
        "diff": "diff patch",
        "go": "go golang",
        "html": "html",
        "java": "java",
        "javascript": "javascript js jsx mjs",
        "json": "json jsonl",
        "python": "python py python3 pyi",
        "ruby": "ruby rb",
        "rust": "rust rs",
        "sql": "sql",
        "toml": "toml",
        "typescript": "typescript ts tsx",
        "yaml": "yaml yml",
    }.items()
    for name in names.split()
}
"""Pygments' names by those that fences and files use."""

_FORMATTER: HtmlFormatter[str] = HtmlFormatter(nowrap=True)


def code_block(text: str, language: str = "") -> Markup:
    """A `pre` element with code that was made visible already."""
    known = LANGUAGES.get(language.strip().lower())
    if known is None or len(text) > COLOURED_CHARACTERS:
        return Markup('<pre class="code" tabindex="0"><code>{}</code></pre>').format(text)
    coloured = Markup(highlight(text, get_lexer_by_name(known, stripnl=False), _FORMATTER))  # noqa: S704 - escaped by Pygments
    return Markup('<pre class="code" tabindex="0"><code>{}</code></pre>').format(coloured)


def language_of(path: object) -> str:
    """The language that a file's name promises, or an empty one."""
    return (
        LANGUAGES.get(PurePath(path[-256:]).suffix.removeprefix(".").lower(), "") if isinstance(path, str) else ""
    )
