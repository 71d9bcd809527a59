"""The door through which every tensor passes: torch hooks on unmodified modules.

:mod:`families` is data (which module plays which part in which model family),
:mod:`anatomy` finds those modules in a model, :mod:`attention` is the one
attention function that shows scores and patterns, :mod:`hooks` puts functions
on sites for the length of one run and takes them off again, :mod:`splices` puts other
computations in the place of the model's own.
"""
