"""YAML 1.2 as plain values: `on` is a word, 1e-3 a number, a date text; bounded in size, depth and aliases."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.nodes import CollectionNode, Node
from ruamel.yaml.resolver import VersionedResolver

MAX_EXPANDED_NODES = 1_000_000
"""Values of a document in which every alias is written out."""

TIMESTAMP = "tag:yaml.org,2002:timestamp"


class YAMLTextError(Exception):
    """A text that is no YAML document; the message says where and why."""


def read(text: str) -> Any:
    """The values of the text's one document: dicts, lists, text, numbers, booleans and None. Raises `YAMLTextError`."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _Resolver
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        raise YAMLTextError(_explained(error)) from error
    except RecursionError as error:
        raise YAMLTextError("is nested too deeply") from error
    except (YAMLError, ValueError) as error:
        raise YAMLTextError(f"is not YAML: {' '.join(str(error).split())}") from error


class _Resolver(VersionedResolver):
    """YAML 1.2's core rules, which have no dates."""

    def add_version_implicit_resolver(self, version: Any, tag: Any, regexp: Any, first: Any) -> None:
        if str(tag) != TIMESTAMP:
            super().add_version_implicit_resolver(version, tag, regexp, first)


class _Constructor(SafeConstructor):
    """Refuses aliases that would grow without bound before anything is built from them."""

    def construct_document(self, node: Node) -> Any:
        if _expanded_nodes(node, {}) > MAX_EXPANDED_NODES:
            raise YAMLTextError(
                f"has aliases that grow to more than {MAX_EXPANDED_NODES:,} values; write fewer of them"
            )
        return super().construct_document(node)


def _expanded_nodes(node: Node, sizes: dict[int, int]) -> int:
    """How many nodes a node has with its aliases written out; `sizes` are those known, 0 for one in the making."""
    if not isinstance(node, CollectionNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = 0
        children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
        sizes[id(node)] = 1 + sum(_expanded_nodes(child, sizes) for child in children)
    elif sizes[id(node)] == 0:
        raise YAMLTextError("has an alias inside of what it stands for")
    return sizes[id(node)]


def _explained(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    problem = (error.problem or error.context or "not YAML").split("\n")[0]
    if problem.startswith("but ") and error.context:
        problem = f"{error.context}, {problem}"
    if not isinstance(mark, StringMark):
        return problem
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
