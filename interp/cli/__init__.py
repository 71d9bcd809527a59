"""The ``interp`` command: parse, call the library, print. It computes nothing itself."""

from interp.cli.app import app, main

__all__ = ["app", "main"]
