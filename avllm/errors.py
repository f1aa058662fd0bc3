"""The errors that a user can cause. Each message says what was expected, what came, and what to do."""


class AvllmError(ValueError):
    """Base of every error that avllm raises on purpose; the command line prints it as one line."""


class MediaError(AvllmError):
    """A medium cannot be read: broken, empty, of an unknown kind, or over a limit."""


class NoAudioStream(MediaError):
    """The file is sound but holds no audio track: the one case that is normal."""


class ConfigError(AvllmError):
    """A YAML or an override is wrong; the message names the full key path."""


class CheckpointError(AvllmError):
    """Weights are missing, left over, of another shape, or not what they claim to be; the key is named."""


class DataError(AvllmError):
    """A record of a data set is wrong; the message names file, line and key."""


class NumericError(AvllmError):
    """A loss or a logit is not finite."""


class OutOfMemory(AvllmError):
    """A device has too little memory; the message names settings that would fit."""


def was_raised_in(error: BaseException, package: str) -> bool:
    """Whether the innermost code that raised belongs to a package; a wrong call of the package by us does not."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.partition(".")[0] == package
