import json
from functools import partial

import pytest

from avllm.errors import DataError
from avllm.nano import sample as sampling
from avllm.nano.sample import TYPES, sample
from avllm.nano.score import OPENINGS, Loaded, score
from avllm.nano.score_result import Accuracy, Outcome, Score, tidy


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setattr(sampling, "WORKERS", 1)


def outcome(answer, *, truth="yes", kind="yes_no", held_out=False):
    return Outcome(
        type=kind, kind="sees", held_out=held_out, question="?", truth=truth, answer=answer, is_right=answer == truth
    )


def always(text, asked_files):
    def answer(asked):
        for file, question in asked:
            assert file.is_file()
            assert question
            asked_files.append(file)
        return [text for _ in asked]

    return Loaded(answer=answer, parameters=123, weights_bytes=456)


def test_new_clips_are_written_asked_about_and_forgotten():
    files = []
    result = score(num_clips=4, seed=1, factory=partial(always, "Yes.", files))

    plain = json.loads(json.dumps(result.to_dict()))
    assert set(plain) == {
        "clips", "seed", "seconds", "scores", "held_out", "yes_share", "later_turns", "parameters",
        "weights_bytes",
    }  # fmt: skip
    assert list(plain["scores"]) == list(plain["held_out"]) == list(TYPES)
    assert all(set(row) == {"accuracy", "low", "high", "n"} for row in plain["scores"].values())
    assert (plain["clips"], plain["seed"], plain["parameters"], plain["weights_bytes"]) == (4, 1, 123, 456)
    assert plain["yes_share"]["said"] == 1.0
    assert plain["scores"]["thing"]["accuracy"] in (0.0, None)
    assert len(set(files)) == 5  # four and one with a held-out pair
    assert not any(file.exists() for file in files)
    assert "sound count" in result.to_table()


def test_a_sampled_folder_is_scored_and_the_truth_scores_full(tmp_path):
    truth = sample(tmp_path, num_clips=5, seed=2)
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    known = {(line["file"], asked["question"]): asked["answer"] for line in lines for asked in line["questions"]}
    loaded = Loaded(answer=lambda asked: [known[file.name, question].upper() + "." for file, question in asked])

    result = score(source=tmp_path, factory=lambda: loaded)

    assert result.clips == 4
    assert all(outcome.is_right for outcome in result.outcomes)
    assert {outcome.held_out for outcome in result.outcomes} == {False, True}
    assert result.yes_share()["said"] == result.yes_share()["true"]


def test_clips_to_score_are_never_those_of_a_sampled_folder_nor_of_training():
    scenes = {purpose: sampling.make_clip(purpose, 0, 0, held_out=False) for purpose in ("score", "sample", "train")}
    assert len(set(scenes.values())) == 3


def test_wilson_interval_has_the_known_values():
    found = Accuracy.of([True] * 90 + [False] * 10)
    assert (found.accuracy, found.n) == (0.9, 100)
    assert found.low == pytest.approx(0.8256, abs=1e-4)
    assert found.high == pytest.approx(0.9448, abs=1e-4)
    assert Accuracy.of([True] * 20).high == 1.0
    assert Accuracy.of([]).to_dict() == {"accuracy": None, "low": None, "high": None, "n": 0}


def test_held_out_clips_count_apart_and_mistakes_are_listed_by_number():
    outcomes = (outcome("yes"), outcome("no"), outcome("no"), outcome("yes", held_out=True), outcome("no", truth="no"))
    result = Score(outcomes=outcomes, clips=4, seed=0, seconds=1.0, parameters=0, weights_bytes=0)
    assert result.accuracies(held_out=False)["yes_no"].accuracy == 0.5
    assert result.accuracies(held_out=True)["yes_no"].accuracy == 1.0
    assert result.yes_share() == {"said": 0.25, "true": 0.75}
    assert result.mistakes() == [("sees", "yes", "no", 2)]


def test_answers_are_compared_without_case_spaces_and_stop():
    assert tidy(" A  Red bell.\n") == "a red bell"


def test_a_folder_without_truth_or_with_a_broken_one_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no truth\.jsonl there; expected a folder written by"):
        score(source=tmp_path, factory=lambda: Loaded(answer=list))
    (tmp_path / "truth.jsonl").write_text('{"file": "a.mp4"}\n')
    with pytest.raises(DataError, match="line 1: expected an object with file, held_out and questions"):
        score(source=tmp_path, factory=lambda: Loaded(answer=list))


def test_later_turns_are_asked_in_a_conversation_about_the_same_file():
    held = []

    def converse(file, questions):
        assert file.is_file()
        held.append(questions)
        return "Yes."

    loaded = Loaded(answer=lambda asked: ["no" for _ in asked], converse=converse)
    result = score(num_clips=4, seed=1, factory=lambda: loaded)

    assert len(held) == len(result.later_turns) == 4
    assert [opening for opening, _ in held] == list(OPENINGS)
    assert [outcome.question for outcome in result.later_turns] == [question for _, question in held]
    right = sum(outcome.truth == "yes" for outcome in result.later_turns)
    assert result.to_dict()["later_turns"]["accuracy"] == right / 4
    assert result.to_dict()["later_turns"]["n"] == 4


def test_without_conversations_there_are_no_later_turns():
    result = score(num_clips=1, seed=1, factory=lambda: Loaded(answer=lambda asked: ["no" for _ in asked]))

    assert result.to_dict()["later_turns"] == {"accuracy": None, "low": None, "high": None, "n": 0}
