"""Evidence says whether an engine is right and how fast it is."""
