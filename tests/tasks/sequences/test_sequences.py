"""Questions in symbols beside a solution of each by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tasks import make_task
from tasks.curriculum import Schedule
from tasks.sequences.group_words import elements_of
from tasks.streams import RowLoops, Stream


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def added(first, second):
    """The digits of a sum, least significant first."""
    total = int("".join(first)[::-1]) + int("".join(second)[::-1])
    return [*str(total).zfill(len(first) + 1)[::-1]]


def split(question, separator):
    place = question.index(separator)
    return question[:place], question[place + 1 :]


def solved_addition(question):
    return added(*split(question, "+"))


def solved_bits(question):
    return [*bin(question.count("1"))[2:].zfill(len(bin(len(question))) - 2)[::-1]]


def solved_set(question):
    letters = [*dict.fromkeys(question)]
    return letters + ["_"] * (len(question) - len(letters))


def solved_words(question):
    product, answers = (0, 1, 2, 3, 4), []
    for symbol in question:
        element = [int(place) - 1 for place in symbol]
        product = tuple(element[place] for place in product)
        answers.append("".join(str(place + 1) for place in product))
    return answers


def solved_hops(question):
    hops = question.count(">")
    text = question[:-hops]
    place = len(text) - 1
    for _ in range(hops):
        before = [i for i in range(place) if text[i] == text[place]]
        place = before[-1] + 1 if before else place
    return [text[place]]


def distance(first, second):
    if not first or not second:
        return len(first) + len(second)
    changed = distance(first[1:], second[1:]) + (first[0] != second[0])
    return min(changed, 1 + distance(first[1:], second), 1 + distance(first, second[1:]))


def solved_distance(question):
    words = split(question, "/")
    return [*str(distance(*words)).zfill(len(str(len(words[0]))))[::-1]]


SOLVED = {
    "parity": lambda question: [str(question.count("1") % 2)],
    "copy": lambda question: question,
    "addition": solved_addition,
    "sum_of_bits": solved_bits,
    "unique_set": solved_set,
    "group_words": solved_words,
    "p_hop": solved_hops,
    "modular_sum": lambda question: [str(sum(map(int, question)) % 1000)],
    "edit_distance": solved_distance,
}
SETTINGS = {
    "addition": [{}, {"base": 2}],
    "sum_of_bits": [{}, {"even_counts": True}],
    "unique_set": [{"n_letters": 5}, {"n_letters": 5, "even_sets": True}],
    "group_words": [{}, {"group": "S5"}],
    "p_hop": [{"n_text": 12, "n_letters": 3}],
    "edit_distance": [{"n_letters": 3, "max_length": 5}],
}
CASES = [(name, own) for name in SOLVED for own in SETTINGS.get(name, [{}]) if own.get("base") != 2]


def rows_of(task, prompts):
    """The question and the answer of every row, as symbols."""
    written = (*task.symbols, "_")
    for ids, labels, mask in zip(*(prompts[name] for name in ("input_ids", "labels", "attention_mask")), strict=True):
        shown = ids[mask == 1].tolist()
        answer = labels[labels != -100].tolist()
        n_slots = 0 if task.name == "group_words" else len(answer)
        assert shown[len(shown) - n_slots :] == [task.slot] * n_slots
        yield [written[token] for token in shown[: len(shown) - n_slots]], [written[token] for token in answer]
        assert (labels[mask == 0] == -100).all()
        assert (mask.diff() <= 0).all()


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_answers_are_those_of_a_solution_by_hand(name, settings):
    task = make_task(name, **({"max_length": 7} | settings))
    prompts = task.sample(60, make_generator())
    n_tokens = task.n_tokens(**task.sizes)
    assert all(column.shape == (60, n_tokens) and column.dtype == torch.long for column in prompts.values())
    assert prompts["input_ids"].min() >= 0
    assert prompts["input_ids"].max() == task.slot == task.model_fields["vocab_size"] - 1
    for question, answer in rows_of(task, prompts):
        assert answer == SOLVED[name](question)
    questions = {tuple(question) for question, _ in rows_of(task, prompts)}
    assert len(questions) > 20
    lengths = task.lengths(task.questions(prompts))
    assert set(lengths.tolist()) == set(range(1, task.max_length + 1))


def test_sums_in_another_base_carry_too():
    task = make_task("addition", base=2, max_length=6)
    for question, answer in rows_of(task, task.sample(50, make_generator())):
        numbers = [int("".join(digits)[::-1], 2) for digits in split(question, "+")]
        assert int("".join(answer)[::-1], 2) == sum(numbers)


@pytest.mark.parametrize("name", SOLVED)
def test_the_generator_decides_all_and_lengths_follow_schedules(name):
    task = make_task(name, max_length=6)
    first, second = (task.sample(5, make_generator()) for _ in range(2))
    assert all(torch.equal(first[column], second[column]) for column in first)
    assert not torch.equal(first["input_ids"], task.sample(5, make_generator(1))["input_ids"])
    stream = Stream(task, 40, {"max_length": Schedule(2, 6, interval=2)}, seed=0)
    batches = [stream.batch(index) for index in (0, 2, 20)]
    assert [task.lengths(task.questions(batch)).max().item() for batch in batches] == [2, 3, 6]
    assert batches[0]["input_ids"].shape == (40, task.n_tokens(max_length=2))


@pytest.mark.parametrize("name", SOLVED)
def test_every_length_is_as_likely_as_another(name):
    task = make_task(name, max_length=6, min_length=3)
    lengths = task.lengths(task.questions(task.sample(1200, make_generator())))
    counts = lengths.bincount(minlength=7).tolist()
    assert counts[:3] == [0, 0, 0]
    assert all(230 < count < 370 for count in counts[3:])


@pytest.mark.parametrize("name", SOLVED)
def test_the_score_asks_for_the_whole_answer_by_length(name):
    task = make_task(name, max_length=5, min_length=2)
    prompts = task.sample(40, make_generator())
    labels = prompts["labels"].numpy()
    lengths = task.lengths(task.questions(prompts)).numpy()
    scores = task.score(labels, prompts)
    assert scores.shape == (40, 4)
    for row, length in zip(scores, lengths, strict=True):
        assert row[length - 2] == 0
        assert np.isnan(np.delete(row, length - 2)).all()
    for row in range(40):  # one wrong symbol of one row
        wrong = labels.copy()
        wrong[row, np.flatnonzero(labels[row] != -100)[-1]] += 1
        assert np.nansum(task.score(wrong, prompts)) == 1
    others = np.where(labels == -100, 1, labels)
    np.testing.assert_array_equal(task.score(others, prompts), scores)


@pytest.mark.parametrize("name", SOLVED)
def test_a_written_question_is_the_prompt_that_is_drawn(name):
    task = make_task(name, max_length=6, **({"n_text": 9} if name == "p_hop" else {}))
    prompts = task.sample(20, make_generator())
    for row, (question, answer) in enumerate(rows_of(task, prompts)):
        space = " " if name in ("group_words", "modular_sum") else ""
        if name == "addition":
            question = [*"+".join("".join(part)[::-1] for part in split(question, "+"))]
        asked = task.ask(space.join(question))
        tokens = asked["input_ids"].masked_fill(asked["input_ids"] == task.slot, -100)[0]
        assert task.write(tokens) == space.join(question)
        length = int(prompts["attention_mask"][row].sum())
        for column, values in asked.items():
            assert torch.equal(values[0], prompts[column][row, :length])
        answer = answer[::-1] if name in ("addition", "edit_distance") else answer
        assert task.say(asked["labels"], asked) == [space.join(answer)]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("parity", "", "a question of parity must have 1 to 8 bits, got 0."),
        ("parity", "0" * 9, "a question of parity must have 1 to 8 bits, got 9."),
        ("parity", "0120", "a question of parity is written in 0 1, got '2' as symbol 3."),
        ("copy", "abx", "a question of copy is written in a ... j, got 'x' as symbol 3."),
        ("addition", "12", "a question of addition must be two numbers with \"+\" between them, got '12'."),
        ("addition", "1+2+3", 'must be two numbers with "+" between them'),
        ("addition", "1-2", "a question of addition is written in 0 ... 9 +, got '-' as symbol 2."),
        ("addition", "123456789+1", "must have 1 to 8 digits, got 9."),
        ("group_words", "12345 21345", "got '21345' as symbol 2."),
        ("group_words", "", "must have 1 to 8 elements, got 0."),
        ("p_hop", "abab>", 'must be 64 letters and a ">" for each hop behind them'),
        ("modular_sum", "12 1000", "is written in 0 ... 999, got '1000' as symbol 2."),
        ("edit_distance", "abc/ab", 'must be two words of one length with "/" between them'),
        ("edit_distance", "ab1/abc", "is written in a ... j /, got '1' as symbol 3."),
        ("edit_distance", "/", "must have 1 to 8 letters, got 0."),
        ("p_hop", "ab" * 31 + "bb>", "a question of p_hop must have no letter beside its like, got 'abab"),
        ("modular_sum", "1" * 99, f"is written in 0 ... 999, got '{'1' * 40}' as symbol 1."),
        ("parity", None, "a question of parity must be text, got None."),
        ("addition", ["1", "+", "2"], "a question of addition must be text, got ['1', '+', '2']."),
    ],
)
def test_what_is_no_question_is_refused_in_one_sentence(name, text, error):
    with pytest.raises(ValueError, match=r"(?s)^.*\.$") as raised:
        make_task(name, max_length=8).ask(text)
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


def test_sums_are_written_as_people_do():
    task = make_task("addition", max_length=8)
    prompts = task.ask("95 + 7")
    assert [task.symbols[token] for token in prompts["input_ids"][0, :5]] == [*"59+70"]
    assert task.say(prompts["labels"], prompts) == ["102"]


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        ("parity", {"max_length": 0}, "`max_length` must be an integer >= 1, got 0"),
        ("parity", {"min_length": 0}, "`min_length` must be an integer >= 1, got 0"),
        ("parity", {"max_length": 3, "min_length": 4}, "`min_length` must be <= `max_length` = 3, got 4"),
        ("parity", {"positions": "sine"}, "`positions` must be one of order, alternate, aligned, got 'sine'"),
        ("parity", {"max_offset": -1, "positions": "aligned"}, "`max_offset` must be an integer >= 0, got -1"),
        ("parity", {"positions": ["order"]}, r"`positions` must be one of order, .*, got \['order'\]"),
        ("parity", {"max_length": 10**30}, f"`max_length` must be <= 1000000, got {10**30}"),
        ("modular_sum", {"modulus": 10**9}, "`modulus` must be <= 1000000, got 1000000000"),
        ("group_words", {"group": ["A5"]}, r"`group` must be one of A5, S5, got \['A5'\]"),
        ("parity", {"max_offset": 3}, "`max_offset` is of positions that are aligned: leave it out, got 3"),
        ("copy", {"n_letters": 53}, "`n_letters` must be <= 52, got 53"),
        ("addition", {"base": 11}, "`base` must be an integer in 2 ... 10, got 11"),
        ("addition", {"gaps": 1}, "`gaps` must be true or false, got 1"),
        ("group_words", {"group": "A6"}, "`group` must be one of A5, S5, got 'A6'"),
        ("p_hop", {"n_letters": 1}, "`n_letters` must be >= 2, got 1"),
        ("unique_set", {"gaps": 1}, "`gaps` must be true or false, got 1"),
        ("sum_of_bits", {"even_counts": 1}, "`even_counts` must be true or false, got 1"),
        ("p_hop", {"every_letter": "no"}, "`every_letter` must be true or false, got 'no'"),
        ("modular_sum", {"modulus": 0}, "`modulus` must be an integer >= 1, got 0"),
        ("edit_distance", {"n_letters": 27}, "`n_letters` must be an integer in 1 ... 26, got 27"),
    ],
)
def test_bad_settings_are_refused(name, settings, error):
    with pytest.raises(ValueError, match=error):
        make_task(name, **settings)


@pytest.mark.parametrize(("max_length", "found"), [(0, "an integer >= 1"), (9, "in 2 ... 8"), (1, "in 2 ... 8")])
def test_sizes_beyond_the_task_are_refused(max_length, found):
    with pytest.raises(ValueError, match=f"`max_length` must be {found}"):
        make_task("parity", max_length=8, min_length=2).sample(3, make_generator(), max_length=max_length)


def test_alternating_positions_tell_neighbours_apart_and_the_first_from_all():
    prompts = make_task("parity", max_length=7, positions="alternate").sample(4, make_generator())
    assert make_task("parity", max_length=700, positions="alternate").model_fields["n_positions"] == 3
    for positions in prompts["position_ids"].tolist():
        assert positions.count(0) == 1
        assert positions[0] == 0
        assert max(positions) == 2
        assert all(first != second for first, second in pairwise(positions))


def test_aligned_positions_are_those_in_a_number_plus_an_offset_of_the_row():
    task = make_task("addition", max_length=4, positions="aligned", max_offset=5)
    prompts = task.sample(200, make_generator())
    offsets = set()
    for ids, mask, positions in zip(
        *(prompts[name].tolist() for name in ("input_ids", "attention_mask", "position_ids")), strict=True
    ):
        n_digits = ids.index(task.symbols.index("+"))
        offset = positions[0] - 1
        number = [1 + offset + place for place in range(n_digits)]
        assert positions[: sum(mask)] == [*number, offset, *number, *number, number[-1] + 1]
        offsets.add(offset)
    assert offsets == set(range(6))
    assert prompts["position_ids"].max() == task.model_fields["n_positions"] - 1
    assert task.ask("12+34")["position_ids"].tolist() == [[1, 2, 0, 1, 2, 1, 2, 3]]


def test_gaps_lie_where_no_carry_goes_and_change_positions_alone():
    task, plain = (
        make_task("addition", max_length=5, positions="aligned", max_offset=9, gaps=gaps) for gaps in (True, False)
    )
    prompts, others = task.sample(400, make_generator()), plain.sample(400, make_generator())
    assert all(torch.equal(prompts[name], others[name]) for name in ("input_ids", "labels", "attention_mask"))
    assert prompts["position_ids"].max() == task.model_fields["n_positions"] - 1
    leaps = set()
    for (question, _), positions in zip(rows_of(task, prompts), prompts["position_ids"].tolist(), strict=True):
        first, second = split(question, "+")
        n_digits = len(first)
        number, answer = positions[:n_digits], positions[2 * n_digits + 1 : 3 * n_digits + 2]
        assert positions[n_digits : 2 * n_digits + 1] == [number[0] - 1, *number]
        assert answer[:n_digits] == number
        steps = [after - before for before, after in pairwise(answer)]
        assert number[0] >= 1
        assert min(steps) >= 1
        assert max(answer) <= n_digits + 1 + task.max_offset
        leap = [place for place, step in enumerate(steps) if step > 1]
        assert len(leap) <= 1
        for place in leap:
            carried = added(first[: place + 1], second[: place + 1])[-1]
            assert carried == "0"
            assert int(first[place]) + int(second[place]) <= 8
            leaps.add((place, steps[place]))
    assert {place for place, _ in leaps} == set(range(5))
    assert {step for _, step in leaps} == set(range(2, 11))


def test_gaps_of_sets_lie_at_a_new_letter_and_its_slot_and_change_positions_alone():
    task, plain = (
        make_task("unique_set", max_length=6, positions="aligned", max_offset=9, even_sets=True, gaps=gaps)
        for gaps in (True, False)
    )
    prompts, others = task.sample(600, make_generator()), plain.sample(600, make_generator())
    assert all(torch.equal(prompts[name], others[name]) for name in ("input_ids", "labels", "attention_mask"))
    assert prompts["position_ids"].max() <= task.model_fields["n_positions"] - 1
    leaps = set()
    for (question, _), positions in zip(rows_of(task, prompts), prompts["position_ids"].tolist(), strict=True):
        n = len(question)
        letters, slots = positions[:n], positions[n : 2 * n]
        assert {letters[0], slots[0]} <= set(range(1, 11))
        assert letters[-1] == slots[-1] <= n + task.max_offset
        # where letters leap a new one stands, and slots leap at the slot that it is to be written in
        leap = [place for place in range(1, n) if letters[place] - letters[place - 1] > 1]
        assert len(leap) <= 1
        for place in leap:
            slot = len(set(question[:place]))
            assert question[place] not in question[:place]
            assert slots[slot] - slots[slot - 1] == letters[place] - letters[place - 1]
            leaps.add((place, slot))
        assert sum(after - before > 1 for before, after in pairwise(slots)) == len(leap)
    assert {place for place, _ in leaps} == {slot for _, slot in leaps} == set(range(1, 6))
    assert any(place > slot for place, slot in leaps)


@pytest.mark.parametrize("group", ["A5", "S5"])
def test_the_elements_are_a_group(group):
    task = make_task("group_words", group=group, max_length=2)
    n = len(elements_of(group))
    assert n == {"A5": 60, "S5": 120}[group]
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(n))
    products = task.answer(pairs)[:, 1].view(n, n)
    assert torch.equal(products[0], torch.arange(n))
    assert torch.equal(products.sort(dim=0).values, torch.arange(n)[:, None].expand(n, n))
    triples = torch.randint(n, (100, 3), generator=make_generator())
    other = products[triples[:, 0], products[triples[:, 1], triples[:, 2]]]
    assert torch.equal(make_task("group_words", group=group).answer(triples)[:, 2], other)
    assert (products != products.T).any()


def test_a_text_has_no_equal_neighbours_and_hops_go_back():
    task = make_task("p_hop", n_text=10, max_length=5)
    text = task.sample(100, make_generator())["input_ids"][:, :10]
    assert (text[:, 1:] != text[:, :-1]).all()
    prompts = [task.ask("abcdabcadc" + ">" * hops) for hops in range(1, 6)]
    assert [task.say(columns["labels"], columns) for columns in prompts] == [["a"], ["b"], ["c"], ["c"], ["c"]]


def test_every_letter_of_a_text_can_be_asked_for_where_its_hops_lead():
    """The letters before it are then the whole text."""
    task = make_task("p_hop", n_text=10, max_length=5, every_letter=True)
    prompts = task.sample(50, make_generator())
    last = make_task("p_hop", n_text=10, max_length=5).sample(50, make_generator())
    assert torch.equal(prompts["input_ids"], last["input_ids"])
    assert torch.equal(prompts["labels"][:, 10:], last["labels"][:, 10:])
    for ids, labels in zip(prompts["input_ids"].tolist(), prompts["labels"].tolist(), strict=True):
        hops = ids.count(task.symbols.index(">"))
        text = [task.symbols[token] for token in ids[:10]]
        expected = [solved_hops(text[: place + 1] + [">"] * hops)[0] for place in range(10)]
        assert [task.symbols[token] for token in labels[:10]] == expected


def test_even_counts_make_all_sums_of_bits_equally_likely_wherever_the_ones_are():
    task = make_task("sum_of_bits", min_length=7, max_length=7, even_counts=True)
    bits = task.questions(task.sample(4000, make_generator()))[:, :7]
    counts = bits.sum(dim=1).bincount(minlength=8).tolist()
    assert all(410 < count < 590 for count in counts)
    assert bits.float().mean(dim=0).sub(0.5).abs().max() < 0.04


def test_even_sets_make_all_sizes_of_a_set_equally_likely_of_all_letters():
    task = make_task("unique_set", min_length=7, max_length=7, n_letters=9, even_sets=True)
    prompts = task.sample(4200, make_generator())
    words, sets = task.questions(prompts)[:, :7], prompts["labels"][:, 7:]
    sizes = (sets != task.slot).sum(dim=1).bincount(minlength=8).tolist()
    assert sizes[0] == 0
    assert all(510 < count < 690 for count in sizes[1:])
    for place in range(7):
        assert all(380 < count < 560 for count in words[:, place].bincount(minlength=9).tolist())
    few = make_task("unique_set", max_length=7, n_letters=2, even_sets=True).sample(300, make_generator())
    assert set(few["input_ids"].flatten().tolist()) == {0, 1, 2}


def test_rows_run_the_loops_that_they_need_and_a_surplus_of_their_own():
    task = make_task("addition", max_length=6)
    stream = Stream(task, 300, {}, seed=3, row_loops=RowLoops(rate=1.5, surplus=4))
    batch, again = stream.batch(7), stream.batch(7)
    plain = Stream(task, 300, {}, seed=3).batch(7)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert all(torch.equal(batch[name], plain[name]) for name in plain)
    lengths = task.lengths(task.questions(batch)).tolist()
    assert batch["needed_loops"].tolist() == [-(-3 * (length + 1) // 2) for length in lengths]
    surplus = batch["n_loops"] - batch["needed_loops"]
    assert set(surplus.tolist()) == set(range(5))
    assert not torch.equal(batch["n_loops"], stream.batch(8)["n_loops"])


def test_tasks_say_what_loops_they_need_or_that_they_do_not_know():
    needed = {"parity": 6, "copy": 6, "addition": 7, "sum_of_bits": 8, "p_hop": 6, "edit_distance": 12}
    for name, loops in needed.items():
        task = make_task(name, max_length=6, min_length=6)
        assert task.needed_loops(task.sample(3, make_generator())).tolist() == [loops] * 3
    chains = make_task("pointer_chains")
    assert chains.needed_loops(chains.sample(3, make_generator())) is None


@pytest.mark.parametrize(
    ("settings", "error"), [({"rate": 0.0}, "`loop_rate` must be"), ({"surplus": -1}, "`loop_surp")]
)
def test_bad_loops_of_rows_are_refused(settings, error):
    with pytest.raises(ValueError, match=error):
        RowLoops(**settings)
