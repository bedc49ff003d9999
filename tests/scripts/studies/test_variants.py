import pytest

from scripts.studies.study_run import StudyRun
from scripts.studies.variants import FULL, SMALL, STUDIES


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_of_every_study_can_be_trained(name, full, tmp_path):
    recipe = FULL if full else SMALL
    variants = STUDIES[name](full)
    assert len(variants) > 1
    for variant, overrides in variants.items():
        fields = StudyRun.from_recipe(recipe, tmp_path / "run", overrides).arguments.as_dict()
        assert all(fields[field] == value for field, value in overrides.items()), variant
