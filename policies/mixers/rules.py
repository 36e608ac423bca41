"""The mixing policies by name."""

from policies.mixers.aioli import Aioli
from policies.mixers.plain import EndUpsampling, Fixed, Proportional, Random, Stages, Stratified, Temperature

MIXERS: dict[str, type] = {
    "fixed": Fixed,
    "stratified": Stratified,
    "proportional": Proportional,
    "temperature": Temperature,
    "random": Random,
    "stages": Stages,
    "end_upsampling": EndUpsampling,
    "aioli": Aioli,
}
