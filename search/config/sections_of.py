"""Make sections of a run's file out of the dataclasses that they set: each setting is written once, there.

A section checks the types of the values in a file, strictly. What the values must be is checked by the
dataclass itself, which the section builds.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache, cached_property, reduce
from importlib import import_module
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Strict,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticKnownError, SchemaValidator, core_schema

from shoal.policies.space import frozen


def as_whole_number(value: Any) -> Any:
    """Return 1e4 as a whole number: YAML reads it as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# strict: neither a word nor true is a number; int64 bounds whole numbers, as in numpy and Parquet
Real = Annotated[float, Strict(), AllowInfNan(False)]
Unbounded = Annotated[float, Strict()]  # infinity means that there is no limit
WholeNumber = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63), BeforeValidator(as_whole_number)]
Flag = Annotated[bool, Strict()]
Share = Annotated[Real, Field(gt=0, lt=1)]
Count = Annotated[WholeNumber, Field(ge=1)]
Values = Annotated[tuple[Any, ...], BeforeValidator(frozen)]
Value = Annotated[Any, BeforeValidator(frozen)]
HyperparameterValues = Annotated[dict[str, Any], BeforeValidator(frozen)]
STRICT: dict[Any, Any] = {float: Real, int: WholeNumber, bool: Flag, tuple[Any, ...]: Values, Any: Value}
SECTIONS = "sections"  # under this word a type that is made late says so, for the schema of all keys
InFile = Callable[[Any], Any]  # a dataclass's type of a setting -> the type of the value in a file


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def in_file(hint: Any) -> Any:
    """Return the type that a value in a file must have where the dataclass has this one."""
    if hint in STRICT:
        return STRICT[hint]
    if get_origin(hint) is Annotated:  # such a hint marks a number that may be infinite
        return Unbounded
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, (part if part is NoneType else in_file(part) for part in get_args(hint)))
    if get_origin(hint) is tuple:
        parts = tuple(part if part is ... else in_file(part) for part in get_args(hint))
        return tuple[parts]  # type: ignore[valid-type]
    return hint


def keys_of(
    made: type,
    without: Collection[str] = (),
    convert: InFile = in_file,
) -> dict[str, Any]:
    """Return a dataclass's fields as pydantic takes the keys of a section: name -> (type, default)."""
    hints = get_type_hints(made, include_extras=True)
    return {
        field.name: (convert(hints[field.name]), ... if field.default is MISSING else field.default)
        for field in fields(made)
        if field.init and field.name not in without
    }


def section_of(made: type, without: Collection[str] = (), checked_with: Mapping[str, Any] | None = None) -> Any:
    """Return the section that sets a dataclass; its `build` makes the dataclass, given the fields in `without`.

    `checked_with` holds values for those of these fields that have no default: the section's own check
    needs them.
    """
    names = {field.name for field in fields(made)} - set(without)

    class Section(Settings):
        made_of: ClassVar[type] = made

        @model_validator(mode="after")
        def check(self) -> "Section":
            self.build(**(checked_with or {}))
            return self

        def build(self, **more: Any) -> Any:
            return made(**{name: value for name, value in self if name in names}, **more)

    return create_model(made.__name__, __base__=Section, **keys_of(made, without))


@cache
def kind_of(kind: str, made: type) -> Any:
    """Return the section that names a rule or a domain by its kind, and sets it."""

    class Named(Settings):
        made_of: ClassVar[type] = made

        @model_validator(mode="after")
        def check(self) -> "Named":
            self.build()
            return self

        def build(self) -> Any:
            return made(**{name: value for name, value in self if name != "kind"})

        def __reduce__(self) -> Any:
            return remade, (kind_of, (kind, made), dict(self), self.model_fields_set)

    Named.__doc__ = made.__doc__

    keys = keys_of(made)
    return create_model(made.__name__, __base__=Named, kind=(Literal[kind], ...), **keys)  # type: ignore[arg-type]


def remade(
    section_by: Callable[..., Any], arguments: tuple[Any, ...], values: dict[str, Any], given: set[str]
) -> Any:
    """Return a section as it was pickled; its class is made here if this process does not have it yet."""
    return section_by(*arguments).model_construct(given, **values)


def kind_in(value: Any) -> str:
    """Return the kind of a section, whether it is still a mapping or already built."""
    return str(value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None))


class Sections(Mapping[str, Any]):
    """Sections by kind; the classes that they set are imported when one is asked for, and each is made then."""

    def __init__(self, classes: Callable[[], Mapping[str, type]], make: Callable[[str, type], Any] = kind_of):
        self.find, self.make = classes, make
        self.made: dict[str, Any] = {}

    @cached_property
    def classes(self) -> Mapping[str, type]:
        return self.find()

    def __getitem__(self, kind: str) -> Any:
        if kind not in self.made:
            self.made[kind] = self.make(kind, self.classes[kind])
        return self.made[kind]

    def __contains__(self, kind: object) -> bool:
        return kind in self.classes

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, eq=False)
class OneOf:
    """The type of a key that takes one of these sections by `kind`; a word alone is a kind by defaults.

    Only the section that a file names is made, since all of them take longer than everything else.
    """

    sections: Mapping[str, Any]
    kind_in: Callable[[Any], str] = kind_in

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validated, metadata={SECTIONS: self})

    def validated(self, value: Any) -> Any:
        value = {"kind": value} if isinstance(value, str) else value
        kind = self.kind_in(value)
        if kind not in self.sections:
            told = {"discriminator": "kind", "tag": kind, "expected_tags": ", ".join(self.sections)}
            raise PydanticKnownError("union_tag_invalid", told)
        return self.validators(kind).validate_python(value)

    @cache  # noqa: B019  (there is one of these for each key of a file)
    def validators(self, kind: str) -> SchemaValidator:
        """Return what checks a section of this kind; like pydantic's unions it adds the kind to a place."""
        made = self.sections[kind].__pydantic_core_schema__
        return SchemaValidator(core_schema.tagged_union_schema({kind: made}, self.kind_in))


@dataclass(frozen=True)
class Late:
    """The type of a key whose section is imported when a file has it, from `module:Class`."""

    place: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validated, metadata={SECTIONS: self})

    @property
    def section(self) -> type[BaseModel]:
        module, _, name = self.place.partition(":")
        found: type[BaseModel] = getattr(import_module(module), name)
        return found

    def validated(self, value: Any) -> Any:
        return self.section.model_validate(value)
