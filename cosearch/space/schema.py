"""The JSON schema of space files, for completion and checks in editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cosearch.hardware import TEMPLATES
from cosearch.space.document import VERSION, Document, Rule, section_model
from cosearch.space.templates import MODEL_RULES, accelerator_rules

__all__ = ["space_schema"]


def space_schema() -> dict[str, Any]:
    """Returns the JSON schema (draft 2020-12) of space files; its ``$id`` carries the version."""
    schema = Document.model_json_schema()
    defs = schema.setdefault("$defs", {})
    hardware = {name: accelerator_rules(template) for name, template in TEMPLATES.items()}
    for side, rules in (("model", MODEL_RULES), ("accelerator", hardware)):
        schema["properties"][side] = {
            "title": side,
            "description": schema["properties"][side]["description"],
            "oneOf": [{"$ref": f"#/$defs/{side}_{name}"} for name in rules],
        }
        defs.update(_sections(side, rules))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:cosearch:{VERSION.replace('/', ':')}",
        **schema,
        "$defs": dict(sorted(defs.items())),
    }


def _sections(side: str, rules: Mapping[str, tuple[Rule, ...]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, entries in rules.items():
        section = section_model(name, entries, f"{side} {name}").model_json_schema()
        out |= section.pop("$defs", {})
        for rule in entries:
            if rule.options:
                section["properties"][rule.name]["examples"] = list(rule.options)
        out[f"{side}_{name}"] = section
    return out
