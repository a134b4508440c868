from hypothesis import settings

# The first example of a test may pay for imports; time limits say nothing about correctness here.
settings.register_profile("unveil", deadline=None, max_examples=60)
settings.load_profile("unveil")
