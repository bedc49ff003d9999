import pytest

from scripts.studies import comparison


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
