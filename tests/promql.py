"""Which series a PromQL expression asks for, and which a node's scrape offers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import promql_parser
from prometheus_client.parser import text_string_to_metric_families

ADDED_BY_PROMETHEUS = frozenset({"job", "instance"})
"""Labels that every scraped series gets."""

Series = Mapping[str, AbstractSet[str]]
"""Names of series with the labels that they have."""


def offered(scrapes: Iterable[str]) -> Series:
    """The series of these scrapes, each a node's answer in the text format, and `up`."""
    found: defaultdict[str, set[str]] = defaultdict(set, up=set(ADDED_BY_PROMETHEUS))
    for text in scrapes:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] |= {*sample.labels, *ADDED_BY_PROMETHEUS}
    return found


def unanswerable(expression: str, series: Series) -> list[str]:
    """What the expression asks for that no series offers: names, and labels to match on or to group by.

    Raises:
        ValueError: It is not PromQL.
    """
    problems: list[str] = []
    known: set[str] = set()
    used: set[str] = set()

    def visit(node: promql_parser.Expr) -> bool:
        # A range's selector is visited by itself.
        if isinstance(node, promql_parser.VectorSelector):
            labels = series.get(node.name or "")
            if labels is None:
                problems.append(f"no series is called {node.name}")
            else:
                known.update(labels)
                matched = {matcher.name for matcher in node.matchers.matchers}
                problems.extend(f"{node.name} has no label {label}" for label in sorted(matched - labels))
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            used.update(node.modifier.labels)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return problems + [f"nothing here has the label {label}" for label in sorted(used - known)]
