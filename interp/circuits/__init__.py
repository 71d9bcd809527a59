"""Circuits as data: which edges, measured how, and how sure."""
