"""What mkdocs does beyond its configuration: pages of files that live elsewhere in the repository, and links to them.

Links in all pages are as they are in the repository, relative to the file that holds them: they work there as well.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the table of benchmarks, which is no part of the package

from benchmarks.registry import BENCHMARKS  # noqa: E402

ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "measured/benchmarks.md",
}
"""Files of the repository that are pages, and where they are on the site."""
RESULTS, MEASURED = "benchmarks/results", "measured"
"""A folder of the repository whose pages and pictures are on the site, and where."""
LIST_OF_RESULTS = "<!-- results -->"
"""In a page: the place of a table of all results."""
_EXAMPLE = re.compile(r"^\[(?P<name>docs/(?P<place>examples/\w+\.py))\]\((?P=place)\)$", re.MULTILINE)
"""A line of a page in docs/ that is nothing but a link to an example."""
_MADE_BY = re.compile(
    r"^(?:Written by |Made by )?`((?:OMP_NUM_THREADS=1 )?python -m benchmarks [a-z-]+(?: --[a-z]+)?)", re.MULTILINE
)
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that are not in docs/."""
    for place, name in _sites().items():
        if (ROOT / place).suffix == ".json":
            files.append(File.generated(config, name, content=_rows(ROOT / place)))
        else:
            files.append(File.generated(config, name, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are on the site; the command above each result; the table of results; the code of examples."""
    sites = _sites()
    name = page.file.src_uri
    place = next((place for place, site in sites.items() if site == name), f"docs/{name}")
    if place.startswith(f"{RESULTS}/") and (command := _command(Path(place))) and command not in markdown:
        title, _, rest = markdown.partition("\n")
        markdown = f"{title}\n\n```sh\n{command}\n```\n{rest}"
    if LIST_OF_RESULTS in markdown:
        markdown = markdown.replace(LIST_OF_RESULTS, _table_of_results())

    def on_site(link: re.Match[str]) -> str:
        if "://" in link[2] or link[2].startswith("mailto:"):
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link[2]))
        site = "measured.md" if target == RESULTS else sites.get(target, target.removeprefix("docs/"))
        return f"{link[1]}{posixpath.relpath(site, posixpath.dirname(name) or '.')}{link[3]}"

    return _EXAMPLE.sub(_code_of, _LINK.sub(on_site, markdown))


def _code_of(example: re.Match[str]) -> str:
    """The code of an example, to be opened."""
    code = (ROOT / example["name"]).read_text(encoding="utf-8")
    lines = [
        f'??? example "{example["name"]}"',
        "",
        "    ```python",
        *(f"    {line}" for line in code.splitlines()),
        "    ```",
    ]
    return "\n".join(lines)


def _sites() -> dict[str, str]:
    """For each file outside of docs/ that is on the site: where it is there."""
    pages = [path for path in sorted((ROOT / RESULTS).rglob("*")) if path.suffix in (".md", ".png")]
    pages += [path for path in sorted((ROOT / RESULTS).glob("cpu-*.json")) if not path.with_suffix(".md").exists()]
    named = [path.relative_to(ROOT / RESULTS).as_posix() for path in pages]
    results = {f"{RESULTS}/{one}": f"{MEASURED}/{re.sub('[.]json$', '.md', one)}" for one in named}
    return {**ELSEWHERE, **results}


def _command(result: Path) -> str:
    """What makes a file of results, as it says itself in the beginning, or as the table of benchmarks does; "" where
    `memrecon reproduce` makes its parts, each of which says how."""
    if result.suffix == ".md" and (said := _MADE_BY.search((ROOT / result).read_text(encoding="utf-8"))):
        return said[1]
    wanted = f"`{result.stem}."
    if result.stem in ("cpu-ops", "cpu-recovery"):
        return f"OMP_NUM_THREADS=1 python -m benchmarks {result.stem[4:]} --results {RESULTS}/{result.stem}.json"
    return next((f"python -m benchmarks {one.name}" for one in BENCHMARKS if wanted in one.writes), "")


def _table_of_results() -> str:
    lines = ["| result | made by |", "|---|---|"]
    for place in _sites():
        path = ROOT / place
        if place.startswith(RESULTS) and path.suffix != ".png":
            command = _command(path) or "memrecon reproduce"
            lines.append(f"| [{_title(path)}](../{place}) | `{command}` |")
    return "\n".join(lines)


def _title(path: Path) -> str:
    if path.suffix == ".json":
        return {"cpu-ops": "The operations on a CPU", "cpu-recovery": "Recoveries on a CPU"}[path.stem]
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _rows(path: Path) -> str:
    """A page of a JSON file that `python -m benchmarks ops` or `recovery` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    where = ", ".join(f"{key}: {value}" for key, value in content["where"].items())
    lines = [f"# {_title(path)}", "", f"{where}. Medians, with the 20th and 80th percentile.", ""]
    lines += ["| benchmark | what | ms (p20 – p80) | times `memrecon_fast` |", "|---|---|---|---|"]
    for row in content["rows"]:
        said = ("benchmark", "seconds", "ratio_to_memrecon_fast")
        about = ", ".join(f"{key}: {value}" for key, value in row.items() if key not in said)
        for what, seconds in row["seconds"].items():
            p20, p50, p80 = (f"{1e3 * seconds[p]:.3g}" for p in ("p20", "p50", "p80"))
            ratio = row["ratio_to_memrecon_fast"].get(what, 1)
            lines.append(f"| {about} | {what} | {p50} ({p20} – {p80}) | {ratio:.2f} |")
    return "\n".join(lines) + "\n"
