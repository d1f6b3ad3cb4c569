"""The shape of a space file: pydantic models, and what their complaints mean in plain words.

pydantic stands at this border alone. It checks which keys there are and the types of what they hold; what the values
mean is checked when the space is built. The models of the sections are made from rules, so that field names,
descriptions and the JSON schema have one source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, ValidationError, create_model
from pydantic import Field as Described

from cosearch.errors import FileError, did_you_mean
from cosearch.spec import Scalar

__all__ = [
    "VERSION",
    "ChoiceSetting",
    "ConstraintSetting",
    "Document",
    "FloatSetting",
    "IntegerSetting",
    "Rule",
    "Setting",
    "read_document",
    "read_section",
    "section_model",
]

VERSION = "space/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a section's field may hold.

    Attributes:
        name: the field.
        kind: type of its values: `int`, `float`, `str` or `bool`.
        description: one line, for the JSON schema.
        need: what a value must be, as in "is 0, but ...".
        low: least value of a number.
        high: largest value of a number.
        also: values allowed beside those from ``low`` to ``high``.
        options: the only values allowed; empty where any is.
        per: whether it can repeat: ``block``, ``stage`` or not at all.
        default: its value where the file leaves it out.
        required: whether the file must give it.
        constant: whether it cannot be searched.
    """

    name: str
    kind: type
    description: str
    need: str = ""
    low: float = float("-inf")
    high: float = float("inf")
    also: tuple[Scalar, ...] = ()
    options: tuple[Scalar, ...] = ()
    per: str = ""
    default: Scalar | None = None
    required: bool = False
    constant: bool = False

    def allows(self, value: Scalar) -> bool:
        """Returns whether ``value``, which has the right type, can be used."""
        if self.options:
            return value in self.options
        if isinstance(value, (bool, str)):
            return True
        return self.low <= value <= self.high or value in self.also


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, validate_by_alias=True, validate_by_name=False)


class _Repeated(_Strict):
    per: Literal["block", "stage"] | None = Described(None, description="Repeat it for each block or stage.")
    when: str | None = Described(None, description="It exists only where this expression holds.")
    otherwise: Scalar | None = Described(None, description="Its value where `when` does not hold.")


class ChoiceSetting(_Repeated):
    """One of some listed values."""

    choice: list[Scalar] = Described(description="The values, all different.")


class IntegerSetting(_Repeated):
    """Whole numbers from the first to the second bound."""

    bounds: list[int] = Described(alias="int", min_length=2, max_length=2, description="Least and largest value.")
    step: int | None = Described(None, description="Distance between values; 1 if left out.")
    log: int | None = Described(None, description="Factor between values, instead of a distance.")


class FloatSetting(_Repeated):
    """Numbers from the first to the second bound."""

    bounds: list[float] = Described(alias="float", min_length=2, max_length=2, description="Least and largest value.")
    step: float | None = Described(None, description="Distance between values; without it, every number counts.")
    log: bool | float | None = Described(
        None, description="Factor between values; `true`: every number, on a log scale."
    )


class ConstraintSetting(_Strict):
    """What every candidate satisfies, and why."""

    that: str = Described(description="Expression that holds.")
    why: str = Described("", description="The reason, for people.")


_DOMAINS = ("choice", "int", "float")
_TAGS: Mapping[str, type[BaseModel]] = {
    "#choice": ChoiceSetting,
    "#int": IntegerSetting,
    "#float": FloatSetting,
    "#that": ConstraintSetting,
}


def _setting_tag(value: Any) -> str | None:
    if isinstance(value, Mapping):
        kinds = [kind for kind in _DOMAINS if kind in value]
        return f"#{kinds[0]}" if len(kinds) == 1 else None
    return "#constant" if isinstance(value, (bool, int, float, str)) else None


def _constraint_tag(value: Any) -> str | None:
    return "#text" if isinstance(value, str) else "#that" if isinstance(value, Mapping) else None


Setting = Annotated[
    Annotated[ChoiceSetting, Tag("#choice")]
    | Annotated[IntegerSetting, Tag("#int")]
    | Annotated[FloatSetting, Tag("#float")]
    | Annotated[Scalar, Tag("#constant")],
    Discriminator(_setting_tag),
]
ConstraintItem = Annotated[
    Annotated[str, Tag("#text")] | Annotated[ConstraintSetting, Tag("#that")], Discriminator(_constraint_tag)
]


class Document(_Strict):
    """A search space: what can be chosen of the model and of the accelerator."""

    cosearch: Literal["space/1"] = Described(description="Kind and version of this file.")
    name: str = Described(min_length=1, description="Name of the space.")
    description: str = Described("", description="What it is for, in a sentence or two.")
    model: dict[str, Any] = Described(description="The model: a template and its fields.")
    accelerator: dict[str, Any] = Described(description="The accelerator: a template and its fields.")
    constraints: list[ConstraintItem] = Described([], description="Expressions that every candidate satisfies.")


