"""Connectors: from an encoder's tokens to the decoder's, `[b t p d] -> [b m d_llm]`."""

from avllm.connectors.mlp import MlpConnector
from avllm.connectors.qformer_projection import QFormerProjection
from avllm.connectors.stc import Stc
from avllm.connectors.temporal_qformer import TemporalQFormer

CONNECTORS = {
    "mlp": MlpConnector.Config,
    "qformer": QFormerProjection.Config,
    "stc": Stc.Config,
    "temporal_qformer": TemporalQFormer.Config,
}

__all__ = ["CONNECTORS", "MlpConnector", "QFormerProjection", "Stc", "TemporalQFormer"]
