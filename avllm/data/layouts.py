"""The layouts in which people write conversations, told apart by their keys: what is said, by whom, what is learned."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from avllm.data.annotations import entries, member, show, text
from avllm.data.content_parts import MediumPart, read_parts
from avllm.data.keys import is_absent, present, unused
from avllm.errors import DataError

Role = Literal["user", "assistant", "system"]
ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("user", "human", "usr", "questioner", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "chatbot", "ai", "answerer"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
CALLS = ("tool", "tools", "function", "function_call", "tool_call", "tool_response", "observation", "ipython")
ASKED = ("query", "question", "instruction", "prompt")
ANSWERED = ("response", "answer", "output", "completion")
SYSTEM = ("system", "system_prompt")
LEARNED = ("loss", "loss_weight", "weight", "train")  # of a turn: whether it is learned


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """What one side says.

    Args:
        role: which side.
        content: its text, or texts and media in their order.
        where: names it in errors.
        is_learned: whether an answer is learned.
    """

    role: Role
    content: str | Sequence[str | MediumPart]
    where: str
    is_learned: bool = True


@dataclass(frozen=True, kw_only=True)
class Talk:
    """A conversation.

    Args:
        spoken: in order, without the system's.
        used: keys of the entry that it was read from.
        system: the system's text.
    """

    spoken: Sequence[Spoken]
    used: frozenset[str]
    system: str | None = None


def read_talk(entry: Mapping[str, Any], where: str, ignore: Collection[str] = ()) -> Talk:
    """The conversation of an entry.

    Args:
        entry: its keys and values, without those that are ignored.
        where: names it.
        ignore: keys that are left out, of turns too.

    Raises:
        DataError: the entry has no layout, or two; a role, a turn or a text is wrong.
    """
    found = [names for names in LAYOUTS if any(not is_absent(entry.get(name)) for name in names)]
    found = found or [names for names in LAYOUTS if any(name in entry for name in names)]
    if not found:
        member(entry, "conversations", where)
    if len(found) > 1:
        keys = [next(name for name in names if name in entry) for names in found]
        raise DataError(f"{where}: has {' and '.join(keys)}; expected one of them, or leave the others out by ignore")
    spoken, used = LAYOUTS[found[0]](entry, where, ignore)
    systems = [(text(entry, key, where), f"{where}.{key}") for key in SYSTEM if not is_absent(entry.get(key))]
    while spoken and spoken[0].role == "system":
        systems.append((_joined(spoken[0]), spoken[0].where))
        spoken = spoken[1:]
    for item in spoken:
        if item.role == "system":
            raise DataError(f"{item.where}: a turn of the system; expected it before the first question")
    if len({said for said, _ in systems}) > 1:
        raise DataError(f"{systems[-1][1]}: another text of the system stands in {systems[0][1]}; expected one")
    return Talk(spoken=spoken, used=frozenset((*used, *SYSTEM)), system=systems[0][0] if systems else None)


def _messages(entry: Any, where: str, ignore: Collection[str]) -> tuple[list[Spoken], list[str]]:
    return _turns(entry, "messages", ("role", "content"), where, ignore), ["messages"]


def _conversations(entry: Any, where: str, ignore: Collection[str]) -> tuple[list[Spoken], list[str]]:
    key = "conversations" if "conversations" in entry else "conversation"
    return _turns(entry, key, ("from", "value"), where, ignore), [key]


def _turns(entry: Any, key: str, names: tuple[str, str], where: str, ignore: Collection[str]) -> list[Spoken]:
    """Turns with one of the pairs of names `role`, `content` and `from`, `value`; both are in use under either key."""
    spoken = []
    for index, item in enumerate(entries(member(entry, key, where), f"{where}.{key}")):
        spot = f"{where}.{key}[{index}]"
        turn = present(item, spot, ignore)
        role_key = next((name for name in (names[0], "from", "role") if name in turn), names[0])
        text_key = next((name for name in (names[1], "value", "content") if name in item), names[1])
        said = text(item, role_key, spot)
        role = ROLES.get(said.strip().lower())
        if role is None:
            why = "calls of tools are not trained; " if said.strip().lower() in CALLS else ""
            raise DataError(f"{spot}.{role_key}: {why}expected {', '.join(ROLES)}; got {said!r}")
        content = _content(item, role, text_key, spot, ignore)
        unused(turn, (role_key, text_key, *LEARNED), spot)
        spoken.append(Spoken(role=role, content=content, where=spot, is_learned=_is_learned(turn, role, spot)))
    return spoken


def _content(item: Any, role: Role, key: str, spot: str, ignore: Collection[str]) -> str | list[str | MediumPart]:
    value = member(item, key, spot)
    if isinstance(value, list):
        parts = read_parts(value, f"{spot}.{key}", ignore)
        if role != "user" and any(isinstance(part, MediumPart) for part in parts):
            raise DataError(f"{spot}.{key}: media in a turn of the {role}; expected text alone")
        return parts
    if value == "" and role != "assistant":
        return ""  # a medium may be all that is asked
    return text(item, key, spot)


def _is_learned(turn: Mapping[str, Any], role: Role, spot: str) -> bool:
    values = {key: turn[key] for key in LEARNED if key in turn}
    for key, value in values.items():
        if value not in (0, 1):
            raise DataError(f"{spot}.{key}: expected true or false (1 or 0), got {show(value)}")
    if role != "assistant" and True in values.values():
        key = next(key for key in values if values[key])
        raise DataError(f"{spot}.{key}: the text of the {role} is never learned; expected false, or no such key")
    if len(set(values.values())) > 1:
        raise DataError(f"{spot}: {' and '.join(values)} say different things; expected one of them")
    return bool(next(iter(values.values()), True))


def _pair(entry: Any, where: str, ignore: Collection[str]) -> tuple[list[Spoken], list[str]]:
    """One question with its answer under any of the usual names, and what was said before."""
    asked, answered = (_only(entry, names, where) for names in (ASKED, ANSWERED))
    used, spoken = [asked, answered, "history"], []
    question, answer = _both({**entry, asked: _asked(entry, asked, where, ignore)}, asked, answered, where)
    if asked == "instruction":
        used.append("input")
        if not is_absent(entry.get("input")):
            question = replace(question, content=f"{question.content}\n{text(entry, 'input', where)}")
    if asked == "question":  # of `avllm run`, which may bring its media in a list
        used.append("media")
        if not is_absent(entry.get("media")):
            said = [question.content] if isinstance(question.content, str) else question.content
            question = replace(question, content=[*read_parts(entry["media"], f"{where}.media", ignore), *said])
    history = [] if is_absent(entry.get("history")) else entries(entry["history"], f"{where}.history")
    for index, item in enumerate(history):
        spot = f"{where}.history[{index}]"
        if not isinstance(item, list) or len(item) != 2:
            raise DataError(f"{spot}: expected a question and its answer, got {show(item)}")
        spoken += _both({"q": item[0], "a": item[1]}, "q", "a", spot)
    return [*spoken, question, answer], used


def _asked(entry: Any, key: str, where: str, ignore: Collection[str]) -> Any:
    """A question as it is written; in the rows of `avllm run` it may be content parts."""
    value = "" if is_absent(entry[key]) else entry[key]
    return read_parts(value, f"{where}.{key}", ignore) if isinstance(value, list) and key == "question" else value


def _only(entry: Any, names: Sequence[str], where: str) -> str:
    found = [name for name in names if not is_absent(entry.get(name))] or [name for name in names if name in entry]
    if len(found) > 1:
        raise DataError(f"{where}: has {' and '.join(found)}; expected one of them, or leave the others out by ignore")
    if not found:
        member(entry, names[1], where)
    return found[0]


def _both(pair: Any, asked: str, answered: str, where: str) -> list[Spoken]:
    question = member(pair, asked, where)
    if question != "" and not isinstance(question, list):
        question = text(pair, asked, where)
    answer = text(pair, answered, where)
    return [
        Spoken(role="user", content=question, where=f"{where}.{asked}"),
        Spoken(role="assistant", content=answer.strip(), where=f"{where}.{answered}"),
    ]


def _questions(entry: Any, where: str, ignore: Collection[str]) -> tuple[list[Spoken], list[str]]:
    """VideoChat's pairs; an instruction `i` is the system's text, as VideoChat2 has it in front of the conversation."""
    spoken: list[Spoken] = []
    systems = []
    for index, pair in enumerate(entries(entry["QA"], f"{where}.QA")):
        spot = f"{where}.QA[{index}]"
        spoken += _both(pair, "q", "a", spot)
        said = present(pair, spot, ignore)
        unused(said, ("i", "q", "a"), spot)
        systems.append(text(said, "i", spot).strip() if "i" in said else "")
    if len(set(systems)) > 1:
        raise DataError(f"{where}.QA: the pairs have different instructions i; expected one for all of an entry")
    if systems[0]:
        spoken.insert(0, Spoken(role="system", content=systems[0], where=f"{where}.QA[0].i"))
    return spoken, ["QA"]


def _caption(entry: Any, where: str, ignore: Collection[str]) -> tuple[list[Spoken], list[str]]:
    said = text(entry, "caption", where).strip()
    user = Spoken(role="user", content="", where=where)
    return [user, Spoken(role="assistant", content=said, where=f"{where}.caption")], ["caption"]


def _joined(item: Spoken) -> str:
    return item.content if isinstance(item.content, str) else "\n".join(map(str, item.content))


Layout = Callable[[Any, str, Collection[str]], tuple[list[Spoken], list[str]]]
LAYOUTS: Mapping[tuple[str, ...], Layout] = {
    ("messages",): _messages,
    ("conversations", "conversation"): _conversations,
    ("QA",): _questions,
    ("caption",): _caption,
    (*ASKED, *ANSWERED): _pair,
}
