"""The command line: parse, call the verb, show. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from carvana_ens.cli.app import app
from carvana_ens.errors import CarvanaEnsError

STOPPED = 130


def _show(error: click.ClickException) -> int:
    """Shows what click refuses as our own errors are shown, after its lines on usage."""
    if error.__class__.__name__ == "NoArgsIsHelpError":  # the help itself; newer click only
        error.show()
        return error.exit_code
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
    click.echo(f"error: {' '.join(error.format_message().split())}", err=True)
    return error.exit_code


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 failed, 2 usage, 3 finished with failed inputs, 130 stopped."""
    with _two_stops():
        code = _run(arguments)
    sys.exit(code)


@contextmanager
def _two_stops() -> Iterator[None]:
    """The first Ctrl-C lets threads finish the images that they are at; the second ends this process where it is."""
    usual, stops = signal.getsignal(signal.SIGINT), 0
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stops
        stops += 1
        if stops > 1:
            os.write(2, b"stopped at once: what is finished is kept; the same command goes on from there\n")
            os._exit(STOPPED)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if not stops:  # else Python still waits for threads when it ends
            signal.signal(signal.SIGINT, usual)


def _run(arguments: list[str] | None) -> int:
    try:
        code = app.main(args=arguments, prog_name="carvana-ens", standalone_mode=False)
    except CarvanaEnsError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        code = _show(error)
    except (click.Abort, KeyboardInterrupt):
        import logging

        # zarr's own reads are cut short by the stop; asyncio would complain of them when Python ends
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        click.echo("stopped: what is finished is kept; the same command goes on from there", err=True)
        code = STOPPED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing is left to say
        code = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or error}", err=True)
        code = 1
    return code if isinstance(code, int) else 0
