"""The model: configuration, one model class native to `transformers`, prompts and the processor."""

from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.processing_auto import AutoProcessor

from avllm.model.configuration import AvllmConfig, System
from avllm.model.modeling import AvllmForConditionalGeneration, Branch, StoredEnd
from avllm.model.processing import AvllmProcessor, Loaded
from avllm.model.prompts import CAPTION_REQUESTS, PROMPTS, Form, Medium, Prompt, Turn

AutoConfig.register("avllm", AvllmConfig)
AutoModelForCausalLM.register(AvllmConfig, AvllmForConditionalGeneration)
AutoModelForImageTextToText.register(AvllmConfig, AvllmForConditionalGeneration)
AutoProcessor.register(AvllmConfig, AvllmProcessor)

__all__ = [
    "CAPTION_REQUESTS",
    "PROMPTS",
    "AvllmConfig",
    "AvllmForConditionalGeneration",
    "AvllmProcessor",
    "Branch",
    "Form",
    "Loaded",
    "Medium",
    "Prompt",
    "StoredEnd",
    "System",
    "Turn",
]
