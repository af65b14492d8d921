"""No example has a time limit: a machine that is busy makes none of them wrong."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
