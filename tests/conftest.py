"""What all tests share."""

from hypothesis import settings

# A busy machine makes an example slow; that is no failure.
settings.register_profile("ingest", deadline=None)
settings.load_profile("ingest")
