"""No way in without a row: a new argument of a command, a new public name or reader of data fails here first."""

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest

from avllm import cli
from avllm.data import DATASETS
from avllm.evaluation.readers import READERS
from avllm.nano.benchmark import READERS as NANO_READERS
from avllm.nano.data import DATASETS as NANO_DATASETS
from tests.entry_points import media, texts, weights

# What an argument of a command takes that is neither a number nor a choice nor a flag.
ARGUMENTS = {
    "media": {"ask media", "chat media", "probe file"},
    "rows": {"run source", "data check file", "data preview file", "nano score --from", "compare runs"},
    "weights": {
        *("ask --model", "chat --model", "run --model", "demo --model", "nano score --model"),
        *("data check --model", "data preview --model", "merge adapter", "inspect sources"),
        *("convert sources", "convert --decoder", "convert --base"),
    },
    "settings": {
        *("demo --cfg-path", "demo --options", "plan model", "plan overrides", "eval benchmark", "eval overrides"),
        *("train stage", "train overrides", "features stage", "features overrides"),
        *("data check overrides", "data preview overrides"),
    },
    "written": {
        *("run target", "convert --out", "merge --out", "data check --histogram", "data preview --out"),
        *("features --out", "nano sample dir", "nano build --out", "compare --out"),
    },
    "place or text": {
        *("run --media-root", "data check --media-root", "data preview --media-root", "ask questions"),
        *("chat --system", "demo --host", "convert --system", "inspect --system"),
        *("data check --ignore", "data preview --ignore", "demo --allow-host"),
    },
}
# Arguments that are no way in of their own: with them another argument of the table is read.
SAME = {
    "convert --decoder": "convert sources",
    "convert --base": "convert sources",
    "nano score --from": "run source",  # media as a run reads them, and a truth that nano itself wrote
    "compare runs": "eval benchmark",  # what eval wrote
    **dict.fromkeys(("demo --options", "plan overrides", "eval overrides", "train overrides"), "plan model"),
    **dict.fromkeys(("features overrides", "data check overrides", "data preview overrides"), "plan model"),
}
TRIED = {
    "media": {entry.name for entry in media.ENTRIES},
    "rows": {entry.name for entry in texts.ROWS},
    "weights": {entry.name for entry in weights.ENTRIES},
    "settings": {entry.name for entry in texts.SETTINGS},
}
# Public names that are tried, or that only lead to one that is; all others of these modules take plain values.
LEAD = {
    "avllm": {"load", "Assistant", "Session", "AvllmProcessor", "AvllmForConditionalGeneration", "AvllmConfig"},
    "avllm.media": {"resolve", "probe", "content_key", "open_video", "open_image", "open_audio"},
}
# Readers that open a file themselves, and what bounds them.
READ = {
    "avllm.data.webdataset": "tars, by the sizes that their heads state",
    "avllm.data.webvid": "CSV, by the longest cell of the csv module",
    "avllm.nano.benchmark": "what nano drew and wrote itself",
}
PLAIN = {
    "avllm": {
        "AvllmError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "MediaError",
        "NoAudioStream",
        "NumericError",
    }
    | {"Reply"},
    "avllm.media": {
        "Audio",
        "CropOffset",
        "FbankConfig",
        "Fit",
        "Limits",
        "MediaInfo",
        "MediaSource",
        "Resample",
        "Resize",
    }
    | {"Sampling", "SegmentConfig", "Source", "Video", "audio_segments", "crop_and_resize", "fbank_of", "fit_picture"}
    | {"heard_spans", "log_mel", "read_ahead", "resample", "time_message", "to_pixels", "write_audio", "write_video"},
}


def arguments(parser: argparse.ArgumentParser, command: str = "") -> Iterator[str]:
    """The arguments of all commands whose values are texts."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, found in action.choices.items():
                yield from arguments(found, f"{command} {name}".strip())
        elif action.nargs != 0 and action.choices is None and not _is_number(action):
            yield f"{command} {action.option_strings[-1] if action.option_strings else action.dest}"


def _is_number(action: argparse.Action) -> bool:
    try:
        return not isinstance(action.type, type(None)) and isinstance(action.type("1"), int | float)  # type: ignore[misc, operator]
    except (TypeError, ValueError):
        return False


def test_every_argument_of_every_command_has_a_row():
    listed = [name for names in ARGUMENTS.values() for name in names]

    assert len(listed) == len(set(listed))
    assert set(arguments(cli._parser())) == set(listed)


@pytest.mark.parametrize("kind", TRIED)
def test_every_argument_that_takes_something_goes_through_its_limits(kind):
    tried = TRIED[kind] | {name for names in TRIED.values() for name in names if name in SAME.values()}

    assert {SAME.get(name, name) for name in ARGUMENTS[kind]} <= tried


@pytest.mark.parametrize("module", LEAD)
def test_every_public_name_is_known_here(module):
    assert LEAD[module] | PLAIN[module] == set(importlib.import_module(module).__all__)


def test_readers_of_data_open_texts_through_the_bounded_functions_alone():
    kinds = {**DATASETS, **NANO_DATASETS, **READERS, **NANO_READERS}.values()
    ways = re.compile(r"(?<!\w)(open|read_text|read_bytes|json\.load)\(")
    opening = {kind.__module__ for kind in kinds if ways.search(inspect.getsource(inspect.getmodule(kind)))}  # type: ignore[arg-type]

    assert opening <= set(READ)
