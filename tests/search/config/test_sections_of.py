"""Each setting is written once: a section has the names and defaults of the dataclass that it sets."""

from dataclasses import MISSING, fields

import pytest

from shoal.policies.mixers.rules import MIXERS
from shoal.policies.rules import EXPLOITS, EXPLORES, Rules
from shoal.policies.sampling.rules import SAMPLERS
from shoal.policies.space import DOMAINS
from shoal.search.config.kinds import DOMAIN, EXPLOIT, EXPLORE, SAMPLER
from shoal.search.config.mixing import POLICY
from shoal.search.config.sections import Model, Population, Training
from shoal.trainables.settings import DecoderShape, Recipe

TABLES = {
    **{f"exploit {kind}": (EXPLOIT[kind], made) for kind, made in EXPLOITS.items()},
    **{f"explore {kind}": (EXPLORE[kind], made) for kind, made in EXPLORES.items()},
    **{f"sampling {kind}": (SAMPLER[kind], made) for kind, made in SAMPLERS.items()},
    **{f"domain {kind}": (DOMAIN[kind], made) for kind, made in DOMAINS.items()},
    **{f"mixing {kind}": (POLICY[kind], made) for kind, made in MIXERS.items()},
    "training": (Training, Recipe),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_section_has_the_settings_of_what_it_sets_with_their_defaults(name: str) -> None:
    section, made = TABLES[name]
    wanted = {field.name: field.default for field in fields(made) if field.init}
    for key, default in wanted.items():
        found = section.model_fields[key]
        assert found.is_required() == (default is MISSING)
        if default is not MISSING:
            assert found.default == ({} if default == () else default)
    assert section.model_fields.keys() - wanted.keys() <= {"kind", "batch", "evaluation_rows"}


def test_model_and_population_take_their_defaults_from_shape_and_rules() -> None:
    model = Model()
    assert DecoderShape(vocabulary=2, sequence_length=8) == model.build(vocabulary=2, sequence_length=8)
    built = Population()
    assert built.build(exploit=built.exploit.build(), explore=built.explore.build()) == Rules()
