"""The mixing policies by name."""

from shoal.policies.mixers.ado import ADO
from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.doge import DoGE
from shoal.policies.mixers.doremi import DoReMi
from shoal.policies.mixers.plain import (
    EndUpsampling,
    Fixed,
    Proportional,
    Random,
    Stages,
    Stratified,
    Temperature,
)
from shoal.policies.mixers.skillit import SkillIt

MIXERS: dict[str, type] = {
    "fixed": Fixed,
    "stratified": Stratified,
    "proportional": Proportional,
    "temperature": Temperature,
    "random": Random,
    "stages": Stages,
    "end_upsampling": EndUpsampling,
    "aioli": Aioli,
    "ado": ADO,
    "skill_it": SkillIt,
    "doremi": DoReMi,
    "doge": DoGE,
}
