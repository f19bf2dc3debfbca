"""Where work runs: threads of this process, processes of this machine, or the workers of a Dask scheduler.

Nothing of ours but errors is imported here: every room above the ground may run its work through this one.
"""

from carvana_ens.engine.threads import default_threads, ordered_map

__all__ = ["default_threads", "ordered_map"]
