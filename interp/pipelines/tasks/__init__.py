"""What each pipeline asks: prompts, measurements, roles. One module for each behaviour.

Each has ``prompts(model, n, seed)``, ``measure(model, pairs)``, ``kinds(gap)`` and ``TASK``.
"""
