"""Models compiled from programs, whose circuit is known: ``load_case("reverse")``."""

from tests.cases.loading import CASES, Case, load_case

__all__ = ["CASES", "Case", "load_case"]
