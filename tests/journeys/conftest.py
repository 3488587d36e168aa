"""What every test of a journey does beside its own: looks whether what a chunk says stands is what stands."""

from tests.support.ingesting import standing_is_looked_up

__all__ = ["standing_is_looked_up"]
