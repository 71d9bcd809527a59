"""The overview of one prompt: what was measured, and which of it survives a control.

:mod:`contexts` draws the random contexts of the control, :mod:`measure` reads and edits the model on
the prompt and on each of them, :mod:`family` compares the two, :mod:`result` ranks what was found,
:mod:`figure` and :mod:`page` show it; :mod:`verb` is ``interp.scan``.
"""