@lru_cache(maxsize=64)
def section_model(template: str, rules: tuple[Rule, ...], title: str) -> type[BaseModel]:
    """Returns the pydantic model of a section whose ``template`` has fields by ``rules``."""
    fields: dict[str, Any] = {
        "template": (Literal[template], Described(description="The template that says which fields there are."))
    }
    for rule in rules:
        kind: Any = Scalar if rule.constant else Setting
        fields[rule.name] = (
            kind if rule.required else kind | None,
            Described(... if rule.required else None, title=rule.name, description=rule.description),
        )
    return create_model(title, __base__=_Strict, __doc__=f"Fields of the template {template!r}.", **fields)


def read_document(data: Any, file: str) -> Document:
    """Returns the document that the content of ``file`` is.

    Raises:
        FileError: it is none.
    """
    if not isinstance(data, Mapping):
        what = "is empty" if data is None else f"holds {_spoken(data)}"
        raise FileError(file, "", f"{what}, but a space file is a mapping", f"begin with 'cosearch: {VERSION}'")
    if "cosearch" not in data:
        raise FileError(file, "cosearch", "is missing", f"begin the file with 'cosearch: {VERSION}'")
    if data["cosearch"] != VERSION:
        raise FileError(
            file,
            "cosearch",
            f"is {data['cosearch']!r}, which this version does not read",
            f"write 'cosearch: {VERSION}'",
        )
    try:
        return Document.model_validate(dict(data))
    except ValidationError as error:
        raise _explained(error, file, "", Document) from None


def read_section(
    data: Mapping[str, Any], templates: Mapping[str, type[BaseModel]], file: str, side: str
) -> tuple[str, dict[str, Any]]:
    """Returns the template's name and the settings of a section, those left out not in it.

    Raises:
        FileError: the template or a field is unknown, or a setting has the wrong shape.
    """
    template = data.get("template")
    if template is None:
        raise FileError(file, f"{side}.template", "is missing", f"write one of {', '.join(templates)}")
    if template not in templates:
        raise FileError(
            file, f"{side}.template", f"is {template!r}, which is unknown", did_you_mean(str(template), templates)
        )
    kind = templates[template]
    try:
        section = kind.model_validate(dict(data))
    except ValidationError as error:
        raise _explained(error, file, side, kind) from None
    names = (name for name in kind.model_fields if name != "template" and data.get(name) is not None)
    return template, {name: getattr(section, name) for name in names}


def _explained(error: ValidationError, file: str, side: str, root: type[BaseModel]) -> FileError:
    """Returns the first complaint of pydantic as an error that a user can act on."""
    complaints = error.errors(include_url=False, include_context=True)
    # a misspelt field is also a missing one: the spelling is what to mend
    first = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
    model, path = root, side
    for part in first["loc"]:
        if part == "[key]":
            path = path.rpartition("[")[0]
            return FileError(file, path, f"has the key {_spoken(first['input'])}", "write a field's name instead")
        if str(part).startswith("#"):
            model = _TAGS.get(str(part), model)
        elif str(part) not in ("bool", "int", "float", "str") or first["type"] == "extra_forbidden":
            path = f"{path}[{part}]" if isinstance(part, int) else f"{path}.{part}".lstrip(".")
        elif _is_field(str(part), model, path):
            path = f"{path}.{part}"
    problem, remedy = _words(first, model)
    return FileError(file, path, problem, remedy)


def _is_field(part: str, model: type[BaseModel], path: str) -> bool:
    """Whether ``part`` of pydantic's location is the key ``int`` or ``float`` rather than a member of a union."""
    return any(item.alias == part for item in model.model_fields.values()) and not path.endswith(
        (".step", ".log", ".otherwise")
    )


def _words(first: Any, model: type[BaseModel]) -> tuple[str, str]:
    kind, given = first["type"], first["input"]
    keys = [item.alias or name for name, item in model.model_fields.items()]
    match kind:
        case "extra_forbidden" | "invalid_key":
            return "is not a field here", did_you_mean(str(first["loc"][-1]), keys)
        case "missing":
            return "is missing", "add it"
        case "union_tag_not_found":
            return _shapeless(given, str(first["loc"][0]))
        case "literal_error":
            return f"is {given!r}, which is unknown", f"write {first['ctx']['expected'].replace(chr(39), '')}"
        case "too_short" | "too_long":
            return f"has {len(given)} numbers", "write two, the least and the largest, such as [4, 64]"
        case "string_too_short":
            return "is empty", "write a text"
    wants = {"int": "a whole number", "float": "a number", "string": "a text", "list": "a list", "dict": "a mapping"}
    wanted = wants.get(kind.partition("_")[0], "one value")
    return f"is {_spoken(given)}, but needs {wanted}", f"write {wanted}"


def _shapeless(given: Any, section: str) -> tuple[str, str]:
    if section == "constraints":
        return f"is {_spoken(given)}", "write an expression, or {that: an expression, why: the reason}"
    if isinstance(given, Mapping):
        both = [kind for kind in _DOMAINS if kind in given]
        if both:
            return f"has both {' and '.join(both)}", "keep one of them"
        return "has no values to choose from", "add one of choice, int or float, such as choice: [1, 2]"
    if isinstance(given, list):
        return "is a list", f"write {{choice: {given}}} to choose one of its values"
    return f"is {_spoken(given)}", "write a value, or a mapping with choice, int or float"


def _spoken(value: Any) -> str:
    if value is None:
        return "empty"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)
