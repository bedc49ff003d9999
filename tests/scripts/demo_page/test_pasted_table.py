import re

import numpy as np
import pytest

from scripts.demo_page.pasted_table import MAX_COLUMNS, MAX_ROWS, ask, read_table


NAMES = ["age", "ward", "cost"]
ROWS = [
    ["31", "a", "2.5"],
    ["47", "b", "1e3"],
    ["", "b", "-7"],
    ["62", "a, c", "3"],
    ["55", "a", "9"],
    ["38", "b", "4"],
]


def written(rows, delimiter="\t", names=NAMES):
    lines = [delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in row) for row in [names, *rows]]
    return "\n".join(lines)


@pytest.mark.parametrize("delimiter", ["\t", ";", ","])
@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n", "\n;;\n"])
def test_what_separates_cells_and_ends_a_table_changes_nothing(delimiter, end):
    table = read_table(written(ROWS, delimiter) + end.replace(";", delimiter))
    assert list(table.columns) == NAMES
    assert table.replace({None: ""}).to_numpy().tolist() == ROWS


def test_cells_may_be_written_with_spaces_and_gaps_in_many_ways():
    gaps = [["1", gap, " x "] for gap in ("", " ", "?", "NA", "n/a", "NaN", "null")]
    table = read_table(written(gaps, ",", [" one", "two ", "three"]))
    assert list(table.columns) == ["one", "two", "three"]
    assert table["two"].isna().all()
    assert set(table["three"]) == {"x"}


def test_rows_with_an_empty_cell_are_asked_and_their_numbers_are_those_of_the_table():
    rows = [row if number not in (1, 4) else [*row[:2], ""] for number, row in enumerate(ROWS)]
    question = ask(read_table(written(rows)), "cost")
    assert question.rows == [2, 5]
    assert question.truth is None
    assert question.ys == [2.5, -7, 3, 4]
    assert list(question.asked["age"]) == [47, 55]
    assert list(question.known["ward"]) == ["a", "b", "a, c", "b"]
    assert np.isnan(question.known["age"].iloc[1])


@pytest.mark.parametrize(("n_rows", "n_asked"), [(6, 1), (16, 2), (40, 5), (200, 5)])
def test_where_none_is_empty_the_last_rows_are_held_out(n_rows, n_asked):
    rows = [[str(number), "ab"[number % 2], str(number % 7)] for number in range(n_rows)]
    question = ask(read_table(written(rows)), "ward")
    assert question.rows == list(range(n_rows - n_asked + 1, n_rows + 1))
    assert question.truth == [row[1] for row in rows[-n_asked:]]
    assert len(question.ys) == n_rows - n_asked


@pytest.mark.parametrize(
    ("cells", "objective"),
    [
        (["1", "2.5", "-3e4", "1", "2", "2"], "regression"),
        (["1", "0", "0", "1", "0", "1"], "classification"),
        (["1", "2", "3", "4", "x", "5"], "classification"),
        (["True", "False", "True", "False", "True", "False"], "classification"),
        (["a", "b", "c", "a", "b", "c"], "classification"),
    ],
)
def test_numbers_of_more_than_two_values_are_predicted_as_a_number(cells, objective):
    rows = [[*row[:2], cell] for row, cell in zip(ROWS, cells, strict=True)]
    question = ask(read_table(written(rows)), "cost")
    assert question.objective == objective
    kind = float if objective == "regression" else str
    assert question.ys == list(map(kind, cells[:5]))


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", "a", "Paste a table first"),
        (" \n\t\n", "a", "Paste a table first"),
        (None, "a", "Paste a table first"),
        (["a"], "a", "Paste a table first"),
        (",,\n,,", "a", "Paste a table first"),
        ("a\n1\n2", "a", "must have 2 to 40 columns, .*, got 1"),
        (written([], ",", [f"x{i}" for i in range(MAX_COLUMNS + 1)]), "x1", "must have 2 to 40 columns, .*, got 41"),
        ("31,a,2\n47,b,3", "a", "must name the columns, and '31' is a number"),
        ("a,,c\n1,2,3", "a", "column 2 has no name"),
        ("a,b,a\n1,2,3", "a", "two are called 'a'"),
        ("a,b\n1,2\n\n3", "a", "must have 2 cells, as the first row has names: row 2 below it has 1"),
        ("a,b\n1,2,3", "a", "row 1 below it has 3"),
        ('a,b\n1,"2\n3,4', "a", "no table that can be read, a quotation mark may be missing"),
        (written([["1", "2", "3"]] * (MAX_ROWS + 1)), "age", "up to 300 rows, got 301"),
        (written(ROWS), "sex", "must be one that the first row names, got 'sex'"),
        (written(ROWS), None, "must be one that the first row names, got None"),
        (written(ROWS), ["age"], "must be one that the first row names, got"),
        (written([]), "age", "At least 4 rows beside those asked must have a cell in 'age', got"),
        (written(ROWS[:4]), "cost", "At least 4 rows .* got 3"),
        (written([["1", "a", ""]] * 9), "cost", "At least 4 rows .* got 0"),
        (written([*ROWS, ["1", "a", "1e999"]]), "cost", "must hold numbers up to 1e.100, got inf in 'cost'"),
        (written([["1", "a", "3"]] * 9), "ward", "nothing to tell: 'ward' is 'a' in every row"),
        (written([["1", "a", "3"]] * 9), "cost", "nothing to tell: 'cost' is '3' in every row"),
    ],
)
def test_what_is_no_table_or_asks_nothing_is_refused_in_one_sentence(text, target, message):
    with pytest.raises(ValueError, match=r"^[^\n]*[.]$") as refused:
        ask(read_table(text), target)
    assert re.search(message, str(refused.value))
