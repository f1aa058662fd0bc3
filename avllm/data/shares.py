"""Shares of work that may kill the process at work, as a file can that crashes a native decoder: which item is it?

A cluster replaces a worker that died and gives its share to another. What is known of a share lies outside of the
workers, in a `Ledger`: the first worker does the share at once; after a death its items are done one by one, those done
are kept, and an item at which two more workers died is given up. A share so ends, whatever is in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
DEATHS_ALONE = 2  # of workers at one item, after the one that died at the whole share


@dataclass(kw_only=True)
class Known:
    """What is known of a share.

    Args:
        deaths: workers that died at it.
        done: number of an item -> what it gave.
        deaths_at: number of an item -> workers that died at it alone.
    """

    deaths: int = -1
    done: dict[int, Any] = field(default_factory=dict)
    deaths_at: dict[int, int] = field(default_factory=dict)
    at_work: int | None = None


class Ledger:
    """Keeps what is known of shares for workers that may die."""

    def __init__(self) -> None:
        self._shares: dict[int, Known] = {}

    def begin(self, share: int) -> Known:
        """A worker begins a share; if another one had begun it, that one died."""
        known = self._shares.setdefault(share, Known())
        known.deaths += 1
        if known.at_work is not None:
            known.deaths_at[known.at_work] = known.deaths_at.get(known.at_work, 0) + 1
            known.at_work = None
        return known

    def at(self, share: int, number: int) -> None:
        """A worker begins one item of a share."""
        self._shares[share].at_work = number

    def add(self, share: int, number: int, result: Any) -> None:
        """The item is done."""
        self._shares[share].done[number] = result
        self._shares[share].at_work = None

    def end(self, share: int) -> None:
        """The share is done; nothing of it has to be kept."""
        self._shares[share] = Known(deaths=self._shares[share].deaths)


class Ledgers(Protocol):
    """A ledger, here or elsewhere."""

    def begin(self, share: int) -> Known: ...
    def at(self, share: int, number: int) -> None: ...
    def add(self, share: int, number: int, result: Any) -> None: ...
    def end(self, share: int) -> None: ...


class RayLedger:
    """A ledger in an actor of its own, which needs no core; sent to workers, it stays the same one."""

    def __init__(self) -> None:
        import ray  # pyright: ignore[reportMissingImports]  (an extra)

        self._actor = ray.remote(num_cpus=0)(Ledger).remote()

    def _call(self, name: str, *args: Any) -> Any:
        import ray  # pyright: ignore[reportMissingImports]

        return ray.get(getattr(self._actor, name).remote(*args))

    def begin(self, share: int) -> Known:
        """See `Ledger`."""
        return self._call("begin", share)

    def at(self, share: int, number: int) -> None:
        """See `Ledger`."""
        self._call("at", share, number)

    def add(self, share: int, number: int, result: Any) -> None:
        """See `Ledger`."""
        self._call("add", share, number, result)

    def end(self, share: int) -> None:
        """See `Ledger`."""
        self._call("end", share)


def work_through(
    ledger: Ledgers,
    share: int,
    items: Sequence[Item],
    do: Callable[[Sequence[Item]], Result],
    give_up: Callable[[Item, str], Result],
) -> list[Result]:
    """The results of a share: one if no worker died at it before, else one for each item.

    Args:
        ledger: what is known.
        share: its number.
        items: of the share, the same and in the same order in every worker.
        do: the work itself.
        give_up: what stands in place of the result of an item at which workers died, with the reason.
    """
    known = ledger.begin(share)
    if known.deaths == 0:
        results = [do(items)]
    else:
        for number, item in enumerate(items):
            if number in known.done:
                continue
            deaths = known.deaths_at.get(number, 0)
            if deaths >= DEATHS_ALONE:
                why = "a file that crashes its decoder, or too little memory"
                known.done[number] = give_up(item, f"{deaths + 1} workers died while they were at it: {why}")
            else:
                ledger.at(share, number)
                known.done[number] = do([item])
            ledger.add(share, number, known.done[number])
        results = [known.done[number] for number in range(len(items))]
    ledger.end(share)
    return results
