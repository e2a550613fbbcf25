"""YAML as people write it by hand, and nothing that only surprises: a key twice in a mapping, whose
first value YAML forgets, and aliases that unfold to more than anybody writes are refused."""

from __future__ import annotations

from typing import Any

import yaml

from endedge.data.errors import BadInput

__all__ = ["read_yaml"]

_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, strict about keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise BadInput(
                        f"the key {key.value[:40]!r} is twice in one section, again on line "
                        f"{key.start_mark.line + 1}; keep one of them"
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str) -> Any:
    """The one document of ``text``, which messages call ``where``. Raises :class:`BadInput`, one
    line, for what is not YAML, a key that is twice in a mapping, and aliases within themselves or
    of more than 100,000 values."""
    loader = None
    try:
        loader = _Loader(text)  # which looks for characters that YAML forbids
        node = loader.get_single_node()
        if node is None:
            return None
        _unfolded(node, {})
        return loader.construct_document(node)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    except RecursionError:
        raise BadInput(f"{where} is nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # ValueError: of a date 2026-99-99
        raise BadInput(f"{where} is not YAML: {' '.join(str(error).split())[:300]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in ``node`` with every alias counted as often as it stands there."""
    if id(node) in known:
        if not known[id(node)]:
            raise BadInput("an alias stands within what it names")
        return known[id(node)]
    known[id(node)] = 0  # is being counted
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inside = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inside = node.value
    total = 1 + sum(_unfolded(part, known) for part in inside)
    if total > _MOST_VALUES:
        raise BadInput(f"its aliases unfold to more than {_MOST_VALUES:,} values")
    known[id(node)] = total
    return total
