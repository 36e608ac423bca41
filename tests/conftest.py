import os

# ray.init() turns token authentication on in 2.60: a test run must not depend on this machine's token
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)
