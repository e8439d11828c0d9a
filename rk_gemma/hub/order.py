"""What a pull will do: which files, which recipe. Made before anything large is downloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma.hub.choose import choose_rkllm, shape_by_names
from rk_gemma.hub.files import RemoteFile, in_cache
from rk_gemma.hub.quants import GgufSet, choose_gguf
from rk_gemma.hub.remote import RemoteSource
from rk_gemma.hub.repository import Repository, branches, open_repository, parse_repository
from rk_gemma.hub.vocabulary import fetch_bytes, given_vocabulary, of_repository
from rk_gemma.pack.npupart import FILE, NpuInput
from rk_gemma.pack.recipe import CpuInput, Ingredients, MissingError, Recipe, make_recipe
from rk_gemma.pack.vocabulary import Tokens, Vocabulary, from_gguf, from_rkllm, tokens_of
from rk_gemma.parts.card import CardFacts, read_card
from rk_gemma.parts.gguf import read_gguf
from rk_gemma.parts.ggufnames import quant_of
from rk_gemma.parts.names import read_name, read_names
from rk_gemma_runtime.errors import InputError, UsageError
from rk_gemma_runtime.rkllmfile.describe import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma.hub.http import Patience
    from rk_gemma.pack.npupart import NpuFacts
    from rk_gemma.pack.wishes import Wishes
    from rk_gemma.parts.names import NameFacts
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.bundle import Manifest

CARD = "README.md"
IDS_ONLY = "none"


@dataclass(frozen=True)
class Asked:
    """The words of the command. `source` and `cpu` are OWNER/NAME[@REVISION], the second with [:QUANT]; `tokenizer` a
    file, a repository, `none` for token ids, or empty."""

    source: str
    file: str = ""
    cpu: str = ""
    quant: str = ""
    tokenizer: str = ""


@dataclass
class Order:
    """`items`: each file with its name in the bundle. `missing` says what is still to be told; then there is no
    recipe, but `npu` and `manifest` as far as they are known."""

    repository: Repository
    items: list[tuple[RemoteFile, str]]
    given: Ingredients
    recipe: Recipe | None = None
    missing: UsageError | None = None
    npu: NpuFacts | None = None
    manifest: Manifest | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file, _ in self.items if in_cache(file) is None)


def make_order(asked: Asked, wishes: Wishes, board: Board, patience: Patience) -> Order:
    """Look at the hub and decide. Raises InputError, UsageError or HubError."""
    wishes.check()
    name, revision = parse_repository(asked.source)
    repository = open_repository(name, revision, patience)
    return _Maker(asked, wishes, board, patience, repository).order()


class _Maker:
    def __init__(
        self, asked: Asked, wishes: Wishes, board: Board, patience: Patience, repository: Repository
    ) -> None:
        self._asked, self._wishes, self._board = asked, wishes, board
        self._patience, self._repository = patience, repository
        self._notes: list[str] = []
        self._items: list[tuple[RemoteFile, str]] = []
        self._tokens: list[Tokens] = []
        self._homes = [repository]
        self._missing: UsageError | None = None
        self._made: Callable[[], Vocabulary | None] = lambda: None

    def order(self) -> Order:
        repository = self._repository
        npu = self._npu()
        cpu = self._cpu(npu)
        vocabulary = self._vocabulary()
        given = Ingredients(npu, cpu, vocabulary, self._tokens, (), repository.id, repository.commit)
        order = Order(repository, self._items, given, notes=self._notes)
        try:
            recipe = make_recipe(given, self._wishes)
            order.manifest, order.npu = recipe.manifest, recipe.npu
            order.notes += recipe.notes
            order.recipe = None if self._missing else recipe
        except MissingError as error:
            order.npu, order.missing = error.npu, error
        order.missing = order.missing or self._missing
        return order

    def _npu(self) -> NpuInput | None:
        repository = self._repository
        other = (
            []
            if any(f.path.lower().endswith((".rkllm", ".gguf")) for f in repository.files)
            else branches(repository.id)
        )
        file = choose_rkllm(repository, self._asked.file, self._board, other)
        if file is None:
            return None
        source = RemoteSource(file, self._patience)
        found = describe(source)
        self._items.append((file, FILE))
        self._tokens.append(tokens_of(source, found.keys, found.number("vocab"), source.name))
        self._made = lambda: from_rkllm(self._tokens[0])
        names = read_names(repository.id, file.path, repository.revision)
        return NpuInput(source.name, found, names, self._card())

    def _card(self) -> CardFacts:
        file = self._repository.find(CARD)
        if file is None:
            return CardFacts()
        return read_card(fetch_bytes(file, self._patience).decode("utf-8", "replace"))

    def _cpu(self, npu: NpuInput | None) -> CpuInput | None:
        if npu is not None and not self._asked.cpu:
            if self._asked.quant:
                raise UsageError(f"--quant is for GGUF, and {self._repository.id} has .rkllm; add --cpu REPO:QUANT")
            return None
        odd = {"--dtype": self._wishes.dtype, "--npu-cores": self._wishes.cores, "--toolkit": self._wishes.toolkit}
        if npu is None and any(odd.values()):
            useless = next(option for option, value in odd.items() if value)
            raise UsageError(f"{useless} is for .rkllm files, and {self._repository.id} has none")
        chosen, names, home = self._cpu_files(npu)
        first = chosen.files[0]
        source = RemoteSource(first, self._patience)
        facts = read_gguf(source)
        if facts.kind != "model":
            raise InputError(f"{source.name}: a GGUF of type {facts.kind!r}, not a model")
        split = len(chosen.files) > 1
        self._items += [(file, file.name if split else "model.gguf") for file in chosen.files]
        own = tokens_of(source, facts.keys, facts.vocab, source.name)
        self._tokens.append(own)
        before = self._made
        self._made = lambda: from_gguf(source, facts.keys, own) or before()
        quant = quant_of(facts.quant, chosen.quant)
        if not quant:
            raise InputError(f"{source.name}: neither the file nor its name tells its type of weights")
        if chosen.quant and quant != chosen.quant:
            self._notes.append(f"type: {chosen.files[0].name} is {quant} by what it says itself, not {chosen.quant}")
        self._homes = [self._repository, home]
        return CpuInput(source.name, facts, names, quant, first.name if split else "model.gguf")

    def _cpu_files(self, npu: NpuInput | None) -> tuple[GgufSet, NameFacts, Repository]:
        asked, home, quant, wanted = self._asked, self._repository, self._asked.quant, self._asked.file
        if asked.cpu:
            place, _, own = asked.cpu.partition(":")
            quant, wanted = own or quant, ""
            home = open_repository(*parse_repository(place), self._patience)
        names = read_name(home.id)
        shape = shape_by_names(npu.names if npu else names)
        chosen, why = choose_gguf(home, quant, wanted, shape, self._board)
        if why not in {"as asked", "the only one"}:
            self._notes.append(f"{chosen.files[0].path} is taken: {why} (--quant)")
        return chosen, read_names(home.id, chosen.files[0].path), home

    def _vocabulary(self) -> Vocabulary | None:
        """From the option, else the repositories, else the weights themselves."""
        if self._asked.tokenizer == IDS_ONLY:
            return None
        if self._asked.tokenizer:
            return given_vocabulary(self._asked.tokenizer, self._patience)
        for home in self._homes:
            found = of_repository(home, self._patience, self._notes.append)
            if found is not None:
                return found
        made = self._made()
        if made is None:
            base = self._card().base or "google/gemma-2-2b-it"
            self._missing = UsageError(
                f"{self._repository.id}: no tokenizer in it; give --tokenizer FILE or REPOSITORY (such as {base}), or"
                " --tokenizer none for token ids only"
            )
        return made
