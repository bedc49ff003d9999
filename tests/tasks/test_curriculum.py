import pytest

from tasks.curriculum import Schedule, draw_n_loops


def test_a_schedule_holds_grows_and_ends():
    schedule = Schedule(5, 20, increment=2, interval=100, hold=50)
    assert [schedule.at(step) for step in (0, 49, 149, 150, 249, 250, 10**9)] == [5, 5, 5, 7, 7, 9, 20]


def test_the_papers_curriculum():
    dims, points = Schedule(5, 20, 1, 5000), Schedule(11, 41, 2, 5000)
    assert (dims.at(74_999), dims.at(75_000)) == (19, 20)
    assert (points.at(74_999), points.at(75_000)) == (39, 41)


@pytest.mark.parametrize("values", [(0, 5), (6, 5), (1, 5, 0), (1, 5, 1, 0), (1, 5, 1, 1, -1)])
def test_a_bad_schedule_is_refused(values):
    with pytest.raises(ValueError, match="must"):
        Schedule(*values)


def test_drawn_loop_counts_are_uniform_and_depend_on_seed_and_step_alone():
    draws = [draw_n_loops(1, step, 3, 6) for step in range(2000)]
    assert draws == [draw_n_loops(1, step, 3, 6) for step in range(2000)]
    assert draws != [draw_n_loops(2, step, 3, 6) for step in range(2000)]
    assert set(draws) == {3, 4, 5, 6}
    assert all(abs(draws.count(count) - 500) < 80 for count in range(3, 7))
