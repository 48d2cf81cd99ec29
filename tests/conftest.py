"""What holds for every test."""

from hypothesis import settings

# How long an example takes says nothing about the code where other work runs beside it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
