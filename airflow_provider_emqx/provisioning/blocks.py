"""Rows as sources give them, block by block, and what tells how a file of them is to be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, get_args

from airflow_provider_emqx.arguments import boolean, choice, mapping, optional
from airflow_provider_emqx.choices import Quoting, SourceFormat
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.keywords import SourceOptions

if TYPE_CHECKING:
    from airflow_provider_emqx.provisioning.target import Target

#: fields that a row may have, in the order in which rows of every source give them
FIELDS = ("user_id", "password", "is_superuser", "password_hash", "salt", "salt_base64", "acl")
#: what brokers export: the JSON of EMQX 4, the archives of 5 and 6
EXPORT, ARCHIVE = "emqx4-export", "emqx-archive"


class Bad(NamedTuple):
    """
    A row that is rejected.

    :param line: physical line where it starts, for lists its position, both from 1.
    :param user_id: its id, ``None`` where it has none or where what stands in its place could be a password.
    :param reason: what is wrong with it.
    :param maybe: texts of the row, of which one may be its id. Never shown: another may be the password.
    """

    line: int
    user_id: object
    reason: str
    maybe: tuple[str, ...] = ()


class Block(NamedTuple):
    """
    Some rows of a source.

    :param lines: where each row starts.
    :param columns: for each of the format's fields its values, as many as lines; ``None`` if a row has none.
    :param bad: rows that could not be read.
    :param file: which of several files they are from.
    """

    lines: Sequence[int]
    columns: tuple[Sequence[Any], ...]
    bad: list[Bad]
    file: str = ""


@dataclass(frozen=True)
class Format:
    """
    The format of a source.

    :param name: ``"csv"``, ``"json"`` (an array of objects, or objects one after the other), ``"jsonl"``
        (objects in lines), ``"parquet"``, ``"emqx4-export"``, ``"emqx-archive"``, or ``None`` to detect exports of
        brokers from their content and others from the extension. Compression is detected from the content.
    :param columns: name of the source's column for each field that is called otherwise there; of objects also dotted,
        as ``"auth.secret"``, for what stands inside of another.
    :param rows: of JSON: dotted name of the array in an object, as ``"data.items"``.
    :param ids_only: whether a source needs no column but the ids.
    :param delimiter: of CSV, one character.
    :param quoting: of CSV: ``"standard"``, where a field in ``"`` may hold delimiters and line breaks, or ``"none"``,
        where ``"`` is a character as any other.
    :param encoding: of the text; a byte order mark is accepted in UTF-8.
    :param strip: whether white space around texts is taken off (``True``) or kept (``False``). ``None``: rows with
        white space around a name or a password are rejected, since nobody can tell which is meant.
    :param target: the broker that the rows are for; it chooses among those that another broker has exported.
    """

    name: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    ids_only: bool = False
    delimiter: str = ","
    quoting: str = "standard"
    rows: str = ""
    encoding: str = "utf-8"
    strip: bool | None = None
    target: Target | None = field(default=None, repr=False, compare=False)

    #: which part of what a broker has exported is meant: ``"users"``, ``"acl_rules"`` or ``"bans"``
    what: ClassVar[str] = "users"
    #: what rows may have, in the order in which blocks give it
    fields: ClassVar[tuple[str, ...]] = FIELDS
    #: of which white space around a value makes another name or secret
    exact: ClassVar[tuple[str, ...]] = ("user_id", "password")
    #: whether rows may have nothing else
    strict: ClassVar[bool] = False

    @classmethod
    def of(
        cls,
        format: str | None,
        columns: Mapping[str, str] | str | None,
        source_options: SourceOptions | Mapping[str, Any] | str | None,
        *,
        ids_only: bool = False,
        target: Target | None = None,
    ) -> Self:
        """
        Read what a person or a template says of a source.

        :param format: as ``name``; empty for ``None``.
        :param columns: as above; empty for none.
        :param source_options: the rest; an option that is ``None`` is as if it were not given.
        :param ids_only: as above.
        :param target: as above.
        :raises EmqxConfigError: for invalid arguments.
        """
        given = mapping("source_options", source_options or None)
        if unknown := sorted(set(given) - set(SourceOptions.__annotations__)):
            raise EmqxConfigError(
                f"unknown source option {unknown[0]!r}; expected any of {', '.join(SourceOptions.__annotations__)}"
            )
        options = {name: value for name, value in given.items() if value is not None}
        if "strip" in options:
            options["strip"] = optional(boolean, "strip", options["strip"])
        for name, value in options.items():
            if name != "strip" and not isinstance(value, str):
                raise EmqxConfigError(f"source option {name!r} must be text, not {kind(value)}")
        return cls(
            name=format or None,
            columns=mapping("columns", columns or None),
            ids_only=ids_only,
            target=target,
            **options,
        )

    def __post_init__(self) -> None:
        if self.name is not None:
            choice("format", self.name, get_args(SourceFormat))
        unknown = sorted(set(self.columns) - set(self.fields))
        if unknown:
            raise EmqxConfigError(
                f"columns has the unknown key {unknown[0]!r}; it maps {', '.join(self.fields)} to the source's own "
                "names"
            )
        if not all(isinstance(name, str) and name for name in self.columns.values()):
            raise EmqxConfigError("columns maps field names to column names, both text")
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise EmqxConfigError(
                f"delimiter must be one character, as ',' or ';' or a tab, not {self.delimiter!r}"
            )
        if self.rows and not all(self.rows.split(".")):
            raise EmqxConfigError(f"rows must be the name of an array, as 'data.items', not {self.rows!r}")
        choice("quoting", self.quoting, get_args(Quoting))
        try:
            # base64 is an encoding too, but of no text
            " ".encode(self.encoding)
        except (LookupError, TypeError):
            raise EmqxConfigError(
                f"unknown encoding {self.encoding!r}; expected a name such as utf-8 or latin-1"
            ) from None

    def options(self) -> dict[str, Any]:
        """Return all that decides how a source is read, for a plan."""
        told = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "target"}
        return {"format": told.pop("name"), **told}

    def column(self, name: str) -> str:
        """Return the name of a field in the source."""
        return str(self.columns.get(name, name))

    def value(self, row: Mapping[Any, Any], column: str) -> Any:
        """Return a column of an object; a dotted name reaches into nested ones unless the object has it itself."""
        if column in row or "." not in column:
            return row.get(column)
        found: Any = row
        for part in column.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def unknown(self, names: Iterable[Any]) -> str | None:
        """Return which name of a source means nothing, if that matters; misspelt it would go unseen."""
        columns = {self.column(name) for name in self.fields}
        known = {*columns, *(column.partition(".")[0] for column in columns)} if self.strict else set(names)
        other = next((name for name in names if name not in known), None)
        return (
            None
            if other is None
            else f"unknown field {str(other)[:40]!r}; expected one of {', '.join(self.fields)}"
        )

    def needs(self, name: str, header: Sequence[str]) -> bool:
        """Return whether a source with this header cannot do without a field."""
        if name == "password":
            return not self.ids_only and self.column("password_hash") not in header
        return name == "user_id"


def trimmed(blocks: Iterable[Block], how: Format) -> Iterator[Block]:
    """
    Strip white space from the texts of blocks, or reject the rows that have it around a name or a password.

    :param blocks: of a source.
    :param how: its ``strip`` counts.
    """
    if how.strip is False:
        yield from blocks
        return
    exact = [how.fields.index(name) for name in how.exact]
    for block in blocks:
        if how.strip:
            yield block._replace(
                columns=tuple([_strip(value) for value in values] for values in block.columns)
            )
            continue
        wrong: dict[int, str] = {}
        for at in exact:
            # nearly no row has any: one comparison tells for all of them
            values = block.columns[at]
            stripped = [_strip(value) for value in values]
            if stripped != values:
                for index, (value, bare) in enumerate(zip(values, stripped, strict=True)):
                    if value != bare:
                        wrong.setdefault(index, f"{how.fields[at]} {_AROUND}")
        yield _without(block, wrong, exact) if wrong else block


_AROUND = (
    "has white space before or after it; the source option strip=True takes it off, strip=False keeps it"
)


def _strip(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _without(block: Block, wrong: Mapping[int, str], exact: Sequence[int]) -> Block:
    """Reject rows of a block; each may mean who is named without the white space."""
    bad = [
        Bad(
            block.lines[index],
            block.columns[exact[0]][index],
            reason,
            tuple(
                text
                for at in exact
                if isinstance(value := block.columns[at][index], str)
                for text in (value, value.strip())
            ),
        )
        for index, reason in sorted(wrong.items())
    ]
    kept = [index for index in range(len(block.lines)) if index not in wrong]
    return Block(
        [block.lines[index] for index in kept],
        tuple([values[index] for index in kept] for values in block.columns),
        [*block.bad, *bad],
        block.file,
    )


def kind(value: object) -> str:
    """Describe a value without showing it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, Mapping) else f"of type {type(value).__name__}"
