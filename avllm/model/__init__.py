"""The model: configuration, one model class native to `transformers`, prompts and the processor."""

from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM, AutoModelForImageTextToText

from avllm.model.configuration import AvllmConfig, System
from avllm.model.modeling import AvllmForConditionalGeneration, Branch

AutoConfig.register("avllm", AvllmConfig)
AutoModelForCausalLM.register(AvllmConfig, AvllmForConditionalGeneration)
AutoModelForImageTextToText.register(AvllmConfig, AvllmForConditionalGeneration)

__all__ = ["AvllmConfig", "AvllmForConditionalGeneration", "Branch", "System"]
