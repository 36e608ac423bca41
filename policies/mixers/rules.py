"""The mixing policies by name."""

from policies.mixers.ado import ADO
from policies.mixers.aioli import Aioli
from policies.mixers.doge import DoGE
from policies.mixers.doremi import DoReMi
from policies.mixers.plain import EndUpsampling, Fixed, Proportional, Random, Stages, Stratified, Temperature
from policies.mixers.skillit import SkillIt

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
