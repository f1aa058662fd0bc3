"""When an answer is drawn: one rule for every door."""

import numpy as np
import pytest

from avllm.chat import Request
from avllm.chat.generate_options import settled
from avllm.errors import ConfigError

SHORT = {"max_new_tokens": 8}


@pytest.mark.parametrize(
    ("given", "is_drawn"),
    [
        ({}, False),
        ({"temperature": None, "top_p": None, "do_sample": None}, False),
        ({"temperature": 0}, False),
        ({"temperature": 0.0, "top_p": 0.9, "do_sample": True}, False),
        ({"temperature": np.float32(0)}, False),
        ({"temperature": 0.7}, True),
        ({"top_p": 0.9}, True),
        ({"top_k": 3}, True),
        ({"do_sample": True}, True),
    ],
)
def test_a_temperature_of_0_is_greedy_and_one_above_it_draws(given, is_drawn):
    found = settled(given)
    assert found["do_sample"] is is_drawn
    assert is_drawn or not {"temperature", "top_p"} & found.keys()
    assert settled(found) == found


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"temperature": -0.1}, "temperature: expected a number from 0"),
        ({"temperature": float("nan")}, "temperature: expected a number from 0"),
        ({"temperature": float("inf")}, "temperature: expected a number from 0"),
        ({"temperature": "hot"}, "temperature: expected a float"),
        ({"temperature": True}, "temperature: expected a float, got True"),
        ({"temperature": 0.5, "do_sample": False}, "temperature: without effect, as do_sample=False"),
        ({"top_p": 0}, "top_p: expected a number above 0 and up to 1"),
        ({"top_p": 1.5}, "top_p: expected a number above 0 and up to 1"),
        ({"top_k": -1}, "top_k: expected a number from 0 on"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected a number from 1 on, got 0"),
        ({"max_new_tokens": 8.5}, "max_new_tokens: expected an int"),
        ({"num_beams": 0}, "num_beams: expected a number from 1 on"),
        ({"do_sample": "no"}, "do_sample: expected true or false"),
        ({"seed": 1.5}, "seed: expected an int"),
        ({"temprature": 1}, "temprature: unknown option; did you mean 'temperature'"),
        ({"vidoe": "a.mp4"}, "vidoe: unknown option; did you mean 'video'"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(assistant, given, fault):
    with pytest.raises(ConfigError, match=fault):
        settled(given)
    session = assistant.chat()
    for ask in (session.ask, lambda *args, **options: list(session.stream(*args, **options))):
        with pytest.raises(ConfigError, match=fault):
            ask("what?", video="clip", **given)
    assert assistant.opened == []


def test_a_temperature_of_0_answers_as_greedy_does(assistant):
    greedy = assistant.chat().ask("what?", video="clip", **SHORT)
    cold = {"temperature": 0.0, "top_p": 0.3, **SHORT}
    assert assistant.chat().ask("what?", video="clip", **cold) == greedy
    assert "".join(assistant.chat().stream("what?", video="clip", **cold)) == greedy
    assert assistant.answers([Request(question="what?", video="clip")], **cold)[0].answer == greedy


def test_a_temperature_alone_draws(assistant):
    drawn = {assistant.chat().ask("what?", video="clip", temperature=3.0, seed=seed, **SHORT) for seed in range(4)}
    assert len(drawn) > 1


def test_a_request_of_no_tokens_is_not_taken_for_the_default(assistant):
    with pytest.raises(ConfigError, match="max_new_tokens"):
        assistant.answers([Request(question="what?", max_new_tokens=0)])
