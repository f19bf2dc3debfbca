"""The HTML report: one file that needs no server and no network."""
