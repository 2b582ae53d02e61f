from hypothesis import settings

# A shared, loaded machine: a slow example is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
