"""What each folder may import."""

import ast
import re
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
ALLOWED = {
    "modeling_looped_gpt2": {"torch", "transformers", "huggingface_hub"},
    # scikit-learn is imported by the baselines alone, numba by what is compiled for them and the limits
    "tasks": {"torch", "numpy", "datasets", "evaluate", "numba", "joblib", "sklearn", "tasks"},
    "scripts": {
        *("torch", "numpy", "safetensors", "transformers", "huggingface_hub", "accelerate", "datasets", "evaluate"),
        *("yaml", "tqdm", "pyarrow", "matplotlib", "jinja2", "httpx2", "sklearn"),
        *("modeling_looped_gpt2", "tasks", "scripts"),
    },
}
# files that no other imports and only those users need who have the library
EXTRA = {
    "modeling_looped_gpt2/estimator_looped_gpt2.py": {"numpy", "sklearn"},
    "modeling_looped_gpt2/pipeline_looped_gpt2.py": {"numpy"},
    "scripts/demo.py": {"gradio", "starlette"},
}
FILES = [path for folder in ALLOWED for path in sorted((ROOT / folder).glob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_imports_only_what_its_folder_may(path):
    allowed = ALLOWED[path.parent.name] | EXTRA.get(f"{path.parent.name}/{path.name}", set())
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
            assert top in sys.stdlib_module_names or top in allowed, f"line {node.lineno}: {name}"


def test_the_model_and_its_folders_hold_no_sub_folders():
    for folder in ("modeling_looped_gpt2", "tasks"):
        assert [path.name for path in (ROOT / folder).iterdir() if path.is_dir() and path.name != "__pycache__"] == []


@pytest.mark.parametrize("extra", EXTRA)
def test_a_file_of_its_own_is_imported_by_none_of_its_folder(extra):
    module = Path(extra).stem
    for path in (ROOT / extra).parent.glob("*.py"):
        assert path.name == Path(extra).name or not re.search(rf"\b(from|import) [\w.]*\b{module}\b", path.read_text())
