"""The JSON schema of all that a run's file may hold: sections that are made late are made for it."""

from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from shoal.search.config.run import Run
from shoal.search.config.sections_of import SECTIONS, Late


class Whole(GenerateJsonSchema):
    """Writes a key that takes a section, or one of several, as a schema of them all."""

    def function_plain_schema(self, schema: Any) -> JsonSchemaValue:
        late = schema.get("metadata", {}).get(SECTIONS)
        if late is None:
            return super().function_plain_schema(schema)
        if isinstance(late, Late):
            return self.section_schema(late.section)
        return {"oneOf": [self.section_schema(section) for section in late.sections.values()]}

    def section_schema(self, section: type[BaseModel]) -> JsonSchemaValue:
        """Return a reference to the schema of a section, which is written once."""
        ref = f"{section.__module__}.{section.__qualname__}:{id(section)}"
        name, reference = self.get_cache_defs_ref_schema(ref)  # type: ignore[arg-type]
        if name not in self.definitions:
            self.definitions[name] = {}  # it may hold itself, as a space within a space does
            made: Any = section.__pydantic_core_schema__
            self.definitions[name] = self.generate_inner({key: made[key] for key in made if key != "ref"})
        return reference


def whole_schema(written_by: type[Whole] = Whole) -> dict[str, Any]:
    return TypeAdapter(Run).json_schema(schema_generator=written_by)
