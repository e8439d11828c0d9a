"""Libraries that Rockchip released, by content. An unmodified file is recognised whatever its name.

Git blob ids of Linux libraries, as the vendor's repository lists them. The file of 1.3.1 is known from reports only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """One file. `blob`: sha1 of "blob SIZE NUL" and the content; `sha256` and `size` where only those are known."""

    version: str
    blob: str = ""
    sha256: str = ""
    size: int = 0
    second_hand: bool = False


RELEASES = (
    # aarch64
    Release("1.0.0", "53e00993ebbc7797df09673f806479e8642db946"),
    Release("1.0.1", "a026cbe60905af0ad6c07dfa2fcc339dd4b9fa10"),
    Release("1.0.2", "c913ab1569dfed48916c05fcd898f8d3f9dafe04"),
    Release("1.1.0", "66dfdc7c25cdca9ccf9930798118e17abf7592ff"),
    Release("1.1.1", "bfca051375287d0f5aa754a7b8681b4ede52e259"),
    Release("1.1.2", "e8f4afc38c7394beeff83003dbc772412f649a44"),
    Release("1.1.3", "68e79327e82f675413956be615f48c62ccd0f16e"),
    Release("1.1.4", "3bb8cb6172c4c06e1c622c8f8c579888378784f4"),
    Release("1.2.0", "d45ee9b8dcb9ef27d7dd875ce3be3d5e6dfb654d"),
    Release("1.2.1b1", "db041c01bba5e0e8f624bb2ff50d48825dde1bfc"),
    Release("1.2.1", "6b9439d59f2fe4bb8ef5ee2b09c102f1bf993da9"),
    Release("1.2.2", "8ed9cca16f8d5ad8f7cdd7d393de6561182b3395"),
    Release("1.2.3", "0084abc34ab43359cfa9fd5d4c92ece34127dbd0"),
    Release("1.3.0", "34167b32f99cb7ab19e21fb579fb750d96b878f1"),
    Release(
        "1.3.1",
        sha256="f25e9b099db08aaacd0a3ac62b4697d3951d6ae61ae41ea09f6702cfa89eb32c",
        size=7674816,
        second_hand=True,
    ),
    # armhf
    Release("1.2.1", "7025f35825e04ad75d839d10392e3c02cc88e57a"),
    Release("1.2.2", "d5953fdad6e60521f1dc696f6d638425c93ba08d"),
    Release("1.2.3", "fe1ca6849603a770c54f82d26b826a120c79a01a"),
    Release("1.3.0", "17c9063b46168c4e7d093d6fedb097874f92d076"),
)
