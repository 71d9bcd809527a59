"""Activation patching: put a value of one run into another, cell by cell, and score what comes out.

:mod:`cells` lays the cells out, :mod:`sources` says what is put in, :mod:`plain` runs them one
forward pass each, :mod:`result` holds the scores; :mod:`verb` is ``interp.patch``.
"""
