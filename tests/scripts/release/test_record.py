import re

import pytest

from scripts.release import files
from scripts.release.record import read_record


@pytest.mark.parametrize("name", files.SOURCES)
def test_a_missing_record_is_named_with_the_program_that_writes_it(name, evaluated):
    (evaluated / name).unlink()
    with pytest.raises(ValueError, match=rf"no {name}: run {files.SOURCES[name]} first"):
        read_record(evaluated)


@pytest.mark.parametrize("name", ["metrics.json", "environment.json", "log.jsonl", "recipe.yaml"])
@pytest.mark.parametrize("content", ["{", "", "[1]"])
def test_a_damaged_record_is_refused(name, content, evaluated):
    if (name, content) == ("log.jsonl", ""):
        content = "not json"
    (evaluated / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(evaluated))):
        read_record(evaluated)
