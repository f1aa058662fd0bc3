"""The first thing `make demo` does: one example clip, answered in the terminal."""

import time

from rich.console import Console

from avllm.demo.examples import Example
from avllm.demo.model import DemoModel
from avllm.demo.settings import Settings


def answer_example(model: DemoModel, example: Example, console: Console) -> list[str]:
    """Asks the questions of an example and prints question, answer, truth and seconds.

    Returns:
        The answers.
    """
    medium = model.inspect(example.path, example.title)
    console.print(f"{example.path.name}: {medium.facts()}")
    session, answers = model.new_session(), []
    settings = Settings.default(model.config)
    for number, (question, truth) in enumerate(zip(example.questions, example.answers, strict=True)):
        start = time.perf_counter()
        answer = "".join(model.stream(session, question, settings, [medium] if number == 0 else [])).strip()
        seconds = time.perf_counter() - start
        answers.append(answer)
        console.print(f"  question  {question}\n  answer    {answer}\n  truth     {truth}\n  seconds   {seconds:.2f}\n")
    return answers
