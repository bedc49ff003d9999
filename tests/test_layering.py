"""What each folder may import."""

import ast
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
ALLOWED = {
    "modeling_looped_gpt2": {"torch", "transformers", "huggingface_hub"},
    # scikit-learn is imported by the baselines alone, numba by what is compiled for them and the limits
    "tasks": {"torch", "numpy", "datasets", "evaluate", "numba", "joblib", "sklearn", "tasks"},
    "scripts": {
        *("torch", "numpy", "transformers", "huggingface_hub", "accelerate", "datasets", "evaluate"),
        *("yaml", "tqdm", "matplotlib", "sklearn", "modeling_looped_gpt2", "tasks", "scripts"),
    },
}
FILES = [path for folder in ALLOWED for path in sorted((ROOT / folder).glob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_imports_only_what_its_folder_may(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # files of the model are copied flat into a checkpoint's folder: one level, and never the package itself
            assert node.level <= 1
            assert node.level == 0 or (node.module and "." not in node.module)
            names = [] if node.level else [node.module]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top in ALLOWED[path.parent.name], f"line {node.lineno}: {name}"


def test_the_model_and_its_folders_hold_no_sub_folders():
    for folder in ("modeling_looped_gpt2", "tasks"):
        assert [path.name for path in (ROOT / folder).iterdir() if path.is_dir() and path.name != "__pycache__"] == []
