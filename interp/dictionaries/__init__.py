"""Dictionaries: SAEs and transcoders as one object, its activations, kernels, formats and splicing.

:mod:`spec` says what a dictionary is, :mod:`dictionary` is the module with ``encode`` and ``decode``,
:mod:`activations` holds one file for each non-linearity, :mod:`kernels` the fast arithmetic,
:mod:`formats` other libraries' files, and :mod:`splice` puts dictionaries into a model's run.
"""
