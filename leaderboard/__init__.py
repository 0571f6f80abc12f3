"""The board: every number shown is one query over a snapshot of the results."""
