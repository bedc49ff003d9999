import pytest

from tasks import TASKS, FunctionClass, Task, make_task


def test_a_task_is_made_by_its_name_and_its_settings():
    for name, kind in TASKS.items():
        assert name == kind.name
    task = make_task("decision_tree", n_dims=5, depth=2)
    assert (type(task), task.n_dims, task.depth) == (TASKS["decision_tree"], 5, 2)


def test_unknown_tasks_and_settings_are_refused():
    with pytest.raises(ValueError, match=r"`task` must be one of .*, got 'linear'"):
        make_task("linear", n_dims=5)
    with pytest.raises(ValueError, match="the settings of decision_tree are n_dims, n_points, depth, got `noise_std`"):
        make_task("decision_tree", noise_std=0.5)


def test_a_class_of_the_users_has_no_known_limit_and_what_it_must_define_is_said():
    class OfAUser(FunctionClass):
        name = "of_a_user"

    task = OfAUser()
    assert task.limit is None
    assert task.shifts == task.published == task.published_shifts == task.components == {}
    for call in (lambda: task.normaliser, lambda: task.draw_functions(1, 1, None), lambda: Task().sizes):
        with pytest.raises(NotImplementedError, match="must define"):
            call()
