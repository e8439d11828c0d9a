"""Run inside the tree: is every requirement there, fit for this machine, and can it be imported?"""

from __future__ import annotations

import importlib
import platform
import sys
from importlib import metadata

from packaging.requirements import Requirement


def unmet(requirement: Requirement, seen: set[str]) -> list[str]:
    """Requirements, this one and those below it, that no installed distribution satisfies."""
    if str(requirement) in seen:
        return []
    seen.add(str(requirement))
    try:
        distribution = metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        return [f"{requirement}: not installed"]
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        return [f"{requirement}: found {distribution.version}"]
    below = [Requirement(text) for text in distribution.requires or []]
    return [line for entry in below if _applies(entry, requirement.extras) for line in unmet(entry, seen)]


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def unimportable(name: str) -> list[str]:
    """The modules of distribution NAME that fail to import."""
    failures = []
    providers = metadata.packages_distributions().items()
    modules = [module for module, names in providers if name in names and module.isidentifier()]
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            failures.append(f"{module}: {error}")
    return failures


def main() -> int:
    """One line per requirement in argv; 1 if anything is wrong."""
    problems: list[str] = []
    for text in sys.argv[1:]:
        requirement = Requirement(text)
        found = unmet(requirement, set()) or unimportable(metadata.distribution(requirement.name).name)
        problems += found
        print(f"{requirement.name}: {'; '.join(found) or metadata.version(requirement.name)}")
    print(f"python: {platform.python_version()} on {platform.machine()}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
