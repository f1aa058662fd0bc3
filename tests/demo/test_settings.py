import pytest

from avllm.chat.generate_options import settled
from avllm.demo.settings import Settings


def test_forged_settings_are_brought_into_range(config):
    wild = {
        "model": "../../etc",
        "streams": ["off"],
        "frames": "many",
        "temperature": float("nan"),
        "top_p": None,
        "num_beams": {},
        "max_new_tokens": "many",
        "seed": "x",
        "system": 7,
    }

    assert Settings.checked(config, **wild) == Settings.default(config)


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("max_new_tokens", 10**9, 96),
        ("frames", 10**9, 16),
        ("frames", 0, 1),
        ("num_beams", 99, 5),
        ("temperature", -1, 0.0),
        ("top_p", 0, 0.01),
        ("seed", 2**40, 2**32 - 1),
        ("seed", True, None),
        ("seed", "41", 41),
        ("seed", "", None),
        ("seed", "٣", None),
        ("seed", "-1", None),
        ("seed", "9" * 5000, None),
        ("streams", "only", "only"),
        ("system", "  be short  ", "be short"),
        ("system", "   ", None),
        ("system", "x" * 5000, "x" * 2000),
    ],
)
def test_values_are_taken_within_the_limits(config, name, given, taken):
    assert getattr(Settings.checked(config, **{name: given}), name) == taken


def test_greedy_answers_are_not_drawn(config):
    greedy = Settings.checked(config, temperature=0.0, top_p=0.5, seed=3).generation()
    drawn = Settings.checked(config, temperature=0.7, top_p=0.5, seed=3, num_beams=2).generation()

    assert settled(greedy) == {"max_new_tokens": 48, "num_beams": 1, "do_sample": False, "seed": 3}
    assert settled(drawn)["do_sample"]
    assert (drawn["temperature"], drawn["top_p"], drawn["seed"], drawn["num_beams"]) == (0.7, 0.5, 3, 2)
