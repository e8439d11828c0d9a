"""`rk-gemma toolkit`: Rockchip's rkllm-toolkit in an interpreter of its own."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.cli.talk import extra_needed, say
from rk_gemma_runtime.errors import UsageError


def configure(app: typer.Typer) -> None:
    """Add the verb with its own verbs to the command line."""
    verbs = typer.Typer(no_args_is_help=True, help="Set up and look after Rockchip's rkllm-toolkit (x86_64 hosts).")
    verbs.command("setup")(setup)
    verbs.command("list")(list_them)
    verbs.command("check")(check)
    verbs.command("remove")(remove)
    app.add_typer(verbs, name="toolkit")


def setup(
    wheel: Annotated[Path, typer.Option(metavar="FILE", help="rkllm_toolkit-*.whl from Rockchip's repository.")],
    python: Annotated[
        str, typer.Option(metavar="PATH", help="The Python to use; none: one that fits is looked for.")
    ] = "",
    name: Annotated[str, typer.Option(help="What to call it; none: rkllm-VERSION-cpXY.")] = "",
    pins: Annotated[str, typer.Option(metavar="FILE", help="Another list of packages than the release's own.")] = "",
    no_pins: Annotated[bool, typer.Option("--no-pins", help="Install the wheel alone, without packages.")] = False,
    torch_index: Annotated[
        str, typer.Option(envvar="TORCH_INDEX", metavar="URL", help="Where torch comes from; none: its CPU build.")
    ] = "",
) -> None:
    """Make an environment for a wheel of the toolkit."""
    from rk_gemma.toolkit.install import NONE, announce, plan_setup, set_up

    if pins and no_pins:
        raise UsageError("--pins and --no-pins exclude each other")
    plan = plan_setup(wheel, python, name, NONE if no_pins else pins, torch_index, sys.platform, platform.machine())
    say(announce(plan))
    env = set_up(plan, say)
    say(f"{env.name}: rkllm-toolkit {env.toolkit} is ready; prove it with `rk-gemma toolkit check {env.name}`")


def list_them(as_json: o.Json = False) -> None:
    """List the installed ones, the newest first."""
    from rk_gemma.toolkit.homes import SETUP, environments, home

    found = environments()
    if as_json:
        print(json.dumps([env.tree() for env in found], indent=1))
        return
    for env in found:
        state = "" if env.usable else "  broken: its Python is gone"
        print(f"{env.name}  rkllm-toolkit {env.toolkit}  Python {env.python}  {env.folder}{state}")
    if not found:
        say(f"no toolkit in {home()}; set one up: `{SETUP}`")


def check(
    name: Annotated[str, typer.Argument(help="As `toolkit list` names it; none: the newest.")] = "",
) -> None:
    """Convert a tiny random Gemma from end to end."""
    with extra_needed("export"):
        from rk_gemma.toolkit.trial import try_out
    from rk_gemma.toolkit.homes import find

    env = find(name)
    say(f"{env.name}: converting a tiny random Gemma")
    found = try_out(env, lambda line: say(f"warning: {line}"))
    print(f"{env.name}: rkllm-toolkit {env.toolkit} works: {found}")


def remove(name: Annotated[str, typer.Argument(help="As `toolkit list` names it.")]) -> None:
    """Remove one with its packages."""
    from rk_gemma.toolkit import homes

    say(f"{homes.remove(name)}: removed")
