"""MVBench (arXiv:2311.17005): 20 tasks of multiple choice, in the layout in which it is published.

Below the folder: `json/action_sequence.json`, ... and `video/star/Charades_v1_480/ABC12.mp4`, ...; each task's videos
lie in the folder of the data set that they come from. Episodic Reasoning has folders of frames at 3 frames per second.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avllm.data.annotations import entries, member, read_json, text
from avllm.errors import DataError
from avllm.evaluation.sample import Sample

FRAMES_PER_SECOND = 3.0  # of the folders of frames


@dataclass(frozen=True)
class Task:
    """One of the 20.

    Args:
        name: as the paper writes it.
        folder: of its media.
        has_part: each question is about a part of its video.
        has_frames: its media are folders of frames.
    """

    name: str
    folder: str
    has_part: bool = False
    has_frames: bool = False

    @property
    def file(self) -> str:
        """Name of its annotations."""
        return self.name.lower().replace(" ", "_").replace("-", "_") + ".json"


TASKS = (
    Task("Action Sequence", "star/Charades_v1_480", has_part=True),
    Task("Action Prediction", "star/Charades_v1_480", has_part=True),
    Task("Action Antonym", "ssv2_video"),
    Task("Fine-grained Action", "Moments_in_Time_Raw/videos"),
    Task("Unexpected Action", "FunQA_test/test"),
    Task("Object Existence", "clevrer/video_validation"),
    Task("Object Interaction", "star/Charades_v1_480", has_part=True),
    Task("Object Shuffle", "perception/videos"),
    Task("Moving Direction", "clevrer/video_validation"),
    Task("Action Localization", "sta/sta_video", has_part=True),
    Task("Scene Transition", "scene_qa/video"),
    Task("Action Count", "perception/videos"),
    Task("Moving Count", "clevrer/video_validation"),
    Task("Moving Attribute", "clevrer/video_validation"),
    Task("State Change", "perception/videos"),
    Task("Fine-grained Pose", "nturgbd"),
    Task("Character Order", "perception/videos"),
    Task("Egocentric Navigation", "vlnqa"),
    Task("Episodic Reasoning", "tvqa/frames_fps3_hq", has_part=True, has_frames=True),
    Task("Counterfactual Inference", "clevrer/video_validation"),
)


@dataclass(frozen=True, kw_only=True)
class MVBench:
    """Reader of MVBench.

    Args:
        folder: holds `json` and `video`.
        tasks: names of the tasks to take; all 20 when empty.
    """

    folder: str
    tasks: tuple[str, ...] = ()

    def samples(self) -> Iterator[Sample]:
        """The samples, task by task.

        Raises:
            DataError: a task is unknown, or an entry is wrong; file, index and key are named.
        """
        known = {task.name: task for task in TASKS}
        for name in self.tasks or known:
            if name not in known:
                raise DataError(f"data.tasks: {name!r} is unknown, known are: {', '.join(known)}")
            path = Path(self.folder) / "json" / known[name].file
            for index, entry in enumerate(entries(read_json(path), str(path))):
                yield self._sample(known[name], entry, f"{path}[{index}]", index)

    def _sample(self, task: Task, entry: object, where: str, index: int) -> Sample:
        options = tuple(map(str, entries(member(entry, "candidates", where), f"{where}.candidates")))
        answer = str(member(entry, "answer", where))
        if answer not in options:
            raise DataError(f"{where}.answer: {answer!r} is none of the candidates {list(options)}")
        media = Path(self.folder) / "video" / task.folder / text(entry, "video", where)
        bound = _bound(entry, where) if task.has_part else None
        if task.has_frames and bound is not None:
            count = sum(1 for _ in media.glob("*.jpg")) if os.path.isdir(media) else 0
            count = max(1, count)
            first, last = part(bound, fps=FRAMES_PER_SECOND, first=1, last=count)
            bound = ((first - 1) / FRAMES_PER_SECOND, last / FRAMES_PER_SECOND)
        return Sample(
            id=f"{task.file.removesuffix('.json')}/{index}",
            question=text(entry, "question", where),
            media={"video": media},
            options=options,
            truth=options.index(answer),
            category=task.name,
            start_s=bound[0] if bound else None,
            end_s=bound[1] if bound else None,
            source_fps=FRAMES_PER_SECOND if task.has_frames else None,
        )


def part(bound: tuple[float, float] | None, *, fps: float, first: int, last: int) -> tuple[int, int]:
    """First and last frame of a part of a video, as MVBench's evaluation rounds its ends.

    Args:
        bound: start and end in seconds; None is the whole video.
        fps: frames per second.
        first: index of the video's first frame; 1 in folders of frames.
        last: index of its last frame.
    """
    if bound is None:
        return first, last
    return max(first, round(bound[0] * fps)), min(round(bound[1] * fps), last)


def _bound(entry: object, where: str) -> tuple[float, float]:
    start, end = member(entry, "start", where), member(entry, "end", where)
    if not isinstance(start, int | float) or not isinstance(end, int | float) or not 0 <= start < end:
        raise DataError(f"{where}: expected 0 <= start < end in seconds, got {start!r} and {end!r}")
    return float(start), float(end)
