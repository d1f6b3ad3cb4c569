"""Turns the content of a space file into a `Space`, and refuses what cannot work with the field and the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from cosearch.errors import FileError, SpecError, did_you_mean
from cosearch.hardware import TEMPLATES
from cosearch.space.accelerator import AcceleratorSide
from cosearch.space.document import (
    ChoiceSetting,
    ConstraintSetting,
    FloatSetting,
    IntegerSetting,
    Rule,
    read_document,
    read_section,
    section_model,
)
from cosearch.space.domains import Choice, Domain, Float, Integer
from cosearch.space.expression import Expression, parse
from cosearch.space.field import Constraint, Field
from cosearch.space.shipped import find_space
from cosearch.space.side import ATTEMPTS
from cosearch.space.space import Space
from cosearch.space.templates import MODEL_RULES, accelerator_rules
from cosearch.space.vit import DERIVED, ModelSide
from cosearch.spec import TOKEN_METHODS, Scalar, TaskShape
from cosearch.yamlfile import read_yaml, shown

__all__ = ["build_space", "load_space"]

_MOST_CHECKED = 4096
_PROBES = 16
_KINDS: Mapping[type, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}

_Setting = ChoiceSetting | IntegerSetting | FloatSetting


def load_space(name_or_path: str, task: TaskShape) -> Space:
    """Returns the space with this name, or in this file, for models that solve ``task``.

    Args:
        name_or_path: a path (it has a separator, or ends in ``.yaml`` or ``.yml``), or the name of a file in ``spaces``
            under the working directory or among those that come with the package.
        task: images and labels of the models.

    Raises:
        NotFoundError: no space has this name.
        FileError: the file is wrong; says where, and how to mend it.
    """
    path = find_space(name_or_path)
    return build_space(read_yaml(path, "space file"), shown(path), task, TEMPLATES)


def build_space(data: Any, file: str, task: TaskShape, templates: Mapping[str, type]) -> Space:
    """Returns the space that the content of a space file describes.

    Args:
        data: the content, as dicts, lists and scalars.
        file: the file's name for messages.
        task: images and labels of the models.
        templates: accelerator templates by name: frozen dataclasses that raise `SpecError` for what cannot be built.

    Raises:
        FileError: the content is wrong.
    """
    document = read_document(data, file)
    hardware = {name: accelerator_rules(template) for name, template in templates.items()}
    model = _Section.read(document.model, MODEL_RULES, file, "model")
    accelerator = _Section.read(document.accelerator, hardware, file, "accelerator")
    make = templates[accelerator.template]
    known = {"model": {*model.rules, *DERIVED}, "accelerator": set(accelerator.rules)}
    fields = {section.side: section.fields(known) for section in (model, accelerator)}
    _check_model(model, fields["model"], task)
    _check_accelerator(accelerator, fields["accelerator"], make)
    constraints = _constraints(document.constraints, known, file)
    defaults = {name: rule.default for name, rule in accelerator.rules.items() if rule.default is not None}
    try:
        space = Space(
            name=document.name,
            description=document.description.strip(),
            file=file,
            task=task,
            model=ModelSide(task, fields["model"], _of(constraints, "model")),
            accelerator=AcceleratorSide(
                accelerator.template, make, fields["accelerator"], _of(constraints, "accelerator"), defaults
            ),
            constraints=constraints,
        )
    except SpecError as error:
        raise FileError(file, error.field, error.problem, error.remedy) from None
    _check_satisfiable(space)
    return space


def _of(constraints: Iterable[Constraint], side: str) -> list[Constraint]:
    return [constraint for constraint in constraints if constraint.sides == {side}]


@dataclass(frozen=True, slots=True)
class _Section:
    """A section of the file on its way to fields."""

    file: str
    side: str
    template: str
    rules: Mapping[str, Rule]
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, data: Mapping[str, Any], rules: Mapping[str, tuple[Rule, ...]], file: str, side: str) -> _Section:
        models = {name: section_model(name, entries, name) for name, entries in rules.items()}
        template, settings = read_section(data, models, file, side)
        return cls(file, side, template, {rule.name: rule for rule in rules[template]}, settings)

    def fail(self, name: str, problem: str, remedy: str) -> NoReturn:
        raise FileError(self.file, f"{self.side}.{name}", problem, remedy)

    def fields(self, known: Mapping[str, Iterable[str]]) -> tuple[Field, ...]:
        """Returns a field for each rule that the file mentions; for the model also those left to their default."""
        made = []
        for name, rule in self.rules.items():
            if name in self.settings:
                made.append(self._field(rule, self.settings[name], known))
            elif self.side == "model" and rule.default is not None:
                made.append(self._constant(rule, rule.default))
        return self._repeated(made)

    def _constant(self, rule: Rule, value: Scalar) -> Field:
        own = Choice((self._typed(rule, rule.name, value),))
        return Field(side=self.side, name=rule.name, kind=rule.kind, domain=own, fixed=True)

    def _field(self, rule: Rule, setting: Any, known: Mapping[str, Iterable[str]]) -> Field:
        if not isinstance(setting, (ChoiceSetting, IntegerSetting, FloatSetting)):
            out = self._constant(rule, setting)
            self._check_value(rule, rule.name, out.domain.values()[0], "")
            return out
        domain = self._domain(rule, setting)
        for where, value in _places(domain):
            self._check_value(rule, f"{rule.name}.{where}", value, "remove it or " * where.startswith("choice"))
        when = self._condition(rule, setting, known)
        otherwise = self._otherwise(rule, setting)
        repeats = {None: None, "block": 0, "stage": 0}[self._per(rule, setting)]
        return Field(
            side=self.side,
            name=rule.name,
            kind=rule.kind,
            domain=domain,
            repeats=repeats,
            when=when,
            otherwise=otherwise,
        )

    def _typed(self, rule: Rule, where: str, value: Scalar) -> Scalar:
        """Returns ``value`` with the field's type."""
        if rule.kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if type(value) is not rule.kind:
            wanted = _KINDS.get(rule.kind, rule.kind.__name__)
            self.fail(where, f"is {value!r}, but needs {wanted}", f"write {wanted}")
        return value

    def _domain(self, rule: Rule, setting: _Setting) -> Domain:
        name = rule.name
        try:
            if isinstance(setting, ChoiceSetting):
                listed = enumerate(setting.choice)
                return Choice(tuple(self._typed(rule, f"{name}.choice[{i}]", value) for i, value in listed))
            if rule.kind not in (int, float) or (rule.kind is int and isinstance(setting, FloatSetting)):
                kind = "int" if isinstance(setting, IntegerSetting) else "float"
                remedy = "write int instead" if rule.kind is int else "list values under choice"
                self.fail(f"{name}.{kind}", f"gives numbers, but needs {_KINDS[rule.kind]}", remedy)
            if setting.step is not None and setting.log is not None:
                self.fail(name, "has both step and log", "keep one of them")
            low, high = setting.bounds
            if isinstance(setting, IntegerSetting):
                step = 1 if setting.step is None else setting.step
                return Integer(
                    int(low), int(high), step if setting.log is None else setting.log, setting.log is not None
                )
            if isinstance(setting.log, bool) or setting.log is None:
                return Float(low, high, setting.step, bool(setting.log))
            return Float(low, high, float(setting.log), True)
        except SpecError as error:
            self.fail(f"{name}.{error.field}", error.problem, error.remedy)

    def _check_value(self, rule: Rule, where: str, value: Scalar, remove: str) -> None:
        if rule.allows(value):
            return
        if rule.options:
            self.fail(where, f"is {value!r}, which is unknown", did_you_mean(str(value), map(str, rule.options)))
        bound = rule.low if isinstance(value, (int, float)) and value < rule.low else rule.high
        verb = "is" if where == rule.name or where.endswith("]") or where.endswith("otherwise") else "gives"
        self.fail(where, f"{verb} {value:g}, but {rule.need}", f"{remove}write {bound:g}")

    def _per(self, rule: Rule, setting: _Setting) -> str | None:
        if setting.per is not None and setting.per != rule.per:
            remedy = f"write per: {rule.per}" if rule.per else "remove it"
            there = f"one value per {rule.per} at most" if rule.per else "one value"
            self.fail(f"{rule.name}.per", f"is {setting.per}, but {self.side}.{rule.name} has {there}", remedy)
        return setting.per

    def _condition(self, rule: Rule, setting: _Setting, known: Mapping[str, Iterable[str]]) -> Expression | None:
        where = f"{rule.name}.when"
        if setting.when is None:
            if setting.otherwise is not None:
                self.fail(f"{rule.name}.otherwise", "is there without a condition", "add when, or remove it")
            return None
        try:
            when = parse(setting.when, {side: set(names) for side, names in known.items()})
        except SpecError as error:
            self.fail(where, error.problem, error.remedy)
        for name in sorted(when.names):
            side, _, mentioned = name.partition(".")
            if side != self.side:
                self.fail(
                    where, f"mentions {name}, but each side stands on its own", "tie the two sides with a constraint"
                )
            ratio = self.side == "model" and mentioned in ("keep", "mlp_ratio", "kept", "macs", "weight_bytes")
            repeated = getattr(self.settings.get(mentioned), "per", None)
            if (ratio or repeated) and mentioned != rule.name:
                reason = f"has one value per {repeated}" if repeated else "is known only once all is chosen"
                self.fail(where, f"mentions {name}, which {reason}", "mention other fields, or write a constraint")
            if mentioned == rule.name:
                self.fail(where, "refers to the field itself", "let conditions mention only other fields")
        return when

    def _otherwise(self, rule: Rule, setting: _Setting) -> Scalar | None:
        if setting.when is None:
            return None
        value = rule.default if setting.otherwise is None else setting.otherwise
        if value is None:
            self.fail(rule.name, "has a condition, but no value where it does not hold", "add otherwise: and a value")
        value = self._typed(rule, f"{rule.name}.otherwise", value)
        self._check_value(rule, f"{rule.name}.otherwise", value, "")
        return value

    def _repeated(self, fields: Sequence[Field]) -> tuple[Field, ...]:
        """Returns ``fields`` with the number of repetitions filled in."""
        by_name = {item.name: item for item in fields}
        if self.side != "model":
            return tuple(fields)
        depth, stages = by_name["depth"], by_name["stages"]
        deepest = max(int(value) for value in (*_ends(depth.domain), depth.otherwise or 1))
        times = {"block": deepest, "stage": int(stages.domain.values()[0]) - 1}
        per = {item.name: getattr(self.settings.get(item.name), "per", None) for item in fields}
        return tuple(replace(item, repeats=times.get(per[item.name] or "")) for item in fields)


