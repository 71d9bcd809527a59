"""Looking at features: where they are active, what they read and write, as tables and as a page."""
