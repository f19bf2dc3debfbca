"""carvana-ens --help beside a plugin that sleeps 5 s at import and then raises, against a bare Python start.

Prints the medians of RUNS starts each, taken in turn, and their ratio.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 9
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import click'": ["-c", "import click"],
    "carvana-ens --help": ["-c", "from carvana_ens.cli import main; main()", "--help"],
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder) / "slow_plugin-1.0.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text("[carvana_ens.models]\nslow = slow_plugin:Slow\n")
        (Path(folder) / "slow_plugin.py").write_text("import time\ntime.sleep(5)\nraise RuntimeError('broken')\n")
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])}
        times: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for run in range(RUNS + 1):
            for name, arguments in COMMANDS.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, *arguments], check=True, env=env, stdout=subprocess.DEVNULL)
                if run:  # the first start of each reads the files from the disk
                    times[name].append(time.perf_counter() - start)
    base = statistics.median(times["python -c pass"])
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"{name:26} {middle:.3f} s   {middle / base:.1f} x")


if __name__ == "__main__":
    main()
