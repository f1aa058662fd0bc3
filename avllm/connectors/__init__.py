"""Connectors: from an encoder's tokens to the decoder's, `[b t p d] -> [b m d_llm]`."""

from avllm.connectors.mlp import MlpConnector
from avllm.connectors.stc import Stc
from avllm.connectors.temporal_qformer import TemporalQFormer

CONNECTORS = {
    "mlp": MlpConnector.Config,
    "stc": Stc.Config,
    "temporal_qformer": TemporalQFormer.Config,
}

__all__ = ["CONNECTORS", "MlpConnector", "Stc", "TemporalQFormer"]
