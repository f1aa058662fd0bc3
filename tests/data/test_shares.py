from avllm.data.shares import DEATHS_ALONE, Ledger, work_through


class Killed(BaseException):
    """The end of a worker, as a test may survive it."""


class Cluster:
    """Gives a share to worker after worker until one of them lives through it."""

    def __init__(self, *deadly):
        self.deadly, self.ledger, self.calls, self.num_deaths = deadly, Ledger(), [], 0

    def do(self, items):
        self.calls.append(list(items))
        if set(items) & set(self.deadly):
            raise Killed
        return [f"{item} done" for item in items]

    def run(self, items, share=0):
        while True:
            try:
                parts = work_through(self.ledger, share, items, self.do, lambda item, why: [f"{item} lost: {why}"])
                return [result for part in parts for result in part]
            except Killed:
                self.num_deaths += 1


def test_a_share_that_kills_nobody_is_done_at_once():
    cluster = Cluster()
    assert cluster.run(["a", "b"]) == ["a done", "b done"]
    assert cluster.calls == [["a", "b"]]


def test_an_item_that_kills_three_workers_is_given_up_and_the_others_are_done_once():
    cluster = Cluster("b")
    found = cluster.run(["a", "b", "c"])
    assert [text.partition(":")[0] for text in found] == ["a done", "b lost", "c done"]
    assert "3 workers died while they were at it" in found[1]
    assert cluster.num_deaths == 1 + DEATHS_ALONE == 3
    assert cluster.calls == [["a", "b", "c"], ["a"], ["b"], ["b"], ["c"]]


def test_every_item_may_kill_and_the_share_ends_all_the_same():
    cluster = Cluster(*"abc")
    assert [text[:6] for text in cluster.run("abc")] == ["a lost", "b lost", "c lost"]
    assert cluster.num_deaths == 1 + 3 * DEATHS_ALONE


def test_shares_do_not_blame_each_other_and_a_death_for_another_reason_loses_nothing():
    cluster = Cluster("a")
    cluster.run("ab", share=1)
    assert cluster.run("cd", share=2) == ["c done", "d done"]
    other = Cluster("a")
    other.ledger.begin(0)  # a machine that was switched off
    other.deadly = ()
    assert other.run("ab") == ["a done", "b done"]
