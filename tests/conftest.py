import os

from hypothesis import settings

# ray.init() turns token authentication on in 2.60: a test run must not depend on this machine's token
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)

# a slow moment of the machine is no failure
settings.register_profile("shoal", deadline=None)
settings.load_profile("shoal")
