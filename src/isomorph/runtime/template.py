"""Renders one chat template: JSON of `template` and `values` on standard input, the text on standard output. Runs inside a child only.

A template is a program of whoever made the file. Jinja's sandbox keeps it from everything but its values; time and memory end with the child.
"""
from __future__ import annotations

import json
import resource
import sys
from datetime import datetime
from typing import Any

MOST_MEMORY = 1 << 29


def main() -> None:
    """Exits with 3 where the template is refused or fails, with its reason on standard error."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    request = json.load(sys.stdin)
    try:
        sys.stdout.write(rendered(request["template"], request["values"]))
    except Exception as error:                  # whatever a template does is an answer for its user
        sys.stderr.write(f"{type(error).__name__}: {error}")
        sys.exit(3)


def rendered(template: str, values: dict[str, Any]) -> str:
    """The text of a template, by the conventions of transformers."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> None:
        raise TemplateError(reason)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return environment.from_string(template).render(**values)


if __name__ == "__main__":
    main()
