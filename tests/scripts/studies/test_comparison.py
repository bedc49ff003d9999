import pytest

from scripts.studies import comparison
from tasks import make_task


@pytest.mark.parametrize("errors", [[0.4], [0.0, 0.0], [1.0, 0.5], [1.0, *[0.1] * 99]])
def test_every_variant_is_seen_with_its_interval(errors, tmp_path, monkeypatch):
    curve = {"error": errors, "low": [0.9 * error for error in errors], "high": [1.1 * error for error in errors]}
    variants = {f"variant {n}": {"n_loops": 1, "error_by_example": curve, "error_by_loop": curve} for n in range(2)}
    kept = []
    monkeypatch.setattr(comparison.plt, "close", kept.append)
    comparison.plot_variants("Injection", variants, tmp_path)
    for axes in kept[0].axes:
        low, high = axes.get_ylim()
        for line in axes.get_lines():
            xs, ys = line.get_data()
            assert all(low < y < high for y in ys)
            assert len(xs) > 1 or line.get_marker() == "o"
        assert len(axes.collections) == 2  # a band or bar a variant
        assert axes.get_xscale() == ("log" if axes is kept[0].axes[1] and len(errors) > 40 else "linear")
    monkeypatch.undo()
    comparison.plt.close("all")


def test_a_mixture_is_measured_by_component_and_by_wrong_names_where_it_has_names():
    components = {"linear_regression": 1, "decision_tree": 2}
    plain = make_task("mixture", n_dims=3, components=components)
    named = make_task("mixture", n_dims=3, components=components, guidance=True)
    task = plain.components["linear_regression"]
    assert comparison.measured_tasks("add", task) == {"add": task}
    expected = {"decision_tree, plain": plain.components["decision_tree"], "linear_regression, plain": task}
    assert comparison.measured_tasks("plain", plain) == expected
    tasks = comparison.measured_tasks("named", named)
    assert {name: task.number for name, task in tasks.items()} == {
        "decision_tree, named": 0,
        "linear_regression, named": 1,
        "decision_tree, called linear_regression": 1,
        "linear_regression, called decision_tree": 0,
    }
