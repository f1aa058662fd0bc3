"""Connectors: from an encoder's tokens to the decoder's, `[b t p d] -> [b m d_llm]`."""

from avllm.connectors.temporal_qformer import TemporalQFormer

CONNECTORS = {"temporal_qformer": TemporalQFormer.Config}

__all__ = ["CONNECTORS", "TemporalQFormer"]
