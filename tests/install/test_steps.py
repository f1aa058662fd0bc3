"""The checks of `make matrix` can fail: on tracebacks, and on warnings that our own calls cause."""

import pytest

from tests.install.steps import NEEDED, STEPS, Failed, require_clean

OURS = "/env/lib/python3.13/site-packages/avllm/chat/decoding.py:151: FutureWarning: `past_key_values` is deprecated"
BY_TORCH = "/env/lib/python3.13/site-packages/torch/nn/modules/module.py:9: FutureWarning: `past_key_values` is old"
THEIRS = "/env/lib/python3.13/site-packages/gradio/routes.py:3: DeprecationWarning: 'HTTP_413' is deprecated"


@pytest.mark.parametrize(
    "fault", ["Traceback (most recent call last):\n", OURS, BY_TORCH, "`cache_params` are deprecated."]
)
def test_a_fault_is_found(fault):
    with pytest.raises(Failed):
        require_clean(f"a line\n{fault}\nanother line")


def test_what_libraries_warn_of_among_themselves_is_theirs():
    require_clean(f"a line\n{THEIRS}\n  source of it\nanother line")


def test_the_steps_are_all_there():
    assert len(STEPS) == 14
    assert set(NEEDED) < set(STEPS)
