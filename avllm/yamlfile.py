"""YAML as plain data: values that are written out, once, under keys that are texts. Nothing in it is run."""

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

MAX_SHOWN = 200  # signs of a value in a message


def plain_yaml(text: str) -> Any:
    """What a YAML holds.

    Raises:
        ValueError: it is not valid, too deep, holds an alias, a tag of Python, a key that is no text or stands twice;
            the message is one line.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {cut(' '.join(str(error).split()))}") from error
    except RecursionError as error:
        raise ValueError("not valid YAML: nested too deeply") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of a date, a number, ...
        raise ValueError(f"not valid YAML: a value cannot be read ({cut(str(error))})") from error


def cut(text: str) -> str:
    """A text as messages show it."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few bytes of them stand for any amount of data
            event = self.get_event()
            problem = f"alias *{event.anchor}; write the value out"
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            problem = None if isinstance(key, str) else f"key {cut(repr(key))} is no text; put it in quotes"
            if problem is None and key in seen:
                problem = f"key {cut(repr(key))} is written twice"
            if problem is not None:
                raise ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
