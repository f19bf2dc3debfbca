"""bench: our speed beside the peers' and beside the limits of the machine, on the same bytes, in one run.

This file holds only names, so that the command line can list them without loading what is measured.
"""

from __future__ import annotations

PARTS = {
    "read": "what reading the maps costs at least: from memory, and out of the fastest codecs",
    "rle": "masks to run-length text and back",
    "blend": "maps in memory to the blend's run-length text",
    "curve": "maps in memory to the Dice at every threshold",
    "stores": "codecs and layouts: bytes, time to write, time to read",
    "submission": "stores on disk to .csv.gz: beside the PNG way, beside processes, with a cold page cache",
    "members": "the same with 8, 24 and 49 members",
}
"""What is measured, by name, in the order of the report."""

KINDS = {
    "saturated": "as well-trained networks give them: hardly anything but 0 and 255",
    "speckled": "as freshly trained ones do: 0 to 3 in the background, 252 to 255 in the object",
}
"""The maps that are made from masks; those of a project's own stores are a third kind, "stored"."""

COUNTS = (8, 24, 49)
"""Members in the part "members"."""

SCHEMA = 1
"""Version of the JSON document."""

EXTRA = "pip install 'carvana-ens[bench]'"
"""What brings the peers."""
