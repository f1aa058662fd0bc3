"""A judge of open answers behind any OpenAI-compatible endpoint; its verdicts are kept, and none is paid for twice."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from tqdm import tqdm

from avllm.durable import Appender, appending
from avllm.errors import ConfigError, DataError
from avllm.evaluation.aspects import ASPECTS
from avllm.evaluation.endpoint import Endpoint, Refused, Unreachable
from avllm.evaluation.log import Row, digest, whole_rows
from avllm.evaluation.logged import check_verdict
from avllm.evaluation.verdict import messages, read, schema
from avllm.terminal import visible

FILE = "judge.jsonl"
KEYS = ("id", "aspect", "model", "key", "answer_hash", "tokens", "cost")  # of its rows
GIVE_UP_AFTER = 3  # questions in a row that the endpoint did not answer at all


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Who judges open answers, and on what; nobody as long as `url` is empty.

    Args:
        url: of the API, for example https://api.openai.com/v1 or http://localhost:8000/v1.
        model: its full name with the date, so that it stays the same model.
        aspects: what is judged, of `avllm.evaluation.aspects`, in answers to samples that do not say it themselves.
        key_env: name of the environment variable that holds the API key; without it none is sent.
        reply: how the form of the reply is asked for; not every server knows json_schema.
        options: further keys of the request.
        concurrency: requests at a time.
        tries: for each question.
        wait_s: before the second try; doubles with each, unless the server names a time.
        timeout_s: longest wait for one reply.
        price: of a million tokens, of the prompt and of the reply; for the cost that is shown.
    """

    url: str = ""
    model: str = ""
    aspects: tuple[str, ...] = ("match",)
    key_env: str = ""
    reply: Literal["json_schema", "json_object", "text"] = "json_schema"
    options: dict[str, bool | int | float | str] = field(default_factory=lambda: {"temperature": 0})
    concurrency: int = 4
    tries: int = 6
    wait_s: float = 1.0
    timeout_s: float = 60.0
    price: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("https://", "http://")):
            raise ConfigError(f"judge.url: expected https://... or http://..., got {self.url!r}")
        if self.url and not self.model:
            raise ConfigError("judge.model: name the model, with its date, for example gpt-4o-mini-2024-07-18")
        for name in ("concurrency", "tries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"judge.{name}: expected 1 or more, got {getattr(self, name)}")
        for name in self.aspects:
            if name not in ASPECTS:
                raise ConfigError(f"judge.aspects: {name!r} is unknown, known are: {', '.join(ASPECTS)}")
        given = [one.name for one in fields(self) if getattr(self, one.name) != _default(one)]
        if given and not self.url:
            raise ConfigError(f"judge.{given[0]}: nobody judges as long as judge.url is empty; set it, or drop this")

    def endpoint(self) -> Endpoint:
        """A connection.

        Raises:
            ConfigError: the variable of the key is not set.
            ModuleNotFoundError: httpx is not installed.
        """
        key = os.environ.get(self.key_env, "") if self.key_env else ""
        if self.key_env and not key:
            raise ConfigError(f"judge.key_env: the environment variable {self.key_env} is not set")
        return Endpoint(url=self.url, key=key, tries=self.tries, wait_s=self.wait_s, timeout_s=self.timeout_s)

    def body(self, aspect: str, rows: Sequence[Row]) -> dict[str, Any]:
        """The request for a verdict on one row of a log, or on those that belong together."""
        form: dict[str, Any] = {"type": self.reply}
        if self.reply == "json_schema":
            form["json_schema"] = {"name": "verdict", "strict": True, "schema": schema(ASPECTS[aspect])}
        shape = {} if self.reply == "text" else {"response_format": form}
        return {"model": self.model, "messages": messages(ASPECTS[aspect], rows), **shape, **self.options}


def _default(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One verdict to ask for.

    Args:
        id: of the sample.
        aspect: of `ASPECTS`.
        answer_hash: of the answer that is judged.
        body: the request.
    """

    id: str
    aspect: str
    answer_hash: str
    body: dict[str, Any]

    @property
    def key(self) -> str:
        """A digest of all that a verdict depends on."""
        return digest([self.id, self.body])


def tasks(judge: Judge, rows: Sequence[Row]) -> Iterator[Task]:
    """The verdicts that answered rows with an open truth call for."""
    for group in _groups(rows):
        for aspect in group[0].get("aspects", judge.aspects):
            body = judge.body(aspect, group)
            yield Task(id=group[0]["id"], aspect=aspect, answer_hash=_hash(group), body=body)


def _groups(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows that are judged as one: those that belong together, of which the first stands for all, and single ones."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.get("accepted"):
            key = ("together", row["together"]) if row.get("together") else ("id", row["id"])
            groups.setdefault(key, []).append(row)
    return (group for group in groups.values() if not any("error" in row for row in group))


def _hash(group: Sequence[Row]) -> str:
    return digest([row["answer"] for row in group])


def ask(judge: Judge, rows: Sequence[Row], folder: Path) -> None:
    """Asks for the verdicts that `folder` does not hold yet; each is on disk before the next one is waited for.

    Raises:
        ConfigError: the key is missing, or the endpoint refuses it or does not know the model.
        DataError: the endpoint does not answer; what it said before is kept.
    """
    wanted = {task.key: task for task in tasks(judge, rows)}
    path = folder / FILE
    if not wanted or all(key in _known(path) for key in wanted):
        return
    with judge.endpoint() as endpoint, appending(path, wait=True) as out:
        known = _known(path)  # another process of the run may have asked meanwhile
        todo = [task for key, task in wanted.items() if key not in known]
        _ask_all(judge, endpoint, todo, out)


def _ask_all(judge: Judge, endpoint: Endpoint, todo: Sequence[Task], out: Appender) -> None:
    pool, writing = ThreadPoolExecutor(judge.concurrency), Lock()
    silent, cost, failed = 0, 0.0, 0

    def ask(task: Task) -> tuple[Row, bool]:
        row, is_silent = _verdict(judge, endpoint, task)
        with writing:  # before the next question is asked, so that a kill loses only what is under way
            out.add([row])
        return row, is_silent

    try:
        waiting = [pool.submit(ask, task) for task in todo]
        with tqdm(total=len(todo), unit="verdict", desc=visible(judge.model), disable=None) as bar:
            for future in as_completed(waiting):
                row, is_silent = future.result()
                silent = silent + 1 if is_silent else 0
                if silent == GIVE_UP_AFTER:
                    raise DataError(f"the judge at {judge.url} does not answer ({row['error']}); go on with --resume")
                cost, failed = cost + (row["cost"] or 0.0), failed + ("error" in row)
                bar.update()
                bar.set_postfix(cost=f"{cost:.4f}", failed=failed, refresh=False)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _verdict(judge: Judge, endpoint: Endpoint, task: Task) -> tuple[Row, bool]:
    """The row of one verdict, and whether the endpoint gave no answer at all."""
    row: Row = {"id": task.id, "aspect": task.aspect, "model": judge.model, "key": task.key}
    row["answer_hash"] = task.answer_hash
    spent, found, is_silent = [0, 0], {}, False
    for number in range(judge.tries):
        try:
            reply = endpoint.complete(task.body)
        except Refused as error:
            found = {"error": str(error)}
            break
        except Unreachable as error:
            found, is_silent = {"error": str(error)}, True
            break
        spent = [spent[0] + reply.tokens[0], spent[1] + reply.tokens[1]]
        found = {"served_by": reply.model, "reply": reply.text, "requests": number + 1}
        try:
            verdict = read(ASPECTS[task.aspect], reply.text)
        except ValueError as error:
            found["error"] = str(error)
            continue
        found["score"] = verdict.score
        if verdict.is_match is not None:
            found["is_match"] = verdict.is_match
        break
    cost = None
    if judge.price is not None:
        cost = (spent[0] * judge.price[0] + spent[1] * judge.price[1]) / 1e6
    return {**row, **found, "tokens": spent, "cost": cost}, is_silent


def _known(path: Path) -> set[str]:
    """Keys of the verdicts in a file; what failed is asked again."""
    return {row["key"] for row in _verdicts(path) if "error" not in row} if path.is_file() else set()


def _verdicts(path: Path) -> Iterator[Row]:
    for row in whole_rows(path, KEYS):
        check_verdict(row, str(path))
        yield row


def judged(folder: Path, rows: Sequence[Row]) -> tuple[list[Row], dict[str, Row]]:
    """Rows with the verdicts that a folder holds about their answers, and what each judge has taken in all.

    Returns:
        the rows, those that were judged with `verdicts`, model -> aspect -> verdict; and by model the tokens, the cost,
        and which models said that they answered.
    """
    path = folder / FILE
    if not path.is_file():
        return list(rows), {}
    hashes = {group[0]["id"]: _hash(group) for group in _groups(rows)}
    said: dict[str, dict[str, dict[str, Row]]] = {}
    spent: dict[str, Row] = {}
    for verdict in _verdicts(path):
        total = spent.setdefault(verdict["model"], {"tokens": [0, 0], "cost": None, "served_by": []})
        total["tokens"] = [a + b for a, b in zip(total["tokens"], verdict["tokens"], strict=True)]
        if verdict["cost"] is not None:
            total["cost"] = (total["cost"] or 0.0) + verdict["cost"]
        if verdict.get("served_by") and verdict["served_by"] not in total["served_by"]:
            total["served_by"].append(verdict["served_by"])
        if verdict["answer_hash"] == hashes.get(verdict["id"]):  # of this answer, not of one in a run before
            aspects = said.setdefault(verdict["id"], {}).setdefault(verdict["model"], {})
            # The last one counts, but an error does not hide a verdict.
            if "error" not in verdict or "score" not in aspects.get(verdict["aspect"], {}):
                aspects[verdict["aspect"]] = {k: verdict[k] for k in ("score", "is_match", "error") if k in verdict}
    return [{**row, "verdicts": said[row["id"]]} if row["id"] in said else row for row in rows], spent
