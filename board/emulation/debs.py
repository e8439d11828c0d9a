"""arm64 packages through the host's own apt, with a state directory apart: the host's stays untouched."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from job import Failed
from relay import die_with_parent

SOURCES_VARIABLE = "RK_GEMMA_EMULATION_SOURCES"
TRIMMED = ("doc", "info", "lintian", "locale", "man", "bash-completion")
# Of the host's settings these are replaced: where apt keeps things, for which machine, and hooks on dpkg.
NOT_TAKEN = re.compile(
    r"Dir::(State|Cache|Log|Etc::(main|parts))\b|APT::Architectures?\b|.*-Invoke|DPkg::Pre-Install-Pkgs"
)
SETTINGS = """
Dir::State "{0}/state/";
Dir::State::status "{0}/status";
Dir::Cache "{0}/cache/";
Dir::Log "{0}/log/";
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
"""


@dataclass(frozen=True)
class Package:
    """A package as apt fetched it, after apt has checked it against the signed index."""

    name: str
    version: str
    sha256: str


def read_list(path: Path) -> list[str]:
    """The entries of a list with one entry a line and comments after '#'."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(line for line in lines if line)


def sources_override() -> Path | None:
    """A sources file named by the user instead of the host's: for hosts whose archive has no arm64."""
    name = os.environ.get(SOURCES_VARIABLE)
    if not name:
        return None
    path = Path(name).resolve()
    if not path.is_file() or path.suffix not in (".list", ".sources"):
        raise Failed(f"{SOURCES_VARIABLE} must name a .list or .sources file of apt, not {name}")
    return path


def fetch(names: list[str], work: Path) -> list[Path]:
    """Download NAMES and all they depend on below WORK, as .deb files."""
    for tool in ("apt-get", "apt-config", "dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise Failed(f"{tool} not found: the sysroot is built on Debian, Ubuntu or a relative of theirs")
    env = os.environ | {"APT_CONFIG": str(_configure(work)), "LC_ALL": "C"}
    # One foreign source that cannot be reached must not stop the build: the next step tells what is missing.
    update = _apt(["update"], env)
    solved = _apt(["install", "--yes", "--download-only", *names], env)
    if solved.returncode != 0:
        raise Failed(_explain(update.stderr + solved.stderr))
    return sorted((work / "cache/archives").glob("*.deb"))


def unpack(files: list[Path], root: Path) -> list[Package]:
    """Unpack FILES into ROOT, a tree with /bin, /lib and /sbin merged into /usr; no package script is run."""
    for name in ("bin", "lib", "sbin"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for file in files:
        _unpack(file, root)
    for name in TRIMMED:
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    return [_package(file) for file in files]


def _configure(work: Path) -> Path:
    for name in ("state/lists/partial", "cache/archives/partial", "log", "empty"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    host = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    taken = [line for line in host.splitlines() if not NOT_TAKEN.match(line)]
    text = "\n".join(taken) + SETTINGS.format(work)
    text += f'Dir::Etc::main "{work}/none";\nDir::Etc::parts "{work}/empty/";\n'
    override = sources_override()
    if override is not None:
        text += f'Dir::Etc::sourcelist "{override}";\nDir::Etc::sourceparts "{work}/empty/";\n'
    configuration = work / "apt.conf"
    configuration.write_text(text, encoding="utf-8")
    return configuration


def _apt(arguments: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "--quiet=2", *arguments]
    pipe = subprocess.PIPE
    return subprocess.run(command, env=env, stdout=pipe, stderr=pipe, text=True, preexec_fn=die_with_parent)


def _explain(stderr: str) -> str:
    errors = [line for line in stderr.splitlines() if line.startswith(("E:", "W:"))]
    return (
        "apt finds no complete set of arm64 packages in this host's sources. Ubuntu keeps arm64 in its "
        f"'ports' archive: name a .list or .sources file with it, or with Debian, in {SOURCES_VARIABLE}.\n"
        + "\n".join(errors[:6])
    )


def _unpack(file: Path, root: Path) -> None:
    """Like dpkg-deb -x, which would replace the links of the merged tree by directories."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE) as deb:
        command = ["tar", "--extract", "--keep-directory-symlink", "--no-same-owner", f"--directory={root}"]
        done = subprocess.run(command, stdin=deb.stdout, check=False)
    if done.returncode != 0 or deb.returncode != 0:
        raise Failed(f"{file.name} could not be unpacked: is the disk full?")


def _package(file: Path) -> Package:
    name, version, _ = file.stem.split("_")
    return Package(name, version.replace("%3a", ":"), hashlib.sha256(file.read_bytes()).hexdigest())
