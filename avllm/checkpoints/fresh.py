"""Parts that a first stage trains, drawn anew around published encoders and a language model."""

import torch
from torch import Tensor

from avllm.checkpoints.mapping import Mapped
from avllm.model.modeling import Branch


def fresh_weights(mapped: Mapped, *, seed: int) -> dict[str, Tensor]:
    """New weights for what the system's own checkpoint would hold, as the published training begins with.

    Args:
        mapped: the sources; none of them holds these weights.
        seed: of the draw; the same seed gives the same weights.

    Returns:
        Our name -> weight in float32; nothing when the sources hold them all.
    """
    names = mapped.untrained
    found: dict[str, Tensor] = {}
    for name, branch in mapped.config.parsed().branches.items():
        prefix = f"branches.{name}."
        if any(key.startswith(prefix) for key in names):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                state = Branch(branch, out_width=mapped.config.text_config.hidden_size).state_dict()
            found |= {key: state[key.removeprefix(prefix)].clone() for key in names if key.startswith(prefix)}
    return found