def _ends(domain: Domain) -> tuple[Scalar, ...]:
    if isinstance(domain, Choice):
        return domain.options
    return (domain.low, domain.high if domain.size() == math.inf else domain.values()[-1])


def _places(domain: Domain) -> Iterator[tuple[str, Scalar]]:
    """Yields the values of ``domain`` (of a large one, its ends) with the place in the file that they come from."""
    if isinstance(domain, Choice):
        yield from ((f"choice[{i}]", value) for i, value in enumerate(domain.options))
        return
    kind = "int" if isinstance(domain, Integer) else "float"
    yield f"{kind}[0]", domain.low
    if domain.size() <= _MOST_CHECKED:
        yield from ((f"{kind}[1]" if value == domain.high else kind, value) for value in domain.values()[1:])
    else:
        yield f"{kind}[1]", _ends(domain)[-1]


def _check_model(section: _Section, fields: Sequence[Field], task: TaskShape) -> None:
    by_name = {item.name: item for item in fields}
    height, width = task.image
    if not any(height % int(p) == 0 and width % int(p) == 0 for _, p in _places(by_name["patch"].domain)):
        side = next((p for p in range(min(height, width) // 2, 0, -1) if height % p == 0 and width % p == 0), 1)
        section.fail(
            "patch", f"has no value that divides the {height} x {width} image", f"write a divisor such as {side}"
        )
    reduces = {*by_name["token_method"].domain.values(), by_name["token_method"].otherwise} - {"none", None}
    if reduces and "keep" not in section.settings:
        section.fail("keep", f"is missing, but token_method can be {min(map(str, reduces))}", "add it, or write none")
    if any(not TOKEN_METHODS[str(name)].core for name in reduces) and by_name["stages"].domain.values()[0] == 1:
        section.fail("stages", "is 1, so no block ever reduces its tokens", "write 2 or more, or token_method: none")
    if not reduces and not by_name["keep"].fixed:
        section.fail("keep", "is searched, but token_method is always none", "remove it, or add prune or merge")
    for one in ("weight", "activation", "edge"):
        if {f"{one}_bits", f"{one}_format"} <= set(section.settings):
            section.fail(f"{one}_format", f"stands beside {one}_bits", f"write one of them; int8 is {one}_bits 8")


def _check_accelerator(section: _Section, fields: Sequence[Field], make: Callable[..., object]) -> None:
    """Raises `FileError` for a value that the template refuses whatever the other fields are.

    Whatever they are: at their least, their largest, and at a few random values.
    """
    rng = np.random.default_rng(0)
    bases = [{item.name: _as_kind(item, _ends(item.domain)[end]) for item in fields} for end in (0, -1)] + [
        {item.name: _as_kind(item, item.domain.sample(rng)) for item in fields} for _ in range(_PROBES)
    ]
    for item in fields:
        otherwise = [("otherwise", item.otherwise)] if item.otherwise is not None else []
        for where, value in (*_places(item.domain), *otherwise):
            refused = _refusal(item, value, bases, make)
            if refused is not None:
                place = item.name if item.fixed else f"{item.name}.{where}"
                remove = "remove it or " if where.startswith("choice") and not item.fixed else ""
                problem = refused.problem if "[" in place or item.fixed else refused.problem.replace("is", "gives", 1)
                section.fail(place, problem, f"{remove}{refused.remedy}")


def _refusal(
    item: Field, value: Scalar, bases: Sequence[Mapping[str, Scalar]], make: Callable[..., object]
) -> SpecError | None:
    refused = None
    for base in bases:
        try:
            make(**{**base, item.name: _as_kind(item, value)})
        except SpecError as error:
            if error.field != item.name:
                return None  # another field is at fault
            refused = error
        else:
            return None
    return refused


def _as_kind(item: Field, value: Scalar) -> Scalar:
    return float(value) if item.kind is float else value


def _constraints(
    items: Sequence[str | ConstraintSetting], known: Mapping[str, Iterable[str]], file: str
) -> tuple[Constraint, ...]:
    out: list[Constraint] = []
    names = {side: set(fields) for side, fields in known.items()}
    for index, item in enumerate(items):
        text, why = (item, "") if isinstance(item, str) else (item.that, item.why)
        path = f"constraints[{index}]" + (".that" if not isinstance(item, str) else "")
        try:
            expression = parse(text, names)
        except SpecError as error:
            raise FileError(file, path, error.problem, error.remedy) from None
        if not expression.names:
            raise FileError(file, path, f"({text}) mentions nothing of the candidate", "name model.* or accelerator.*")
        out.append(Constraint(expression=expression, why=why, path=path))
    return tuple(out)


def _check_satisfiable(space: Space) -> None:
    """Raises `FileError` where random points are all refused; names what refuses most of them."""
    point, broken = space.attempt(np.random.default_rng(0))
    if point is not None:
        return
    limit, times = broken.most_common(1)[0]
    for constraint in space.constraints:
        if limit == constraint.expression.text or limit.startswith(f"{constraint.expression.text} (cannot"):
            raise FileError(
                space.file,
                constraint.path,
                f"({limit}) is broken by {times} of {ATTEMPTS} random points, so none is valid",
                "loosen it, or widen the domains it mentions",
            )
    raise FileError(
        space.file,
        "",
        f"allows no candidate among {ATTEMPTS} random ones: {limit}",
        "change the domains of these fields",
    )
