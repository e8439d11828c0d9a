"""An arm64 Debian tree in the cache, and commands run inside it as aarch64 code.

build  make it unless it is there     path  print where it is
check  is it whole, does it run       run   run a command inside it
"""

from __future__ import annotations

import argparse
import shutil
import sys

import debs
import enter
import tree
from job import Failed, Unavailable, make_job

OWN_FAILURE = 125


def main(arguments: list[str] | None = None) -> int:
    """The exit status: of the command for `run`, 125 for what keeps it from starting; else 0 or 1."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.verb(options))
    except Failed as failure:
        print(f"emulation: {failure}", file=sys.stderr)
        return OWN_FAILURE if options.verb is _run else 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sysroot.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    build = verbs.add_parser("build", help="make it unless it is there")
    build.add_argument("--force", action="store_true", help="make it anew, with the versions of today")
    build.set_defaults(verb=_build)
    verbs.add_parser("path", help="print where it is").set_defaults(verb=_path)
    verbs.add_parser("check", help="is it whole, does it run").set_defaults(verb=_check)
    run = verbs.add_parser("run", help="run a command inside it")
    run.add_argument("--bind", action="append", default=[], metavar="SRC[:DST]", help="show SRC inside too")
    run.add_argument("command", nargs=argparse.REMAINDER)
    run.set_defaults(verb=_run)
    return parser


def _build(options: argparse.Namespace) -> int:
    print(tree.build(force=options.force))
    return 0


def _path(_: argparse.Namespace) -> int:
    print(tree.find())
    return 0


def _run(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise Failed("run what? run [--bind SRC[:DST]]... CMD ARGS...")
    return enter.run(make_job(tree.find(), command, options.bind))


def _check(_: argparse.Namespace) -> int:
    _name_missing()
    root = tree.find()
    print(f"tree: {root}", flush=True)
    for name, mechanism in enter.MECHANISMS.items():
        try:
            status = mechanism(make_job(root, ["true"], []))
            print(f"{name}: {'works' if status == 0 else f'fails with status {status}'}", flush=True)
        except Unavailable as refusal:
            print(f"{name}: not here: {refusal}", flush=True)
    command = ["python3", str(tree.HERE / "guest_check.py"), *tree.requirements()]
    return enter.run(make_job(root, command, []))


def _name_missing() -> None:
    """Say which host programs are not there; whether that matters, the rest of the check tells."""
    rows = [line.split() for line in debs.read_list(tree.HERE / "packages.txt")]
    missing = [package for package, program in rows if shutil.which(program) is None]
    if missing:
        print(f"missing on this host: apt-get install {' '.join(missing)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
