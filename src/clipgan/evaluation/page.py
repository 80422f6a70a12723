"""One self-contained HTML page: values with intervals and protocols, comparisons, pictures.

Pictures are inside as data URIs; there is no script, and nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from clipgan.errors import EvaluationError
from clipgan.evaluation.comparison import NO_DIFFERENCE, MetricComparison
from clipgan.evaluation.protocol import MetricValue, Protocol, compare_values
from clipgan.evaluation.report import REAL, Evaluation, format_number, is_lower_better

STYLE = """
:root { color-scheme: light dark; --line: #e1e5ea; --soft: #646d78; --good: #1d7a33;
  --bad: #b3261e; --box: #f5f7f9; --page: #fff; --text: #1b1f24; --link: #1f5fa8; }
@media (prefers-color-scheme: dark) { :root { --line: #333a42; --soft: #98a3ae; --good: #6fcf7c;
  --bad: #ff8a80; --box: #20252b; --page: #15181c; --text: #e6e8ea; --link: #8ab8f0; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 78rem; margin: 0 auto; padding: 1.6rem 1.4rem 4rem; }
h1 { font-size: 1.75rem; letter-spacing: -.01em; margin: 0 0 .6rem; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .5rem; padding-top: .4rem; }
h3 { font-size: .95rem; color: var(--soft); margin: 1.2rem 0 .5rem; overflow-wrap: anywhere; }
nav { position: sticky; top: 0; background: var(--page); border-bottom: 1px solid var(--line);
  padding: .5rem 0; font-size: .9rem; z-index: 1; } section { scroll-margin-top: 2.6rem; }
a { color: var(--link); text-decoration: none; } nav a { margin-right: 1rem; white-space: nowrap; }
p.note, .soft { color: var(--soft); } p.note { margin: .2rem 0 .8rem; max-width: 60rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th { font-size: .85rem; color: var(--soft); font-weight: 600; } tbody tr:hover {
  background: var(--box); }
th, td { text-align: left; padding: .4rem 1rem .4rem .3rem; border-bottom: 1px solid var(--line);
  vertical-align: top; } td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td .soft { font-size: .85rem; font-weight: 400; }
img { max-width: 100%; height: auto; image-rendering: pixelated; border-radius: 4px; }
.smooth img { image-rendering: auto; } #samples td { vertical-align: middle; }
.best { font-weight: 700; } .better { color: var(--good); font-weight: 600; }
.worse { color: var(--bad); font-weight: 600; }
.row { display: flex; flex-wrap: wrap; gap: .9rem; } figure { margin: 0; width: 9.4rem;
  background: var(--box); border-radius: 8px; padding: .6rem; box-sizing: border-box; }
figcaption { font-size: .8rem; line-height: 1.35; color: var(--soft); overflow-wrap: anywhere;
  margin-top: .3rem; }
details { background: var(--box); padding: .5rem .9rem; border-radius: 8px; margin: .4rem 0; }
summary { cursor: pointer; font-weight: 600; }
"""

Pictures = Sequence[tuple[str, bytes]]
"""Caption and PNG of each."""


@dataclass(frozen=True)
class PageContent:
    """All that the page shows.

    Attributes:
        title: its heading.
        evaluation: sections are the models (and ``real``).
        comparisons: of the models with a baseline.
        prompts: one a row of the sample grid.
        samples: model -> one PNG a prompt, columns on shared latents.
        curves: PNG over images seen; None: there is no training.
        figures: precision-recall plots.
        nearest: model -> pairs, generated image and its nearest training image side by side.
        worst: model -> images that fit their captions least.
    """

    title: str
    evaluation: Evaluation
    comparisons: Sequence[MetricComparison] = ()
    prompts: Sequence[str] = ()
    samples: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    curves: bytes | None = None
    figures: Pictures = ()
    nearest: Mapping[str, Pictures] = field(default_factory=dict)
    worst: Mapping[str, Pictures] = field(default_factory=dict)


def build_page(content: PageContent) -> str:
    """The page as text; the same content gives the same bytes."""
    parts = [
        ("summary", "In words", _list(content.evaluation.summary)),
        ("values", "Values", _values(content.evaluation)),
        ("comparisons", "Paired comparisons", _comparisons(content.comparisons)),
        ("samples", "Samples on shared seeds", _samples(content.prompts, content.samples)),
        ("curves", "Over images seen", _curves(content.curves)),
        ("precision-recall", "Precision and recall", _row(content.figures)),
        ("nearest", "Nearest training images", _galleries(content.nearest)),
        ("worst", "Captions that fit least", _galleries(content.worst)),
        ("notes", "Read with care", _list(content.evaluation.warnings)),
        ("skipped", "Not computed", _skipped(content.evaluation.skipped)),
        ("protocols", "Protocols", _protocols(content.evaluation)),
    ]
    present = [(name, title, body) for name, title, body in parts if body]
    links = " ".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in present)
    sections = "\n".join(
        f'<section id="{name}"><h2>{escape(title)}</h2>\n{body}</section>'
        for name, title, body in present
    )
    title = escape(content.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n<nav>{links}</nav>\n{sections}\n</body></html>\n"
    )


def _values(evaluation: Evaluation) -> str:
    sections = [name for name, values in evaluation.values.items() if values]
    names = dict.fromkeys(name for section in sections for name in evaluation.values[section])
    head = "".join(f"<th>{escape(section)}</th>" for section in sections)
    rows = []
    for name in names:
        found = {section: evaluation.values[section].get(name) for section in sections}
        better = "lower" if is_lower_better(name) else "higher"
        best = _find_best(found, is_lower_better(name))
        cells = "".join(
            f'<td class="number{" best" if section == best else ""}">{_number(value)}</td>'
            for section, value in found.items()
        )
        first = next(value for value in found.values() if value is not None)
        judge = "" if first.protocol.independent else "; by the training CLIP"
        rows.append(
            f"<tr><td>{escape(name)}<br><span class=soft>{better} is better{judge}</span></td>"
            f"{cells}<td>{escape(first.protocol.name)}</td></tr>"
        )
    return (
        f"{_explain(evaluation)}<div class=scroll><table><thead><tr><th>metric</th>{head}"
        f"<th>protocol</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _find_best(found: Mapping[str, MetricValue | None], lower_is_better: bool) -> str | None:
    """The model whose paired comparison with every other one shows it to be better; mostly None.
    Real images do not compete."""
    models = {model: v for model, v in found.items() if v is not None and model != REAL}
    if len(models) < 2:
        return None
    choose = min if lower_is_better else max
    best = choose(models, key=lambda model: models[model].value)
    others = [value for model, value in models.items() if model != best]
    return best if all(_differ(models[best], value) for value in others) else None


def _differ(a: MetricValue, b: MetricValue) -> bool:
    try:
        bounds = compare_values(a, b).bounds
    except EvaluationError:
        return False
    return bounds.low > 0 or bounds.high < 0


def _number(value: MetricValue | None) -> str:
    number, _, interval = format_number(value).partition(" ")
    return f"{number} <span class=soft>{interval}</span>" if interval else number


def _explain(evaluation: Evaluation) -> str:
    values = [value for found in evaluation.values.values() for value in found.values()]
    intervals = [value.interval for value in values if value.interval is not None]
    if not intervals:
        return ""
    share = f"{intervals[0].confidence:.0%}"
    return (
        f"<p class=note>In brackets: {share} intervals, from {escape(intervals[0].method)}. "
        "They say how far a value moves with other captions and latents; the reference is the "
        "same. Bold: better than every other model by more than chance, as the paired comparison "
        "shows. Real images stand in a model's place in the column real.</p>"
    )


def _comparisons(comparisons: Sequence[MetricComparison]) -> str:
    rows = []
    for found in comparisons:
        names = f"<td>{escape(found.metric)}</td><td>{escape(found.model)}</td>"
        if found.refused:
            rows.append(f"<tr>{names}<td colspan=3>{escape(found.refused)}</td></tr>")
            continue
        numbers = f"{found.difference:+.4g} [{found.low:+.4g}, {found.high:+.4g}]"
        kind = "soft" if found.verdict == NO_DIFFERENCE else found.verdict
        rows.append(
            f'<tr>{names}<td class="number">{numbers}</td><td class="number">'
            f'{found.p_value:.2g}</td><td class="{kind}">{escape(found.verdict)}</td></tr>'
        )
    if not rows:
        return ""
    baseline = escape(comparisons[0].baseline)
    return (
        f"<p class=note>Each against {baseline}, on the same captions and latents. With many "
        "metrics some differ by chance: one in twenty below p = 0.05.</p><div class=scroll>"
        "<table><thead><tr><th>metric</th><th>model</th><th>difference</th><th>p</th><th></th>"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _samples(prompts: Sequence[str], samples: Mapping[str, Sequence[bytes]]) -> str:
    if not samples:
        return ""
    head = "".join(f"<th>{escape(model)}</th>" for model in samples)
    rows = []
    for row, prompt in enumerate(prompts):
        cells = "".join(
            f"<td>{_image(pictures[row], f'{model}: {prompt}')}</td>"
            for model, pictures in samples.items()
        )
        rows.append(f"<tr><td>{escape(prompt)}</td>{cells}</tr>")
    return (
        "<p class=note>The pictures of a column of each strip share their latent, across prompts "
        f"and models.</p><div class=scroll><table><thead><tr><th>prompt</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _curves(curves: bytes | None) -> str:
    if curves is None:
        return ""
    return f"<div class=smooth>{_image(curves, 'losses and metrics over images seen')}</div>"


def _galleries(galleries: Mapping[str, Pictures]) -> str:
    return "".join(
        f"<h3>{escape(model)}</h3>{_row(pictures)}"
        for model, pictures in galleries.items()
        if pictures
    )


def _row(pictures: Pictures) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f"<figure>{_image(png, caption)}<figcaption>{escape(caption)}</figcaption></figure>"
        if len(pictures) > 2
        else _image(png, caption)
        for caption, png in pictures
    )
    kind = "row" if len(pictures) > 2 else "row smooth"
    return f'<div class="{kind}">{figures}</div>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _skipped(skipped: Mapping[str, str]) -> str:
    return _list([f"{metric}: {reason}" for metric, reason in skipped.items()])


def _protocols(evaluation: Evaluation) -> str:
    values: dict[str, MetricValue] = {}
    for found in evaluation.values.values():
        for name, value in found.items():
            values.setdefault(name, value)
    return "".join(
        f"<details><summary>{escape(name)}</summary>{_protocol(value.protocol)}</details>"
        for name, value in values.items()
    )


def _protocol(protocol: Protocol) -> str:
    rows = "".join(
        f"<tr><td>{escape(key.replace('_', ' '))}</td><td>{escape(str(value))}</td></tr>"
        for key, value in protocol.model_dump(mode="json").items()
    )
    return f"<table>{rows}</table>"


def _image(png: bytes, text: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'
