"""The privacy-budget report: built from a run folder, as JSON with a schema and as HTML."""
