"""Manifests as text."""

from collections.abc import Sequence
from typing import Any

import yaml


class ManifestDumper(yaml.SafeDumper):
    """Writes every mapping in full, without anchors, and a text of several lines as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


ManifestDumper.add_representer(str, _text)


def as_text(manifests: Sequence[dict[str, Any]]) -> str:
    """Return the manifests as one YAML text."""
    return yaml.dump_all(manifests, Dumper=ManifestDumper, sort_keys=False, width=110)
