"""A model you can ask: loading, the self-check that proves its sites, and its weights as views."""
