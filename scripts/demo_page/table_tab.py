"""The tab of tables: answers to the rows of a pasted table that settle loop by loop."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from sklearn.datasets import load_iris

from scripts.common.model_loading import load_model
from scripts.demo_page.fields import read_number
from scripts.demo_page.figures import pixels
from scripts.demo_page.pasted_table import MAX_COLUMNS, MAX_ROWS, ask, objective_of, read_table
from scripts.demo_page.shown_model import LOOPS_SHOWN, ShownModel
from scripts.demo_page.tab import LAST, PICTURE, Tab, refusing
from scripts.demo_page.table_answers import ANSWERS, TableAnswers
from scripts.evaluation.evaluated_task import build_task
from tasks import TablePrior
from tasks.tables.common import TableTask


WORDS = {"classification": "classes", "regression": "numbers"}
EXPLANATION = (
    f"Paste a table from a spreadsheet, names in the first row; up to {MAX_ROWS} rows and {MAX_COLUMNS} columns. Rows "
    "whose cell in the column to predict is empty are asked; where none is, the last few rows are held out, and their "
    "truth is shown beside the answers. A column of text, or of two values, is of classes; one of more numbers is "
    "predicted as a number. Nothing is trained: the model reads the rows that are known."
)


class TableTab(Tab):
    """
    The tab and its answers to a visitor's actions; a table that is none is refused with a sentence.

    Args:
        models (`Sequence[ShownModel]`):
            One that tells classes, one that predicts numbers, or both.

    Raises:
        `ValueError`: there are two of a kind, or a model cannot be loaded or has no quantiles.
    """

    label = "Your table"
    tasks = (TablePrior, TableTask)
    task_kind = "tables"

    def __init__(self, models: Sequence[ShownModel]):
        names, self.models = {}, {}
        for shown in models:
            objective = build_task(shown.task_name, shown.settings).objective
            if objective in names:
                raise ValueError(
                    f"`--model` must name one model of tables for {WORDS[objective]} at most, got {names[objective]} "
                    f"and {shown.name}."
                )
            answers = ANSWERS[objective]
            model = load_model(shown.name, answers.estimator_class.model_class)
            answers.check_model(shown.name, model)
            names[objective], self.models[objective] = shown.name, model
        self.title = "; ".join(f"`{name}` for {WORDS[objective]}" for objective, name in names.items())
        self.n_loops = max(model.config.n_loops for model in self.models.values())
        self.most_loops = LOOPS_SHOWN * self.n_loops

    @refusing
    def answer_table(self, text: Any, column: Any):
        """Return the columns to choose from, the last that there is a model for by default, and the answers."""
        table = read_table(text)
        if column not in list(table.columns):
            answered = [name for name in table.columns if objective_of(table[name]) in self.models]
            column = (answered or list(table.columns))[-1]
        question = ask(table, column)
        if question.objective not in self.models:
            there = " and ".join(WORDS[objective] for objective in self.models)
            raise ValueError(
                f"{column!r:.40} is a column of {WORDS[question.objective]}, and this page has a model of {there} "
                "alone: predict another column."
            )
        answers = ANSWERS[question.objective].of(self.models[question.objective], question)
        return gr.Dropdown(list(table.columns), value=column), answers

    @refusing
    def show_table(self, answers: TableAnswers | None, loops: Any):
        """Return the picture, the sentence below it and the table of answers."""
        if answers is None:  # the page is still loading
            return gr.skip()
        count = read_number("Loops", loops, 1, self.most_loops, whole=True)
        count = min(count, len(answers.by_loop))  # of two models one may have fewer
        table = gr.Dataframe(answers.table(count), headers=answers.table_headers())
        return pixels(answers.plot(count)), answers.describe(count), table

    def build(self, page: gr.Blocks):
        """Lay the tab out on `page`."""
        gr.Markdown(f"Answered by {self.title}. {EXPLANATION}")
        answers = gr.State()
        with gr.Row():
            with gr.Column(min_width=340):
                text = gr.Textbox(example_table(), lines=8, max_lines=12, label="Table")
                button = gr.Button("Answer the table", variant="primary")
                column = gr.Dropdown([], label="Column to predict")
                loops = gr.Slider(1, self.most_loops, value=self.n_loops, step=1, label="Loops of the answers")
            with gr.Column(min_width=340):
                drawn = [gr.Image(alt_text="answers by loop", **PICTURE), gr.Markdown()]
                drawn.append(gr.Dataframe(label="Answers", interactive=False, datatype="str", max_height=300))
        gr.on([button.click, page.load, column.input], self.answer_table, [text, column], [column, answers], **LAST)
        gr.on([answers.change, loops.change], self.show_table, [answers, loops], drawn, show_progress="hidden", **LAST)


def example_table() -> str:
    """Thirty irises with their species, as comma-separated values."""
    irises = load_iris(as_frame=True)
    names = irises.target_names[irises.target]
    table = irises.data.assign(species=names)
    # in steps that go through the three species in turns
    return table.iloc[np.arange(30) * 37 % len(table)].to_csv(index=False)
