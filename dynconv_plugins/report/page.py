"""The page: one HTML file that needs nothing else, on a phone, on a desk and on paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

from .commands import commands
from .looks import Look
from .sections import Section
from .sheet import Table
from .summary import heading


def render(
    sections: Sequence[Section],
    summaries: Sequence[Table],
    caveats: Mapping[str, Sequence[str]],
    facts: Sequence[tuple[str, str]],
    plans: Sequence[str],
    looks: Mapping[str, Look],
    title: str,
) -> str:
    """Fills the template.

    Args:
        sections: One a task.
        summaries: One row a task.
        caveats: Lines to read before the numbers, by task.
        facts: How it was made.
        plans: The plans, as YAML.
        looks: Colours and markers of the models.
        title: Names of the studies.
    """
    from jinja2 import Environment, StrictUndefined

    source = (files("dynconv_plugins.report") / "page.html.j2").read_text(encoding="utf-8")
    options = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(**options)
    environment.filters["parted"] = parted
    template = environment.from_string(source)
    return template.render(
        sections=sections,
        summaries=summaries,
        caveats=caveats,
        facts=facts,
        plans=plans,
        looks=looks,
        title=title,
        heading=heading(s.task for s in sections),
        commands={s.task.name: commands(s.task) for s in sections},
    )


def parted(text: str):
    """A name as HTML that may be broken behind underscores and slashes, besides spaces and hyphens: never in a word."""
    from markupsafe import Markup, escape

    return Markup(re.sub("[_/]", r"\g<0><wbr>", str(escape(text))))
