"""Markdown as HTML. What is HTML in the source stays text; links lead to the web only; no image is loaded. Pure."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup

from ops.dashboard.transcript.code import code_block

SCHEMES = frozenset({"http", "https", "mailto"})
MAX_NESTING = 20


def markdown(text: str) -> Markup:
    """Markdown that was made visible and bounded already, as HTML."""
    return Markup(_PARSER.render(text))  # noqa: S704 - the parser escapes, and HTML is off


def leads_to_the_web(url: str) -> bool:
    """Whether a link may be followed: it names a host or a mailbox, and no script."""
    try:
        return urlsplit(url.strip()).scheme.lower() in SCHEMES
    except ValueError:
        return False


class _Renderer(RendererHTML):
    """Links open apart from the dashboard and tell nothing of it; headings stay below the page's own."""

    def link_open(
        self, tokens: Sequence[Token], index: int, options: OptionsDict, env: MutableMapping[str, Any]
    ) -> str:
        token = tokens[index]
        token.attrSet("target", "_blank")
        token.attrSet("rel", "noopener noreferrer nofollow")
        return self.renderToken(tokens, index, options, env)

    def heading_open(self, tokens: Sequence[Token], index: int, *_: object) -> str:
        return f'<p class="said-heading said-{tokens[index].tag}">'

    def heading_close(self, *_: object) -> str:
        return "</p>\n"

    def code_block(self, tokens: Sequence[Token], index: int, *_: object) -> str:
        return code_block(tokens[index].content)

    def fence(self, tokens: Sequence[Token], index: int, *_: object) -> str:
        token = tokens[index]
        language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
        return code_block(token.content, language)


def _parser() -> MarkdownIt:
    options: Mapping[str, Any] = {"html": False, "maxNesting": MAX_NESTING}
    parser = MarkdownIt("commonmark", options, renderer_cls=_Renderer).enable(["table", "strikethrough"])
    # An image would tell a stranger who looks at the transcript, and when.
    parser.disable(["image", "html_block", "html_inline"])
    parser.validateLink = leads_to_the_web  # type: ignore[method-assign] # the documented way to replace it
    return parser


_PARSER = _parser()
