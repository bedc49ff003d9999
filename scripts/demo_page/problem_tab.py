"""The tab of problems: an answer that settles loop by loop, and the loop in which the model knows it."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from scripts.demo_page.fields import read_number
from scripts.demo_page.figures import pixels
from scripts.demo_page.problems import Solver, solve
from scripts.demo_page.shown_model import ShownModel
from scripts.demo_page.tab import LAST, PICTURE, Tab, refusing
from tasks.sequences.common import SequenceTask


EXPLANATION = (
    "A model that takes one step of a problem in each loop solves longer problems by looping longer. Type one; the "
    "picture shows how sure the model is of each right symbol after every loop, the first one red and the last one "
    "yellow, the loops that the problem needs, and where the model, which is not told them, stops because it is sure. "
    "In an answer, _ is a place that it leaves empty."
)
LEAST_SURE, MOST_SURE = 0.5, 0.99


class ProblemTab(Tab):
    """
    The tab and its answers to a visitor's actions; what is no problem is refused with a sentence.

    Args:
        models (`Sequence[ShownModel]`):
            Models of sequence tasks.

    Raises:
        `ValueError`: a model cannot be loaded, or is not of its task.
    """

    label = "A problem"
    tasks = (SequenceTask,)
    task_kind = "problems in symbols"

    def __init__(self, models: Sequence[ShownModel]):
        self.solvers = {shown.name: Solver.load(shown) for shown in models}

    @refusing
    def choose_model(self, name: Any):
        """Return what may be asked of a model, and a problem for it."""
        solver = self._solver(name)
        return solver.describe(), solver.example()

    @refusing
    def solve_problem(self, name: Any, problem: Any, confidence: Any):
        """Return the picture, the sentence below it and the table of answers."""
        confidence = read_number("Sure enough", confidence, LEAST_SURE, MOST_SURE)
        solution = solve(self._solver(name), problem if isinstance(problem, str) else "", confidence)
        return pixels(solution.plot()), solution.describe(), solution.table()

    def _solver(self, name: Any) -> Solver:
        if name not in list(self.solvers):
            raise ValueError(f"Model must be one of {', '.join(self.solvers)}, got {name!r:.40}.")
        return self.solvers[name]

    def build(self, page: gr.Blocks):
        """Lay the tab out on `page`."""
        names = list(self.solvers)
        gr.Markdown(EXPLANATION)
        with gr.Row():
            with gr.Column(min_width=340):
                name = gr.Radio(names, value=names[0], label="Model")
                note = gr.Markdown(self.solvers[names[0]].describe())
                problem = gr.Textbox(self.solvers[names[0]].example(), lines=1, max_lines=4, label="Problem")
                confidence = gr.Slider(LEAST_SURE, MOST_SURE, value=0.9, step=0.01, label="Sure enough to stop")
                button = gr.Button("Solve", variant="primary")
            with gr.Column(min_width=340):
                drawn = [gr.Image(alt_text="probabilities by loop", **PICTURE), gr.Markdown()]
                headers = ["loop", "answer", "probability"]
                drawn.append(gr.Dataframe(headers=headers, interactive=False, datatype="str", max_height=300))
        fields = [name, problem, confidence]
        asked = [button.click, problem.submit, confidence.release, page.load]
        gr.on(asked, self.solve_problem, fields, drawn, **LAST)
        chosen = name.input(self.choose_model, name, [note, problem], **LAST)
        chosen.success(self.solve_problem, fields, drawn, preprocess=False)
