"""Lenses: what an inner activation says when it is read in the model's own vocabulary."""
