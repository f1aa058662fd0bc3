"""The plug-in against a fake of lmms-eval's interface, with the real model; and, where lmms-eval is there, for real."""

import importlib
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from avllm.errors import ConfigError, DataError
from avllm.nano.sample import make_clip, write_clip

SETTINGS = {"max_new_tokens": 20, "temperature": 0, "do_sample": False, "until": ["\n"]}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(make_clip("test", 0, 3, held_out=False).scene, tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="module")
def module():
    """`avllm.evaluation.lmms_model` with a fake in place of lmms-eval."""

    class Lmms:
        def __init__(self):
            self.task_dict = {}

    names = {"lmms_eval": {}, "lmms_eval.api": {}, "lmms_eval.api.model": {"lmms": Lmms}}
    names |= {"lmms_eval.models": {}, "lmms_eval.models.registry_v2": {"ModelManifest": SimpleNamespace}}
    before = {name: sys.modules.get(name) for name in [*names, "avllm.evaluation.lmms_model"]}
    for name, members in names.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(members)
    sys.modules.pop("avllm.evaluation.lmms_model", None)
    yield importlib.import_module("avllm.evaluation.lmms_model")
    for name, found in before.items():
        sys.modules.pop(name, None)
        if found is not None:
            sys.modules[name] = found


@pytest.fixture(scope="module")
def model(module, clip):
    model = module.Avllm.__new__(module.Avllm)
    model.__init__(pretrained="nano", batch_size="3", device="cpu", max_batch_size=None)
    picture = Image.fromarray(np.full((48, 64, 3), 200, dtype=np.uint8))
    sound = {"array": np.sin(np.arange(16000) / 9), "sampling_rate": 16000}
    model.task_dict = {"task": {"test": {0: [str(clip)], 1: [picture], 2: [sound], 3: [], 4: [3.5]}}}
    return model


def request(*args):
    return SimpleNamespace(args=args)


def see(doc):
    return doc


def test_answers_are_those_of_avllm_in_the_order_of_the_requests(model, clip):
    asked = ["What do you see?", "What do you hear?", "Where does it move?", "What colour is it?"]
    requests = [request(text, SETTINGS, see, 0, "task", "test") for text in asked]
    requests.insert(2, request(asked[0], {**SETTINGS, "max_new_tokens": 3}, see, 0, "task", "test"))
    found = model.generate_until(requests)
    expected = [model.assistant.chat().ask(text, video=clip, max_new_tokens=20) for text in asked]
    assert [*found[:2], *found[3:]] == expected
    assert found[2] != found[0]
    assert found[0].startswith(found[2])


def test_pictures_sounds_and_texts_are_taken_and_nothing_else(model):
    found = model.generate_until([request("What is it?", SETTINGS, see, doc, "task", "test") for doc in (1, 2, 3)])
    assert all(isinstance(text, str) for text in found)
    with pytest.raises(DataError, match="expected a path, a picture or a sound from the task, got float"):
        model.generate_until([request("What is it?", SETTINGS, see, 4, "task", "test")])


def test_an_answer_ends_where_the_task_wants_it(module):
    assert module._cut("a dog\nand more", ["\n", "."]) == "a dog"
    assert module._cut("a dog", []) == "a dog"
    assert module._cut("a dog\nand more", "\n") == module._cut("a dog\nand more", ["\n", None]) == "a dog"
    assert module._cut("a dog\n\nand more", "\n\n") == "a dog"  # a task's own
    assert module._cut("a dog\n\nand more", ["Q:", "\n\n"]) == "a dog"


@pytest.mark.parametrize("until", [["\n\n"], [], None, [None]])
def test_an_answer_is_whole_where_the_task_says_nothing_of_its_end(module, model, until, monkeypatch):
    answer = "First the bell rings, then the car comes.\n\nThe answer is B."
    monkeypatch.setattr(
        model.assistant, "answers", lambda requests, **rest: [SimpleNamespace(answer=answer) for _ in requests]
    )
    settings = {"max_new_tokens": 4096, "until": until}
    assert model.generate_until([request("What is first?", settings, see, 3, "task", "test")]) == [answer]
    assert model._rounds("x", settings, see, lambda doc, **state: (doc, "", True, state["previous_output"], None), 3,
                         "task", "test") == [answer]  # fmt: skip
    cut = model.generate_until(
        [request("What is first?", {**settings, "until": ["\n\n", "Q:"]}, see, 3, "task", "test")]
    )
    assert cut == ["First the bell rings, then the car comes."]


def test_the_likeliest_continuation_is_what_the_model_says(model, clip):
    question = "Where does it move?"
    said = model.assistant.chat().ask(question, video=clip, max_new_tokens=20)
    targets = [said, "xyz " + said]
    (loss, is_greedy), (worse, is_not) = model.loglikelihood(
        [request(question, lambda doc, text=text: text, see, 0, "task", "test") for text in targets]
    )
    assert is_greedy
    assert not is_not
    assert 0 < loss < worse
    assert model.loglikelihood([request(question, said, see, 0, "task", "test")])[0][0] == pytest.approx(loss)


def test_rounds_go_on_until_the_task_ends_them(model):
    calls = []

    def word(doc, *, previous_output, round_idx, previous_round_info):
        calls.append((list(previous_output), round_idx, previous_round_info))
        return doc, f"Question {round_idx}?", round_idx == 3, previous_output, {"round": round_idx}

    (rounds,) = model.generate_until_multi_round([request("Question 0?", SETTINGS, see, word, 0, "task", "test")])
    assert len(rounds) == 3
    assert [call[1:] for call in calls] == [(1, None), (2, {"round": 1}), (3, {"round": 2})]
    assert calls[2][0] == rounds


def test_wrong_settings_are_named(module):
    with pytest.raises(ConfigError, match="batch_size: expected a whole number above 0, got 'auto'"):
        module.Avllm(batch_size="auto")


def test_the_entry_point_names_the_class_and_costs_nothing(module):
    from avllm.evaluation.lmms_plugin import manifest

    found = manifest()
    assert found.model_id == "avllm"
    path, _, name = found.simple_class_path.rpartition(".")
    assert getattr(importlib.import_module(path), name) is module.Avllm


@pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is not installed (it has a venv of its own)")
def test_lmms_eval_itself_finds_the_model():
    assert "avllm" in [entry.name for entry in entry_points(group="lmms_eval.models")]
    from lmms_eval.models import get_model

    assert get_model("avllm").__name__ == "Avllm"
