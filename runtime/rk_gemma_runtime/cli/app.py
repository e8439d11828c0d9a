"""What every verb shares: the application, exit codes, the one line on stderr.

Exit codes: 0 done, 1 failed, 2 usage, 3 bad bundle or checkpoint or prompt, 4 NPU not usable, 5 nothing can
answer, 130 interrupted. stdout is the answer, stderr the talk. Tracebacks only with --debug.
"""

from __future__ import annotations

import logging
import signal
import sys
from typing import Annotated, NoReturn

import typer

from rk_gemma_runtime.cli import chat, doctor, explain, inspect, lib, streams, tokens
from rk_gemma_runtime.cli import run as run_verb
from rk_gemma_runtime.cli.talk import complain, say
from rk_gemma_runtime.errors import RkGemmaError

INTERRUPTED = 130
TERMINATED = 143


def make_app(version: str) -> typer.Typer:
    """Make the application with the board's verbs."""
    app = typer.Typer(
        name="rk-gemma",
        help="Gemma on Rockchip RK3588 boards: NPU first, CPU when it refuses.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback(invoke_without_command=True)
    def options(
        debug: Annotated[bool, typer.Option(help="Show tracebacks and the library's lines.")] = False,
        show: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
    ) -> None:
        """Options of every verb."""
        if show:
            print(f"rk-gemma {version}")
            raise typer.Exit
        logging.basicConfig(level=logging.DEBUG if debug else logging.ERROR, format="%(name)s: %(message)s")
        # What the library prints is quoted where it explains something; all of it is for --debug.
        logging.getLogger("rk_gemma_runtime.library").setLevel(logging.DEBUG if debug else logging.CRITICAL)

    for verb in (run_verb, chat, tokens, inspect, lib, doctor, explain):
        verb.configure(app)
    return app


def run(app: typer.Typer) -> NoReturn:
    """Run the command line and exit with the documented code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    streams.mend()
    try:
        code = _guarded(app)
    finally:
        streams.drain()
    sys.exit(code)


def _on_terminate(number: int, frame: object) -> None:
    raise SystemExit(TERMINATED)


def _guarded(app: typer.Typer) -> int:
    debug = "--debug" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our stdout has gone: nothing can be reported
        return 1
    except RkGemmaError as error:
        if debug:
            raise
        complain(error)
        return error.exit_code
    except OSError as error:
        if debug:
            raise
        say(f"error: {error.filename or 'standard output'}: {error.strerror}")
        return 1
    except Exception as error:  # the process edge: usage errors of the parser, and bugs
        if debug:
            raise
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    message = getattr(error, "format_message", None)
    if message is not None:  # the parser's own errors know their exit code (2)
        text = message()
        if text:
            verb = " ".join(getattr(getattr(error, "ctx", None), "command_path", "").split()[1:])
            say(f"error: {text.replace('Value error, ', '')} (see {' '.join(['rk-gemma', verb]).strip()} --help)")
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        return INTERRUPTED
    logging.getLogger(__name__).debug("unexpected", exc_info=error)
    say(f"error: unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)")
    return 1
