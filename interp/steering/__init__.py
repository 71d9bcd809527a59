"""Taking a part away, or adding a direction: ablation and steering, both as edits of a run.

:mod:`ablation` knocks out sites and :mod:`random_sets` random ones, for comparison; :mod:`contrast` makes
a steering vector from two sets of prompts and :mod:`vector` holds it; :mod:`steer` measures what it does at
several strengths, beside random vectors of its length; :mod:`edits` has the edits themselves.
"""
