import json

import pytest

from scripts.common.records import RecordError
from scripts.training.recorded_cost import recorded_cost


RECORD = {"flops": 100}
LOG = [{"step": 10, "seconds_per_step": 2.0}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("environment.json", content) for content in (b"", b"\xff\x00", b"[]", b"{}", b'{"flops": "many"}')),
        *(("environment.json", content) for content in (b'{"flops": NaN}', b'{"flops": -1}', b'{"flops": null}')),
        *(("environment.json", b'{"flops": 1, "initial_model": ' + part + b"}") for part in (b"3", b"{}", b"null")),
        *(("log.jsonl", content) for content in (b"", b"{", b"\xff\x00", b"3\n", b'{"step": 1}\n')),
        *(("log.jsonl", b'{"step": %b, "seconds_per_step": 2.0}\n' % part) for part in (b'"a"', b"null", b"[]")),
    ],
)
def test_a_damaged_record_of_a_cost_is_refused_in_one_line(name, content, tmp_path):
    (tmp_path / "environment.json").write_text(json.dumps(RECORD))
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    assert recorded_cost(str(tmp_path)) == {"flops": 100, "seconds": 20.0}
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match=str(tmp_path)) as refused:
        recorded_cost(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_the_cost_of_a_model_holds_that_of_the_models_before_it(tmp_path):
    reports = ((10, {"seconds_per_step": 2.0}), (10, {"eval_error": 1.0}), (15, {"seconds_per_step": 1.0}))
    log = [{"step": step} | values for step, values in reports]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    assert recorded_cost(str(tmp_path)) is None
    environment = {"flops": 100}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    assert recorded_cost(str(tmp_path)) == {"flops": 100, "seconds": 25.0}
    environment["initial_model"] = recorded_cost(str(tmp_path))
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    assert recorded_cost(str(tmp_path)) == {"flops": 200, "seconds": 50.0}
    assert recorded_cost(str(tmp_path / "nowhere")) is None
