"""Run the benchmarks: ``python -m benchmarks [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from benchmarks import evicting_inserts, misses, plot, report, rounds, single_item, warm_hits
from benchmarks.machine import kind
from benchmarks.peers import OLD_VERSION, PEERS, wanting
from benchmarks.questions import QUICK, Answer, Question, Sizes

MODULES: Final[dict[str, ModuleType]] = {
    "warm_hits": warm_hits,
    "single_item": single_item,
    "misses": misses,
    "evicting_inserts": evicting_inserts,
}
RESULTS: Final = Path(__file__).parent / "results"
OLD: Final = f"batche {OLD_VERSION}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask the questions; 1 where a peer gave wrong results, whatever the targets say."""
    options = _options(arguments)
    sizes = _sizes(options)
    questions = [question for name in options.questions for question in MODULES[name].questions(sizes)]
    absent = {name: f"without {', '.join(wanting(name))}" for name in options.peers if wanting(name)}
    with _old_batche(options, absent) as old:
        peers = [name for name in options.peers if name not in absent]
        for name, reason in absent.items():
            print(f"skipped: {name}, {reason}")
        answers = list(_ask(questions, peers, {OLD: old} if old else {}, options.seed))
    _write(report.as_json(answers, sizes, absent), options)
    return 0 if all(outcome.right for answer in answers for outcome in answer.outcomes.values()) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Cost per item, side by side.")
    parser.add_argument("--quick", action="store_true", help="fewer entries and rounds; nothing is kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where results go, with a plot beside them")
    parser.add_argument("--questions", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--old", type=Path, metavar="DIR", help=f"where {OLD} is; by default it is installed by pip")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the peers")
    for field, meaning in zip(Sizes._fields, ("entries that are there", "items of a batch", "rounds"), strict=True):
        parser.add_argument(f"--{field}", type=int, metavar="N", help=meaning)
    return parser.parse_args(arguments)


def _sizes(options: argparse.Namespace) -> Sizes:
    stated = {field: getattr(options, field) for field in Sizes._fields if getattr(options, field) is not None}
    return (QUICK if options.quick else Sizes())._replace(**stated)


@contextmanager
def _old_batche(options: argparse.Namespace, absent: dict[str, str]) -> Iterator[Path | None]:
    """The directory that has batche 0.1.1; where it cannot be had, it is added to what is ``absent``."""
    if OLD not in options.peers or options.old is not None:
        yield options.old and options.old.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", directory]
        done = subprocess.run([*command, f"batche=={OLD_VERSION}"], capture_output=True, text=True, check=False)
        if done.returncode:
            absent[OLD] = "pip cannot install it"
        yield Path(directory)


def _ask(questions: Sequence[Question], peers: Sequence[str], paths: rounds.Paths, seed: int) -> Iterator[Answer]:
    for question in questions:
        answer = rounds.ask_all(question, peers, paths, seed)
        print(report.table(answer), flush=True)
        yield answer


def _write(results: dict[str, Any], options: argparse.Namespace) -> None:
    path: Path | None = options.json
    if path is None and not options.quick:
        path = RESULTS / f"{results['date']}-{kind()}.json"
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".svg").write_text(plot.svg(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
