"""Other libraries' files: SAELens, sparsify and circuit-tracer, both ways.

:func:`save_dictionary` writes a folder, :func:`load_dictionary` recognises one by what is in it; one
file for each format says what its tensors mean. All of them load here to the bit what was saved here.
"""

from interp.dictionaries.formats.load import load_dictionaries, load_dictionary
from interp.dictionaries.formats.save import save_dictionary

__all__ = ["load_dictionaries", "load_dictionary", "save_dictionary"]
