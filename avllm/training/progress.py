"""What a run shows and leaves behind: a progress bar, `log.csv`, and the learning curve as a picture."""

import csv
import io
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from avllm.durable import append_line, file_whole, write_whole

logger = logging.getLogger(__name__)
HELD_OUT = "held_out_loss"
COLUMNS: tuple[str, ...] = ("step", "loss", "lr", "samples_per_second", "unreadable", HELD_OUT)


class CsvLog(TrainerCallback):
    """Writes a row of `log.csv` at each logged step and for each loss on held-out data, and the bar beside it.

    Args:
        path: the file; rows after the step that a run goes on from are taken out.
        start: step that the run goes on from, 0 for a new one.
        samples_per_step: over all processes.
        name: of the stage, for the bar.
    """

    def __init__(self, path: Path, *, start: int, samples_per_step: int, name: str) -> None:
        self.path, self.start, self.samples_per_step, self.name = path, start, samples_per_step, name
        self.unreadable: Sequence[Any] = ()  # the trainer puts its list here
        self._bar: tqdm | None = None
        self._last = (0.0, start)
        self._shown: dict[str, Any] = {}

    def on_train_begin(self, args, state, control, **rest: Any) -> None:
        if not state.is_world_process_zero:
            return
        rows = [row for row in read_log(self.path) if row["step"] <= self.start] if self.start else []
        write_whole(self.path, _csv(rows, header=True))
        self._last = (time.monotonic(), state.global_step)
        # None: no bar when the output is no terminal; the rows of the log say the same.
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.name, unit="step", disable=None, smoothing=0.1
        )

    def on_step_end(self, args, state, control, **rest: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args, state, control, logs: dict[str, float] | None = None, **rest: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if HELD_OUT in logs:
            self._write({"step": state.global_step, HELD_OUT: logs[HELD_OUT]})
            self._shown[HELD_OUT] = f"{logs[HELD_OUT]:.3f}"
        if "loss" not in logs:
            return
        now = time.monotonic()
        seconds, steps = now - self._last[0], state.global_step - self._last[1]
        self._last = (now, state.global_step)
        row = {
            "step": state.global_step,
            "loss": logs["loss"],
            "lr": logs["learning_rate"],
            "samples_per_second": round(steps * self.samples_per_step / max(seconds, 1e-9), 2),
            "unreadable": len(self.unreadable),
        }
        self._write(row)
        if self._bar is not None:
            self._shown |= {"loss": f"{row['loss']:.3f}", "samples_s": row["samples_per_second"]}
            self._bar.set_postfix(self._shown)
        left = tqdm.format_interval((state.max_steps - state.global_step) * seconds / max(steps, 1))
        place = f"{self.name}: step {state.global_step} of {state.max_steps}"
        logger.info("%s, loss %.4f, %s samples/s, %s left", place, row["loss"], row["samples_per_second"], left)

    def _write(self, row: dict[str, Any]) -> None:
        append_line(self.path, _csv([row]).removesuffix("\n"))

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def read_log(path: Path) -> list[dict[str, float]]:
    """Rows of a `log.csv`, each with the values it has; a last row that a crash cut short is left out."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    rows = csv.DictReader(io.StringIO(whole))
    return [{name: float(value) for name, value in row.items() if name and value} for row in rows]


def draw_curve(log: Path, picture: Path, *, title: str) -> bool:
    """Draws loss, loss on held-out data and learning rate over the steps.

    Returns:
        Whether it was drawn: matplotlib is not required.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows = [row for row in read_log(log) if "loss" in row]
    seen = [row for row in read_log(log) if HELD_OUT in row]
    if not rows:
        return False
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    loss = figure.subplots()
    loss.plot(steps, [row["loss"] for row in rows], color="#b8c4d6", linewidth=1, label="loss")
    loss.plot(steps, _smooth([row["loss"] for row in rows]), color="#1f4e8c", linewidth=2, label="running mean")
    if seen:
        found = [row[HELD_OUT] for row in seen]
        loss.plot([row["step"] for row in seen], found, color="#2a7f4f", marker="o", markersize=3, label="held out")
    loss.set(xlabel="step", ylabel="loss", title=title)
    loss.grid(alpha=0.3)
    rate = loss.twinx()
    rate.plot(steps, [row["lr"] for row in rows], color="#c77b30", linewidth=1, linestyle="--")
    rate.set_ylabel("learning rate", color="#c77b30")
    rate.set_ylim(bottom=0)
    loss.legend(loc="upper right")
    with file_whole(picture) as unfinished:
        figure.savefig(unfinished, dpi=110, format=picture.suffix[1:])
    return True


def _smooth(values: list[float]) -> list[float]:
    keep = 1 - 1 / max(1.0, len(values) / 20)
    mean, result = math.nan, []
    for value in values:
        mean = value if math.isnan(mean) else keep * mean + (1 - keep) * value
        result.append(mean)
    return result


def _csv(rows: list[dict[str, Any]], *, header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    if header:
        writer.writeheader()
    for row in rows:
        counts = {name: int(row[name]) for name in ("step", "unreadable") if name in row}
        writer.writerow({**row, **counts})
    return text.getvalue()
