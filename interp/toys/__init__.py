"""Toys: small transformers and MLPs, tasks with a known answer, and training with interventions inside it."""
