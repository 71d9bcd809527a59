"""Discovery: which heads and paths carry a behaviour."""
