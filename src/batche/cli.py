"""The command `batche`: one function for each of its commands.

Exit codes: 0, done; 1, the command ran and its answer is no (the demo's results differ) or it could not
finish; 2, it was called wrongly; 130, it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from batche.errors import BatcheException

EXIT_CODES = """\
exit codes:
  0    done
  1    the results differ, or the command could not finish
  2    called wrongly
  130  interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; called wrongly, exit with 2 as argparse does."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except (BatcheException, OSError) as error:
        print(f"batche: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("batche: interrupted", file=sys.stderr)
        return 130
    return code


class _ShowVersion(argparse.Action):
    """Looks the version up only when asked: a source tree that is not installed has none."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        try:
            version = metadata.version("batche")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"batche {version}")
        parser.exit()


def _demo(arguments: argparse.Namespace) -> int:
    from batche import _demo

    return _demo.main(workers=arguments.workers, quick=arguments.quick, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="batche",
        description="Cache a batch function per item, once per host, for all its processes.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    _add_demo(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="look for near-duplicates in the standard library's text, with and without the cache",
        description="Several processes compute the MinHash signatures of the docstrings and the source of the "
        "standard library, in overlapping batches: with no cache, with functools.lru_cache in each, and with batche.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    demo.add_argument("--quick", action="store_true", help="take a tenth of the texts: a few seconds")
    demo.add_argument("--workers", type=_positive, default=4, metavar="N", help="worker processes (default: 4)")
    demo.set_defaults(run=_demo)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
